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
from vpt.data.decode_cache import decode_once
from vpt.data.images import Pixels
from vpt.data.loading import read
from vpt.data.preprocessing import Preprocessing
from vpt.data.splits import subset
from vpt.errors import DataError, SpecError, TrainingError
from vpt.model.tuned_model import TunedModel, attach
from vpt.plots import figures
from vpt.training import (
    SIDES,
    Epoch,
    Examples,
    Feed,
    Scores,
    distributed,
    logits_of,
    prototypes,
    score,
    train,
    train_grid,
    what_must_run,
)
from vpt.training.job import Job, Listener, Result
from vpt.training.run_directory import Recorder, claim, conclude, open_run, record, record_failure


def tune(job: Job, listener: Listener | None = None, *, overwrite: bool = False, draw: bool = True) -> Result:
    """Do a job, or go on with it, or read what came of it.

    overwrite: begin anew, whatever is in the run folder. draw: leave curve.png and confusion.png there.
    Raises DataError naming every unusable image before training; TrainingError when the loss diverges (a record of
    the failure stays in result.json); SpecError when the run folder belongs to a job with other settings.
    """
    listener = listener or Listener()
    finished = open_run(job, Result, listener, overwrite=overwrite)
    if finished is not None:
        return finished

    first = distributed.rank() == 0
    material = _gather(job, listener)
    if first:
        claim(job, _digest(material.decoded))

    device = distributed.local_device()
    torch.manual_seed(job.recipe.seed)
    model = material.attach(job.method).to(device)
    if model.method.needs_prototypes:
        model.begin_at(prototypes(model, material.decoded["train"], cache=job.cache))
    try:
        history = train(
            model,
            material.decoded["train"],
            job.recipe,
            validation=material.decoded.get("val"),
            checkpoint=job.folder / "checkpoint.safetensors",
            cache=job.cache,
            watcher=Recorder(listener, job.folder / "metrics.jsonl"),
        )
    except TrainingError as error:
        if first:
            record_failure(job, error)
        raise

    feed = Feed(material.decoded[material.scored_on], material.backbone.preprocessing, device)
    scores = _score(model, job, feed, _reports(listener, f"scoring {material.scored_on}"))
    result = _concluded(job, material, model, history, scores)
    if first and draw:
        name, classes = material.data.name, material.data.classes
        figures.curve(job.folder / "curve.png", history, f"{result.method} on {name}")
        figures.confusion(job.folder / "confusion.png", scores.confusion, classes, f"{name} {material.scored_on}")
    if first:
        record(job, result)
        for left in job.folder.glob("pixels-*"):
            shutil.rmtree(left, ignore_errors=True)
    listener.finished(_figures(material.scored_on, scores))
    return result


def tune_heads(jobs: Sequence[Job], listener: Listener | None = None) -> list[Result | TrainingError]:
    """Do jobs at once that train nothing but heads, and differ in what `train_grid` lets differ; in their order.

    Each result, or error of a loss that diverged, is that of `tune` to rounding. There are no run folders: what is
    interrupted begins anew. Raises SpecError for jobs that cannot be done at once, and what `tune` raises for data.
    """
    listener, first = listener or Listener(), jobs[0]
    for job in jobs:
        if replace(job, out=first.out, recipe=first.recipe) != first or job.split_seed is None:
            raise SpecError("jobs that are done at once may differ in their files and recipes alone, on one split")
        if job.train_fraction < 1 and job.recipe.seed != first.recipe.seed:
            raise SpecError(
                f"with train_fraction {job.train_fraction:g} each seed has images of its own; do these jobs one by one"
            )
    environment.keep_freed_memory()
    device = distributed.local_device()
    try:
        material = _gather(first, listener)
        model = material.attach(first.method).to(device)
        grid = train_grid(
            model,
            material.decoded["train"],
            [job.recipe for job in jobs],
            validation=material.decoded.get("val"),
            cache=first.cache,
        )
        feed = Feed(material.decoded[material.scored_on], material.backbone.preprocessing, device)
        results: list[Result | TrainingError] = []
        for job, point in zip(jobs, grid, strict=True):
            if point.error is not None:
                results.append(point.error)
                continue
            model.head = point.head
            results.append(_concluded(job, material, model, point.history, _score(model, job, feed)))
    finally:
        shutil.rmtree(first.folder, ignore_errors=True)
    return results


@dataclass(frozen=True)
class _Material:
    """What a job works on: its backbone, its data, and each part's images as arrays."""

    backbone: Backbone
    data: Dataset
    decoded: dict[str, Examples]
    notes: list[str]

    @property
    def scored_on(self) -> str:
        return next(part for part in ("test", "val", "train") if part in self.decoded)

    def attach(self, method: str) -> TunedModel:
        return attach(self.backbone, method, len(self.data.classes), classes=self.data.classes)


