"""The task of labels for whole images: one class, several, or a number."""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from vpt.backbones import Backbone, load_backbone
from vpt.data.dataset import Dataset
from vpt.data.decode_cache import decode_cached
from vpt.data.find_images import find_images
from vpt.data.image_inputs import ImageInput
from vpt.data.loading import load_dataset, load_scored_dataset
from vpt.data.overview import overview_of_classes
from vpt.data.training_marks import make_marks
from vpt.data.value_checks import value_range_notes
from vpt.errors import SpecError
from vpt.heads.dense import DenseHead
from vpt.methods.registry import parse_method
from vpt.model import tuned_file
from vpt.model.load import load
from vpt.model.named_backbone import backbone_for
from vpt.model.readout import MultiBlock, Pooled, Readout
from vpt.model.tuned_model import TunedModel
from vpt.plots.figures import MAX_NAMED_CLASSES
from vpt.tasks.base import NUM_EXAMPLES, PreparedData, Task
from vpt.tasks.classification.calibration import describe_calibration, notes_on_scores
from vpt.tasks.classification.config import ClassificationConfig, ClassificationOptions
from vpt.tasks.classification.continuation import class_names, join_classes, measure_old_classes, start_from
from vpt.tasks.classification.decoded_splits import decode_splits, select_splits
from vpt.tasks.classification.label_checks import check_options_of_labels, joins_by_default
from vpt.tasks.classification.labels import LabelTask, fit_label_kind, label_task
from vpt.tasks.classification.metrics import with_metric_first
from vpt.tasks.classification.prediction import confidences, evaluate, picture_mistakes, predict
from vpt.tasks.classification.rejection import check_rejection, measure_rejection
from vpt.tasks.classification.ridge_head import (
    Penalty,
    add_ridge_head,
    add_ridge_head_if_better,
    describe_joined,
    gains_ridge_head,
    solve_head,
    trains_first,
    wide_model,
)
from vpt.tasks.classification.training import init_head_from_probe, make_objective
from vpt.tasks.evaluation import Evaluation, make_evaluation
from vpt.tasks.pictures import Picture, confident_mistakes
from vpt.tasks.prediction import Prediction
from vpt.training import Callback, DeviceDataset, EpochMetrics, Examples, Objective, Progress, TaskConfig, distributed
from vpt.training.evaluation import Scores, predict_logits
from vpt.training.feature_cache import cache_frozen_features
from vpt.training.init_inputs import collect_init_inputs
from vpt.training.job import Job
from vpt.training.streaming import choose_loading, stream_splits

_SCORING = ("skip_corrupt", "loading", "workers")  # options of scoring, beside those that select images


