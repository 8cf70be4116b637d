"""The main job: a folder of images and a frozen backbone in, one small tuned file out.

Everything a job leaves besides the tuned file lies in its run folder (`pets.safetensors` -> `pets.run/`):
job.json, checkpoint.safetensors, metrics.jsonl, result.json, curve.png, confusion.png.
The same job again goes on where it stopped; a finished one is only read.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from vpt.backbones import Backbone, load_backbone
from vpt.core import environment
from vpt.data.dataset import Dataset, Split
from vpt.data.decode_cache import decode_cached
from vpt.data.images import DecodedImages
from vpt.data.loading import load_dataset
from vpt.data.preprocessing import Preprocessing
from vpt.data.splits import stratified_subset
from vpt.errors import DataError, SpecError, TrainingError
from vpt.model.tuned_model import TunedModel, attach
from vpt.plots import figures
from vpt.training import (
    CROP_SCALE,
    Callback,
    CallbackList,
    DeviceDataset,
    EpochMetrics,
    Examples,
    Scores,
    cache_frozen_features,
    class_prototypes,
    distributed,
    predict_logits,
    score_logits,
    train,
    train_head_grid,
)
from vpt.training.job import ClassificationResult, Job
from vpt.training.run_directory import MetricsRecorder, build_result, open_run, write_failure, write_job, write_result


def tune(
    job: Job, callback: Callback | None = None, *, overwrite: bool = False, draw: bool = True
) -> ClassificationResult:
    """Do a job, or go on with it, or read what came of it.

    overwrite: begin anew, whatever is in the run folder. draw: leave curve.png and confusion.png there.
    Raises DataError naming every unusable image before training; TrainingError when the loss diverges (a record of
    the failure stays in result.json); SpecError when the run folder belongs to a job with other settings.
    """
    callback = callback or Callback()
    finished_result = open_run(job, ClassificationResult, callback, overwrite=overwrite)
    if finished_result is not None:
        return finished_result

    is_main = distributed.rank() == 0
    prepared = prepare_data(job, callback)
    if is_main:
        write_job(job, _digest(prepared.decoded))

    device = distributed.local_device()
    torch.manual_seed(job.config.seed)
    model = prepared.attach(job.method).to(device)
    if model.method.needs_prototypes:
        model.init_from_prototypes(class_prototypes(model, prepared.decoded["train"], cache=job.cache))
    try:
        history = train(
            model,
            prepared.decoded["train"],
            job.config,
            validation=prepared.decoded.get("val"),
            checkpoint=job.run_dir / "checkpoint.safetensors",
            cache=job.cache,
            callback=CallbackList([MetricsRecorder(job.run_dir / "metrics.jsonl"), callback]),
        )
    except TrainingError as error:
        if is_main:
            write_failure(job, error)
        raise

    dataset = DeviceDataset(prepared.decoded[prepared.eval_split], prepared.backbone.preprocessing, device)
    scores = _evaluate(model, job, dataset, _progress_callback(callback, f"scoring {prepared.eval_split}"))
    result = _build_result(job, prepared, model, history, scores)
    if is_main and draw:
        name, classes = prepared.data.name, prepared.data.classes
        figures.training_curves(job.run_dir / "curve.png", history, f"{result.method} on {name}")
        figures.confusion_matrix(
            job.run_dir / "confusion.png", scores.confusion, classes, f"{name} {prepared.eval_split}"
        )
    if is_main:
        write_result(job, result)
        for leftover in job.run_dir.glob("pixels-*"):
            shutil.rmtree(leftover, ignore_errors=True)
    callback.on_train_end(_metrics(prepared.eval_split, scores))
    return result


def tune_heads(jobs: Sequence[Job], callback: Callback | None = None) -> list[ClassificationResult | TrainingError]:
    """Do jobs at once that train nothing but heads, and differ in what `train_head_grid` lets differ; in their order.

    Each result, or error of a loss that diverged, is that of `tune` to rounding. There are no run folders: what is
    interrupted begins anew. Raises SpecError for jobs that cannot be done at once, and what `tune` raises for data.
    """
    callback, base_job = callback or Callback(), jobs[0]
    for job in jobs:
        if replace(job, out=base_job.out, config=base_job.config) != base_job or job.split_seed is None:
            raise SpecError(
                "jobs that are done at once may differ in their files and configurations alone, on one split"
            )
        if job.train_fraction < 1 and job.config.seed != base_job.config.seed:
            raise SpecError(
                f"with train_fraction {job.train_fraction:g} each seed has images of its own; do these jobs one by one"
            )
    environment.keep_freed_memory()
    device = distributed.local_device()
    try:
        prepared = prepare_data(base_job, callback)
        model = prepared.attach(base_job.method).to(device)
        grid = train_head_grid(
            model,
            prepared.decoded["train"],
            [job.config for job in jobs],
            validation=prepared.decoded.get("val"),
            cache=base_job.cache,
        )
        dataset = DeviceDataset(prepared.decoded[prepared.eval_split], prepared.backbone.preprocessing, device)
        results: list[ClassificationResult | TrainingError] = []
        for job, head_result in zip(jobs, grid, strict=True):
            if head_result.error is not None:
                results.append(head_result.error)
                continue
            model.head = head_result.head
            results.append(_build_result(job, prepared, model, head_result.history, _evaluate(model, job, dataset)))
    finally:
        shutil.rmtree(base_job.run_dir, ignore_errors=True)
    return results


@dataclass(frozen=True)
class PreparedData:
    """What a job works on: its backbone, its data, and each split's images as arrays."""

    backbone: Backbone
    data: Dataset
    decoded: dict[str, Examples]
    notes: list[str]

    @property
    def eval_split(self) -> str:
        return next(split for split in ("test", "val", "train") if split in self.decoded)

    def attach(self, method: str) -> TunedModel:
        return attach(self.backbone, method, len(self.data.classes), classes=self.data.classes)