def _gather(job: Job, listener: Listener) -> _Material:
    """Load the backbone, read and decode the images; every unusable one is named in one error."""
    # Images that do not fit into memory lie here while the job runs; a killed one has left its own behind.
    shutil.rmtree(_spill(job), ignore_errors=True)
    backbone = load_backbone(job.backbone, weights=job.weights, image_size=job.image_size)
    backbone = replace(backbone, preprocessing=_preprocessing(job, backbone.preprocessing))
    data = read(job.data, test=job.test, **job.cut)
    decoded, remarks = _decode(job, _parts(job, data), backbone.preprocessing, listener)
    notes = [*backbone.notes, *data.notes, *remarks]
    if data.ignored:
        notes.append(f"{len(data.ignored)} entries of the folder were not used: {', '.join(data.ignored[:5])}")
    for note in notes:
        listener.note(note)
    return _Material(backbone, data, decoded, notes)


def _spill(job: Job) -> Path:
    """Where this process puts images that do not fit into memory."""
    return job.folder / f"pixels-{distributed.rank()}"


def _score(model: TunedModel, job: Job, feed: Feed, on_batch: Callable[[int, int], None] | None = None) -> Scores:
    as_they_are = replace(job.recipe, augment="none")
    network = what_must_run(model, as_they_are, feed, cache=job.cache)
    bf16 = job.recipe.autocast_to_bf16(distributed.local_device())
    return score(logits_of(network, feed, bf16=bf16, on_batch=on_batch), feed.labels)


def _figures(part: str, scores: Scores) -> dict[str, float]:
    return {f"{part}_top1": scores.top1, f"{part}_mean_per_class": scores.mean_per_class}


def _concluded(job: Job, material: _Material, model: TunedModel, history: Sequence[Epoch], scores: Scores) -> Result:
    return conclude(
        job,
        Result,
        model,
        history,
        _figures(material.scored_on, scores),
        data=material.data.name,
        scored_on=material.scored_on,
        top1=scores.top1,
        mean_per_class=scores.mean_per_class,
        per_class=_named(scores, material.data.classes),
        images={part: len(examples) for part, examples in material.decoded.items()},
        peak_memory_bytes=environment.peak_memory(distributed.local_device()),
        notes=material.notes,
    )


def _preprocessing(job: Job, own: Preprocessing) -> Preprocessing:
    return replace(own, resize=job.resize, interpolation=job.interpolation or own.interpolation)


def _reports(listener: Listener, part: str) -> Callable[[int, int], None]:
    """A callback (done, total) that reports as `part`."""
    return lambda done, total: listener.decoding(part, done, total)


def _digest(decoded: dict[str, Examples]) -> str:
    digest = hashlib.sha256()
    for examples in decoded.values():
        digest.update(examples.pixels.data)
        digest.update(examples.labels.data)
    return digest.hexdigest()


def _parts(job: Job, data: Dataset) -> dict[str, Split]:
    train_on = data.trainval() if job.train_on == "trainval" else data.train
    parts = {"train": subset(train_on, data.classes, job.train_fraction, job.recipe.seed)}
    if job.train_on == "train" and len(data.val):
        parts["val"] = data.val
    if len(data.test):
        parts["test"] = data.test
    return parts


def _decode(
    job: Job, parts: dict[str, Split], preprocessing: Preprocessing, listener: Listener
) -> tuple[dict[str, Examples], list[str]]:
    """All parts as arrays; every unusable image of every part is named in one error."""
    decoded, notes, faults = {}, [], []

    def fitted(part: str, wanted: Preprocessing, doing: str) -> Pixels:
        return decode_once(
            parts[part],
            wanted,
            folder=job.cache,
            spill=_spill(job),
            skip_corrupt=job.skip_corrupt,
            progress=_reports(listener, doing),
        )

    for part in parts:
        augment = job.recipe.augment if part == "train" else "none"
        side = round(preprocessing.size * SIDES.get(augment, 1))
        to_cut = replace(preprocessing, size=side, crop_fraction=1.0)  # the shape of what is tested, and no edge lost
        try:
            pixels = fitted(part, to_cut if augment == "crop" else preprocessing, part)
            larger = fitted(part, to_cut, f"{part}, larger").images if augment == "resize_crop" else None
        except DataError as error:
            faults.append(f"{part}: {error}")
            continue
        decoded[part] = Examples(pixels.images, pixels.labels, larger)
        notes += [f"{part}: {note}" for note in pixels.notes]
        notes += [f"{part}: left out {name}" for name in pixels.dropped]
    if faults:
        raise DataError("\n".join(faults))
    return decoded, notes


def _named(scores: Scores, classes: tuple[str, ...]) -> dict[str, float | None]:
    """Recall by class name; None (not NaN, which JSON lacks) for a class without images."""
    return {
        name: None if value != value else float(value)  # NaN is not itself
        for name, value in zip(classes, scores.per_class, strict=True)
    }