@dataclass(frozen=True)
class ClassificationData(PreparedData):
    """Prepared data of classification.

    Attributes:
        decoded: Decoded images and labels of each split.
        config: Training configuration.
        cache: Folder for frozen features, or None.
        init: Tuned file that training goes on from, or None.
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
        """How the labels are learned, scored and answered, before thresholds are chosen."""
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


class ClassificationTask(Task):
    """Labels of whole images: one class, scored by top-1 accuracy; several, by mean average precision; or a number."""

    name: ClassVar[str] = "classification"
    metrics: ClassVar[Mapping[str, str]] = {
        "top1": "top-1", "mean_per_class": "mean per class",
        "map": "mAP", "macro_f1": "macro F1",
        "r2": "R²", "mae": "MAE", "balanced_accuracy": "balanced accuracy",
        "label_accuracy": "right labels",
    }  # fmt: skip
    class_metric: ClassVar[str] = "top-1"
    nothing: ClassVar[str] = "no image"
    config_class: ClassVar[type[TaskConfig]] = ClassificationConfig
    heads: ClassVar[Mapping[str, type[Readout] | type[DenseHead]]] = {"linear": Pooled, MultiBlock.name: MultiBlock}

    def class_label(self, metric: str) -> str:  # noqa: D102
        return "AP" if metric == "map" else self.class_metric

    def default_head(self, module: nn.Module) -> str:  # noqa: D102
        return "linear"

    def prepare(self, job: Job, callback: Callback) -> ClassificationData:  # noqa: D102
        config, options = job.config, job.options
        assert isinstance(config, ClassificationConfig) and isinstance(options, ClassificationOptions)
        # Images that do not fit into memory lie here while the job runs; a killed one has left its own behind.
        spill_dir = job.run_dir / f"pixels-{distributed.rank()}"
        shutil.rmtree(spill_dir, ignore_errors=True)
        backbone = self.load_backbone(job)
        preprocessing = backbone.preprocessing
        dataset = load_dataset(job.data, include_test=job.test, **job.split_options)
        if options.init is not None and dataset.label_kind == "single_label":
            dataset = join_classes(dataset, class_names(options.init))
        check_options_of_labels(dataset, config, options, job.method)
        splits = select_splits(dataset, job.train_on, options, config.training.seed)
        if options.calibrate and "val" not in splits:
            raise SpecError(
                "calibrate is True, and there are no val images to calibrate on; give some, or leave it out"
            )
        decoded_bytes = 3 * preprocessing.size**2 * sum(map(len, splits.values()))
        streams, words = choose_loading(options.loading, decoded_bytes, options.cache, options.workers)
        first, *lines = replace(overview_of_classes(dataset), notes=()).lines()  # notes are given one by one
        callback.on_data([f"{first}; {words}", *lines])
        value_notes = value_range_notes(splits["train"].images, preprocessing.value_range)
        if streams:
            decoded, decode_notes = stream_splits(
                splits, preprocessing, config.augment, workers=options.workers, folder=spill_dir,
                skip_corrupt=options.skip_corrupt, callback=callback,
            )  # fmt: skip
        else:
            decode = partial(
                decode_cached, cache_dir=options.cache, spill_dir=spill_dir, skip_corrupt=options.skip_corrupt
            )
            decoded, decode_notes = decode_splits(splits, preprocessing, config.augment, decode, callback)
        notes = [*backbone.notes, *dataset.notes, *value_notes, *decode_notes]
        if dataset.ignored:
            examples = ", ".join(dataset.ignored[:5])
            notes.append(f"{len(dataset.ignored)} entries of the folder were not used: {examples}")
        sizes = {split: len(examples) for split, examples in decoded.items()}
        marks = make_marks(splits["train"].images)
        return ClassificationData(
            backbone, dataset.name, dataset.classes, sizes, notes, marks, decoded, config, options.cache,
            self.make_readout(job.head, backbone), options.penalty,
            job.head is None and joins_by_default(dataset, config, options), options.init, options.calibrate,
        )  # fmt: skip

    def attach(self, job: Job, data: PreparedData) -> TunedModel:  # noqa: D102
        assert isinstance(data, ClassificationData)
        joins = trains_first(parse_method(job.method), data.ridge)
        # The ridge head alone reads several blocks.
        model = super().attach(replace(job, head=None) if joins and isinstance(data.readout, MultiBlock) else job, data)
        model.label_kind = data.labels.kind
        if joins:
            wide_model(model, data.readout)  # refuses what cannot be joined before anything is trained
        if data.init is not None:
            start_from(model, data.init)
        return model

    def load_backbone(self, job: Job) -> Backbone:
        """Load the backbone of a job, with the preprocessing of its options.

        Args:
            job: The job.

        Returns:
            The backbone.
        """
        options = job.options
        assert isinstance(options, ClassificationOptions)
        if options.init is not None:  # whose images were prepared in one way
            header = tuned_file.read_header(options.init)
            backbone = backbone_for(options.init, header, job.backbone, job.weights)
            # A file that does not fit is refused before its method takes memory and images are decoded.
            return load(options.init, backbone).backbone
        backbone = load_backbone(job.backbone, weights=job.weights, image_size=job.image_size)
        preprocessing = job.preprocess(backbone.preprocessing)
        fraction = preprocessing.crop_fraction if options.crop_fraction is None else options.crop_fraction
        preprocessing = replace(
            preprocessing,
            resize=options.resize,
            crop_fraction=fraction,
            interpolation=options.interpolation or preprocessing.interpolation,
        )
        return replace(backbone, preprocessing=preprocessing)

    def evaluate(  # noqa: D102
        self, model: TunedModel, data: str | Dataset, split: str, options: Mapping[str, Any], callback: Callback
    ) -> Evaluation:
        rejection = {name: options.get(name) for name in ("min_confidence", "foreign", "false_accept")}
        check_rejection(model.label_kind, **rejection)
        min_confidence, folder = rejection["min_confidence"], rejection["foreign"]
        foreign = None if folder is None else find_images([Path(folder)])
        split_options = {name: value for name, value in options.items() if name not in {*_SCORING, *rejection}}
        split_options.setdefault("label_kind", model.label_kind.name)
        dataset = load_scored_dataset(data, split, on_note=callback.on_note, **split_options)
        scoring = {name: options[name] for name in _SCORING if name in options}
        scores = evaluate(model, dataset, split, callback, **scoring)
        evaluation = make_evaluation(split, scores.num_images, scores, model.classes or dataset.classes)
        pictures = partial(picture_mistakes, model, dataset.splits[split], scores, tuple(evaluation.per_class))
        notes = tuple(notes_on_scores(model.label_kind, split))
        evaluation = replace(evaluation, notes=notes, pictures=pictures)
        if min_confidence is None and foreign is None:
            return evaluation
        others = None if foreign is None else confidences(model, foreign, callback)
        found = measure_rejection(scores, min_confidence, others, options.get("false_accept", 0.05))
        return replace(evaluation, rejection=found)

    def predict(  # noqa: D102
        self, model: TunedModel, images: Sequence[ImageInput], options: Mapping[str, Any], callback: Callback
    ) -> list[Prediction]:
        return predict(model, images, callback, **options)