def prepare_data(job: Job, callback: Callback) -> PreparedData:
    """Load the backbone, read and decode the images; every unusable one is named in one error."""
    # Images that do not fit into memory lie here while the job runs; a killed one has left its own behind.
    shutil.rmtree(_spill_dir(job), ignore_errors=True)
    backbone = load_backbone(job.backbone, weights=job.weights, image_size=job.image_size)
    backbone = replace(backbone, preprocessing=_preprocessing(job, backbone.preprocessing))
    data = load_dataset(job.data, include_test=job.test, **job.split_options)
    decoded, decode_notes = _decode(job, _select_splits(job, data), backbone.preprocessing, callback)
    notes = [*backbone.notes, *data.notes, *decode_notes]
    if data.ignored:
        notes.append(f"{len(data.ignored)} entries of the folder were not used: {', '.join(data.ignored[:5])}")
    for note in notes:
        callback.on_note(note)
    return PreparedData(backbone, data, decoded, notes)


def _spill_dir(job: Job) -> Path:
    """Where this process puts images that do not fit into memory."""
    return job.run_dir / f"pixels-{distributed.rank()}"


def _evaluate(
    model: TunedModel, job: Job, dataset: DeviceDataset, on_batch: Callable[[int, int], None] | None = None
) -> Scores:
    without_augmentation = replace(job.config, augment="none")
    network = cache_frozen_features(model, without_augmentation, dataset, cache=job.cache)
    bf16 = job.config.use_bf16(distributed.local_device())
    return score_logits(predict_logits(network, dataset, bf16=bf16, on_batch=on_batch), dataset.labels)


def _metrics(split: str, scores: Scores) -> dict[str, float]:
    return {f"{split}_top1": scores.top1, f"{split}_mean_per_class": scores.mean_per_class}


def _build_result(
    job: Job, prepared: PreparedData, model: TunedModel, history: Sequence[EpochMetrics], scores: Scores
) -> ClassificationResult:
    return build_result(
        job,
        ClassificationResult,
        model,
        history,
        _metrics(prepared.eval_split, scores),
        data=prepared.data.name,
        eval_split=prepared.eval_split,
        top1=scores.top1,
        mean_per_class=scores.mean_per_class,
        per_class=_recall_by_class(scores, prepared.data.classes),
        images={split: len(examples) for split, examples in prepared.decoded.items()},
        peak_memory_bytes=environment.peak_memory(distributed.local_device()),
        notes=prepared.notes,
    )


def _preprocessing(job: Job, defaults: Preprocessing) -> Preprocessing:
    return replace(defaults, resize=job.resize, interpolation=job.interpolation or defaults.interpolation)


def _progress_callback(callback: Callback, split: str) -> Callable[[int, int], None]:
    """A callback (done, total) that reports as `part`."""
    return lambda done, total: callback.on_data_progress(split, done, total)


def _digest(decoded: dict[str, Examples]) -> str:
    digest = hashlib.sha256()
    for examples in decoded.values():
        digest.update(examples.pixels.data)
        digest.update(examples.labels.data)
    return digest.hexdigest()


def _select_splits(job: Job, data: Dataset) -> dict[str, Split]:
    train_on = data.trainval() if job.train_on == "trainval" else data.train
    splits = {"train": stratified_subset(train_on, data.classes, job.train_fraction, job.config.seed)}
    if job.train_on == "train" and len(data.val):
        splits["val"] = data.val
    if len(data.test):
        splits["test"] = data.test
    return splits


def _decode(
    job: Job, splits: dict[str, Split], preprocessing: Preprocessing, callback: Callback
) -> tuple[dict[str, Examples], list[str]]:
    """All splits as arrays; every unusable image of every split is named in one error."""
    decoded, notes, errors = {}, [], []

    def decode_split(split: str, target: Preprocessing, description: str) -> DecodedImages:
        return decode_cached(
            splits[split],
            target,
            cache_dir=job.cache,
            spill_dir=_spill_dir(job),
            skip_corrupt=job.skip_corrupt,
            progress=_progress_callback(callback, description),
        )

    for split in splits:
        augment = job.config.augment if split == "train" else "none"
        side = round(preprocessing.size * CROP_SCALE.get(augment, 1))
        uncropped = replace(
            preprocessing, size=side, crop_fraction=1.0
        )  # the shape of what is tested, and no edge lost
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


def _recall_by_class(scores: Scores, classes: tuple[str, ...]) -> dict[str, float | None]:
    """Recall by class name; None (not NaN, which JSON lacks) for a class without images."""
    return {
        name: None if value != value else float(value)  # NaN is not itself
        for name, value in zip(classes, scores.per_class, strict=True)
    }
