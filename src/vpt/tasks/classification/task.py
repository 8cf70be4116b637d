"""The task of one label for each image."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from vpt.backbones import load_backbone
from vpt.data.dataset import Dataset, Split
from vpt.data.decode_cache import decode_cached
from vpt.data.image_inputs import ImageInput
from vpt.data.images import DecodedImages
from vpt.data.loading import load_dataset
from vpt.data.preprocessing import Preprocessing
from vpt.data.splits import stratified_subset
from vpt.errors import DataError
from vpt.heads.dense import DenseHead
from vpt.model.attach import attach
from vpt.model.readout import MultiBlock, Pooled, Readout
from vpt.model.tuned_model import TunedModel
from vpt.tasks.base import Evaluation, Prediction, PreparedData, Task
from vpt.tasks.classification.config import ClassificationConfig, ClassificationOptions
from vpt.tasks.classification.prediction import evaluate, predict
from vpt.tasks.classification.training import ClassificationObjective, make_objective
from vpt.training import (
    CROP_SCALE,
    Callback,
    DeviceDataset,
    Examples,
    Scores,
    TaskConfig,
    cache_frozen_features,
    collect_init_inputs,
    distributed,
    predict_logits,
    score_logits,
)
from vpt.training.job import Job


@dataclass(frozen=True)
class ClassificationData(PreparedData):
    """Prepared data of classification.

    Attributes:
        decoded: Decoded images and labels of each split.
    """

    decoded: dict[str, Examples]

    def digest(self) -> str:  # noqa: D102
        digest = hashlib.sha256()
        for examples in self.decoded.values():
            digest.update(examples.pixels.data)
            digest.update(examples.labels.data)
        return digest.hexdigest()


class ClassificationTask(Task):
    """One label for each image, scored by top-1 accuracy."""

    name: ClassVar[str] = "classification"
    metrics: ClassVar[Mapping[str, str]] = {"top1": "top-1", "mean_per_class": "mean per class"}
    class_metric: ClassVar[str] = "top-1"
    nothing: ClassVar[str] = "no image"
    config_class: ClassVar[type[TaskConfig]] = ClassificationConfig
    heads: ClassVar[Mapping[str, type[Readout] | type[DenseHead]]] = {"linear": Pooled, MultiBlock.name: MultiBlock}

    def default_head(self, module: nn.Module) -> str:  # noqa: D102
        return "linear"

    def prepare(self, job: Job, callback: Callback) -> ClassificationData:  # noqa: D102
        _, options = _settings(job)
        # Images that do not fit into memory lie here while the job runs; a killed one has left its own behind.
        shutil.rmtree(_spill_dir(job), ignore_errors=True)
        backbone = load_backbone(job.backbone, weights=job.weights, image_size=job.image_size)
        interpolation = options.interpolation or backbone.preprocessing.interpolation
        preprocessing = replace(backbone.preprocessing, resize=options.resize, interpolation=interpolation)
        dataset = load_dataset(job.data, include_test=job.test, **job.split_options)
        decoded, decode_notes = _decode(job, _select_splits(job, dataset), preprocessing, callback)
        notes = [*backbone.notes, *dataset.notes, *decode_notes]
        if dataset.ignored:
            notes.append(
                f"{len(dataset.ignored)} entries of the folder were not used: {', '.join(dataset.ignored[:5])}"
            )
        return ClassificationData(
            replace(backbone, preprocessing=preprocessing),
            dataset.name,
            dataset.classes,
            {split: len(examples) for split, examples in decoded.items()},
            notes,
            decoded,
        )

    def attach(self, job: Job, data: PreparedData) -> TunedModel:  # noqa: D102
        readout = self.make_readout(job.head, data.backbone)
        return attach(data.backbone, job.method, len(data.classes), classes=data.classes, head=readout)

    def objective(  # noqa: D102
        self, model: TunedModel, data: PreparedData, job: Job, callback: Callback, *, resumed: bool
    ) -> ClassificationObjective:
        assert isinstance(data, ClassificationData)
        config, options = _settings(job)
        if model.method.init_inputs:
            seed, examples = config.training.seed, data.decoded["train"]
            model.initialize(collect_init_inputs(model, examples, cache=options.cache, seed=seed))
        return make_objective(
            model, data.decoded["train"], config, validation=data.decoded.get("val"), cache=options.cache,
            callback=callback, resumed=resumed,
        )  # fmt: skip

    def score(self, model: TunedModel, data: PreparedData, job: Job, callback: Callback) -> Evaluation:  # noqa: D102
        assert isinstance(data, ClassificationData)
        config, options = _settings(job)
        device, split = next(model.parameters()).device, data.eval_split
        dataset, bf16 = (
            DeviceDataset(data.decoded[split], data.backbone.preprocessing, device),
            config.training.use_bf16(device),
        )
        network = cache_frozen_features(model, dataset, bf16=bf16, cache=options.cache)

        def on_batch(done: int, total: int) -> None:
            callback.on_data_progress(f"scoring {split}", done, total)

        logits = predict_logits(network, dataset, bf16=bf16, on_batch=on_batch)
        return _evaluation(split, score_logits(logits, dataset.labels), data.classes)

    def evaluate(  # noqa: D102
        self,
        model: TunedModel,
        data: str | Dataset,
        split: str,
        split_options: Mapping[str, Any],
        options: Mapping[str, Any],
        callback: Callback,
    ) -> Evaluation:
        dataset = load_dataset(data, **split_options)
        scores = evaluate(
            model,
            dataset,
            split,
            on_image=lambda done, total: callback.on_data_progress(split, done, total),
            on_note=callback.on_note,
            **options,
        )
        return _evaluation(split, scores, model.classes or dataset.classes)

    def predict(  # noqa: D102
        self, model: TunedModel, images: Sequence[ImageInput], options: Mapping[str, Any], callback: Callback
    ) -> list[Prediction]:
        return predict(
            model,
            images,
            on_image=lambda done, total: callback.on_data_progress("images", done, total),
            on_note=callback.on_note,
            **options,
        )


def _settings(job: Job) -> tuple[ClassificationConfig, ClassificationOptions]:
    assert isinstance(job.config, ClassificationConfig) and isinstance(job.options, ClassificationOptions)
    return job.config, job.options


def _evaluation(split: str, scores: Scores, classes: Sequence[str]) -> Evaluation:
    """Scores by name; None (not NaN, which JSON lacks) for a class without images."""
    per_class = {
        name: None if value != value else float(value)  # NaN is not itself
        for name, value in zip(classes, scores.per_class, strict=True)
    }
    metrics = {"top1": scores.top1, "mean_per_class": scores.mean_per_class}
    return Evaluation(split, int(scores.confusion.sum()), metrics, per_class, scores.confusion, scores.loss)


def _spill_dir(job: Job) -> Path:
    """The folder in which this process keeps images that do not fit into memory."""
    return job.run_dir / f"pixels-{distributed.rank()}"


def _select_splits(job: Job, dataset: Dataset) -> dict[str, Split]:
    fraction = _settings(job)[1].train_fraction
    train_on = dataset.trainval() if job.train_on == "trainval" else dataset.train
    splits = {"train": stratified_subset(train_on, dataset.classes, fraction, job.config.training.seed)}
    if job.train_on == "train" and len(dataset.val):
        splits["val"] = dataset.val
    if len(dataset.test):
        splits["test"] = dataset.test
    return splits


def _decode(
    job: Job, splits: dict[str, Split], preprocessing: Preprocessing, callback: Callback
) -> tuple[dict[str, Examples], list[str]]:
    """All splits as arrays; every unusable image of every split is named in one error."""
    config, options = _settings(job)
    decoded, notes, errors = {}, [], []

    def decode_split(split: str, target: Preprocessing, description: str) -> DecodedImages:
        return decode_cached(
            splits[split],
            target,
            cache_dir=options.cache,
            spill_dir=_spill_dir(job),
            skip_corrupt=options.skip_corrupt,
            progress=lambda done, total: callback.on_data_progress(description, done, total),
        )

    for split in splits:
        augment = config.augment if split == "train" else "none"
        side = round(preprocessing.size * CROP_SCALE.get(augment, 1))
        uncropped = replace(preprocessing, size=side, crop_fraction=1.0)  # the shape of test images, no edge lost
        try:
            pixels = decode_split(split, uncropped if augment == "random_crop" else preprocessing, split)
            oversized = (
                decode_split(split, uncropped, f"{split}, larger").images if augment == "random_resized_crop" else None
            )
        except DataError as error:
            errors.append(f"{split}: {error}")
            continue
        decoded[split] = Examples(pixels.images, pixels.labels, oversized)
        notes += [f"{split}: {note}" for note in pixels.notes]
        notes += [f"{split}: left out {name}" for name in pixels.dropped]
    if errors:
        raise DataError("\n".join(errors))
    return decoded, notes
