"""Decoded images of classification, and what is trained and scored on them."""

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vpt.model.readout import Readout
from vpt.model.tuned_model import TunedModel
from vpt.plots.figures import MAX_NAMED_CLASSES
from vpt.tasks.classification.calibration import describe_calibration, notes_on_scores
from vpt.tasks.classification.config import ClassificationConfig
from vpt.tasks.classification.continuation import measure_old_classes
from vpt.tasks.classification.labels import LabelTask, fit_label_kind, label_task
from vpt.tasks.classification.metrics import with_metric_first
from vpt.tasks.classification.ridge_head import (
    Penalty,
    add_ridge_head,
    add_ridge_head_if_better,
    describe_joined,
    gains_ridge_head,
    solve_head,
    trains_first,
)
from vpt.tasks.classification.training import init_head_from_probe, make_objective
from vpt.tasks.evaluation import Evaluation
from vpt.tasks.pictures import Picture, confident_mistakes
from vpt.tasks.prepared_data import NUM_EXAMPLES, PreparedData
from vpt.training import Callback, DeviceDataset, EpochMetrics, Examples, Objective, Progress, TaskConfig
from vpt.training.evaluation import Scores, predict_logits
from vpt.training.feature_cache import cache_frozen_features
from vpt.training.init_inputs import collect_init_inputs


@dataclass(frozen=True)
class ClassificationData(PreparedData):
    """Prepared data of classification.

    Attributes:
        decoded: Decoded images and labels of each split.
        config: Training configuration.
        cache: Folder for frozen features, or None.
        init: Tuned file that training continues from, or None.
        calibrated: True if the temperature of probabilities is fitted on val.
        readout: What the head reads.
        ridge: Penalty of a head that was asked for and is solved for, see `ClassificationOptions`, "auto", or None.
        joins_by_default: True if a ridge head joins the trained one where that is possible.
    """

    decoded: dict[str, Examples]
    config: ClassificationConfig
    cache: Path | None
    readout: Readout
    ridge: Penalty | None = None
    joins_by_default: bool = False
    init: Path | None = None
    calibrated: bool = False

    @property
    def labels(self) -> LabelTask[Any]:
        """Label task of the training labels, before thresholds are chosen."""
        return label_task(fit_label_kind(self.decoded["train"].labels))

    def digest(self) -> str:  # noqa: D102
        digest = hashlib.sha256()
        for examples in self.decoded.values():
            digest.update(examples.content)
            digest.update(examples.labels.data)
        return digest.hexdigest()

    def examples(self) -> dict[str, list[NDArray[np.uint8]]]:  # noqa: D102
        train, found = self.decoded["train"], dict[str, list[NDArray[np.uint8]]]()
        for k, name in enumerate(self.classes[:MAX_NAMED_CLASSES]):
            indices = np.flatnonzero(self.labels.of_class(train.labels, k))[:NUM_EXAMPLES]
            found[name] = [train.pixels[index].transpose(1, 2, 0) for index in indices]
        return {name: images for name, images in found.items() if images}

    def objective(self, model: TunedModel, callback: Callback, *, resumed: bool) -> Objective:  # noqa: D102
        examples, seed = self.decoded["train"], self.config.training.seed
        if model.method.init_inputs and self.init is None:
            model.initialize(collect_init_inputs(model, examples, cache=self.cache, seed=seed))
        if self.config.probe_epochs and not resumed:
            init_head_from_probe(model, examples, self.config, self.cache)
        return make_objective(model, self.decoded, self.config, self.cache, callback)

    def train(  # noqa: D102
        self, model: TunedModel, config: TaskConfig, callback: Callback, checkpoint: Path | None = None
    ) -> tuple[TunedModel, list[EpochMetrics]]:
        history: list[EpochMetrics] = []
        if self.ridge is None or trains_first(model.method, self.ridge):
            model, history = super().train(model, config, callback, checkpoint)
        if self.ridge is not None or (self.joins_by_default and gains_ridge_head(model)):
            model = self._solve(model, callback)
        if (self.labels.calibrates and "val" in self.decoded) or self.calibrated:
            on_image = partial(callback.on_data_progress, "calibrating on val")
            logits, labels = self._predict(model, "val", on_image)
            model.label_kind = self.labels.calibrate(logits, labels)
            notes = [describe_calibration(model.label_kind, logits, labels)] if self.calibrated else []
            for note in notes + notes_on_scores(model.label_kind, self.eval_split):
                self.notes.append(note)
                callback.on_note(note)
        return model, history

    def _solve(self, model: TunedModel, callback: Callback) -> TunedModel:
        """Return the model with a head in closed form, alone or beside its own."""
        train, note = self.decoded["train"], ""
        passes: dict[str, Any] = {
            "bf16": self.config.training.use_bf16(next(model.parameters()).device),
            "on_batch": partial(callback.on_data_progress, "features"),
        }
        if self.ridge is None:
            model, note = add_ridge_head_if_better(model, train, **passes)
        elif trains_first(model.method, self.ridge):
            model, left_out = add_ridge_head(model, self.readout, train, self.ridge, **passes)
            note = describe_joined(left_out)
        else:
            left_out = solve_head(model, train, self.ridge, **passes)
            if self.labels.calibrates and "val" not in self.decoded:
                out_of_fold = torch.from_numpy(left_out.logits), torch.from_numpy(train.labels)
                model.label_kind = self.labels.calibrate(*out_of_fold)
            if self.ridge == "auto":
                note = f"the penalty {left_out.penalty:g} predicts training images that are left out best"
        if note:
            self.notes.append(note)
            callback.on_note(note)
        return model

    def score_split(self, model: TunedModel, split: str, on_image: Progress) -> Scores:  # noqa: D102
        return label_task(model.label_kind).score(*self._predict(model, split, on_image), self.decoded[split].groups)

    def pictures(self, model: TunedModel, scores: Scores, split: str) -> list[Picture]:
        """Return the most confident mistakes."""
        pixels, size = self.decoded[split].pixels, self.backbone.preprocessing.size

        def image_of(index: int) -> NDArray[np.uint8]:
            start = (pixels[index].shape[-1] - size) // 2
            return pixels[index][:, start : start + size, start : start + size].transpose(1, 2, 0)

        return confident_mistakes(scores, self.classes, image_of)

    def score(self, model: TunedModel, callback: Callback) -> Evaluation:  # noqa: D102
        evaluation, metric = super().score(model, callback), self.config.metric
        return evaluation if metric == "auto" else with_metric_first(evaluation, metric)

    def _predict(self, model: TunedModel, split: str, on_image: Progress) -> tuple[Tensor, Tensor]:
        """Return logits and labels of a split."""
        dataset = DeviceDataset.for_model(model, self.decoded[split])
        bf16 = self.config.training.use_bf16(dataset.device)
        network = cache_frozen_features(model, dataset, bf16=bf16, cache=self.cache)
        return predict_logits(network, dataset, bf16=bf16, on_batch=on_image), dataset.labels

    def measure_init(self, model: TunedModel) -> dict[str, Any] | None:  # noqa: D102
        if self.init is None:
            return None
        return {"split": self.eval_split, **measure_old_classes(model, self.init, self.decoded[self.eval_split])}
