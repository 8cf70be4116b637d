"""The main job: a folder of images and a frozen backbone in, one small tuned file out.

Everything a job leaves besides the tuned file lies in its run folder (`pets.safetensors` -> `pets.run/`):
job.json, checkpoint.safetensors, metrics.jsonl, result.json, curve.png, confusion.png.
The same job again goes on where it stopped; a finished one is only read.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from vpt import artifact, machine, pictures
from vpt.backbone import load_backbone
from vpt.data.dataset import Dataset, Split
from vpt.data.kept import decode_once
from vpt.data.read import read
from vpt.data.split import subset
from vpt.data.transforms import Preprocessing
from vpt.errors import DataError, SpecError, TrainingError
from vpt.files import write_atomic
from vpt.job import Job, Listener, Result
from vpt.model import attach
from vpt.training import (
    Epoch,
    Examples,
    Feed,
    Recipe,
    Scores,
    Watcher,
    distributed,
    logits_of,
    prototypes,
    score,
    train,
    what_must_run,
)


@dataclass
class _Recorder(Watcher):
    """Passes on what it hears, and keeps metrics.jsonl in step with the checkpoint."""

    listener: Listener
    path: Path
    history: list[Epoch] = field(default_factory=list)

    def begin(self, recipe: Recipe, steps_per_epoch: int, done: Sequence[Epoch]) -> None:
        self.history = list(done)  # a kill between a checkpoint and its line may have left the line out
        self.listener.begin(recipe, steps_per_epoch, done)

    def note(self, text: str) -> None:
        self.listener.note(text)

    def step(self, epoch: int, step: int, loss: float, step_size: float) -> None:
        self.listener.step(epoch, step, loss, step_size)

    def epoch(self, epoch: Epoch) -> None:
        self.history.append(epoch)
        if distributed.rank() == 0:
            lines = (json.dumps(asdict(record)) + "\n" for record in self.history)
            write_atomic(self.path, "".join(lines).encode())
        self.listener.epoch(epoch)


def tune(job: Job, listener: Listener | None = None, *, overwrite: bool = False, draw: bool = True) -> Result:
    """Do a job, or go on with it, or read what came of it.

    overwrite: begin anew, whatever is in the run folder. draw: leave curve.png and confusion.png there.
    Raises DataError naming every unusable image before training; TrainingError when the loss diverges (a record of
    the failure stays in result.json); SpecError when the run folder belongs to a job with other settings.
    """
    listener = listener or Listener()
    machine.keep_freed_memory()
    distributed.start()
    first = distributed.rank() == 0
    if overwrite and first:
        shutil.rmtree(job.folder, ignore_errors=True)
        job.out.unlink(missing_ok=True)
    result_path = job.folder / "result.json"
    finished = _finished(job, result_path)
    if finished is not None:
        listener.note(f"{job.out} was made by this very job before; --overwrite does it again")
        return finished

    # Images that do not fit into memory lie here while the job runs; a killed one has left its own behind.
    shutil.rmtree(job.folder / "pixels", ignore_errors=True)
    backbone = load_backbone(job.backbone, weights=job.weights, image_size=job.image_size)
    backbone = replace(backbone, preprocessing=_preprocessing(job, backbone.preprocessing))
    data = read(
        job.data,
        seed=job.recipe.seed if job.split_seed is None else job.split_seed,
        val_fraction=job.val_fraction,
        test_fraction=job.test_fraction,
        test=job.test,
    )
    parts = _parts(job, data)
    decoded, remarks = _decode(job, parts, backbone.preprocessing, listener)
    notes = [*backbone.notes, *data.notes, *remarks]
    if data.ignored:
        notes.append(f"{len(data.ignored)} entries of the folder were not used: {', '.join(data.ignored[:5])}")
    for note in notes:
        listener.note(note)
    if first:
        _claim(job, decoded)

    device = distributed.local_device()
    torch.manual_seed(job.recipe.seed)
    model = attach(backbone, job.method, len(data.classes), classes=data.classes).to(device)
    if model.method.needs_prototypes:
        model.begin_at(prototypes(model, decoded["train"], cache=job.cache))
    try:
        history = train(
            model,
            decoded["train"],
            job.recipe,
            validation=decoded.get("val"),
            checkpoint=job.folder / "checkpoint.safetensors",
            cache=job.cache,
            watcher=_Recorder(listener, job.folder / "metrics.jsonl"),
        )
    except TrainingError as error:
        if first:
            failure = {
                "status": "failed",
                "error": str(error),
                "job": job.as_dict(),
                "machine": machine.describe(),
            }
            write_atomic(result_path, json.dumps(failure, indent=1).encode())
        raise

    scored_on = next(part for part in ("test", "val", "train") if part in decoded)
    feed = Feed(decoded[scored_on], backbone.preprocessing, device)
    bf16 = job.recipe.autocast_to_bf16(device)
    network = what_must_run(model, job.recipe, feed, cache=job.cache)
    logits = logits_of(network, feed, bf16=bf16, on_batch=_reports(listener, f"scoring {scored_on}"))
    scores = score(logits, feed.labels)
    figures = {f"{scored_on}_top1": scores.top1, f"{scored_on}_mean_per_class": scores.mean_per_class}
    if first:
        artifact.save(model, job.out, scores=figures, storage=job.storage)
    counts = model.counts()
    result = Result(
        data=data.name,
        method=str(model.method),
        backbone=backbone.name,
        scored_on=scored_on,
        top1=scores.top1,
        mean_per_class=scores.mean_per_class,
        per_class=_named(scores, data.classes),
        images={part: len(examples) for part, examples in decoded.items()},
        total_parameters=counts.total,
        trained_parameters=counts.trained,
        file=str(job.out),
        file_bytes=job.out.stat().st_size if first else 0,
        seconds=sum(epoch.seconds for epoch in history),
        peak_memory_bytes=machine.peak_memory(device),
        notes=notes,
        history=[asdict(epoch) for epoch in history],
        job=job.as_dict(),
        machine=machine.describe(),
    )
    if first and draw:
        pictures.curve(job.folder / "curve.png", history, f"{result.method} on {data.name}")
        pictures.confusion(job.folder / "confusion.png", scores.confusion, data.classes, f"{data.name} {scored_on}")
    if first:
        write_atomic(result_path, json.dumps(asdict(result), indent=1).encode())
        shutil.rmtree(job.folder / "pixels", ignore_errors=True)
    listener.finished(result)
    return result


def _preprocessing(job: Job, own: Preprocessing) -> Preprocessing:
    return replace(own, resize=job.resize, interpolation=job.interpolation or own.interpolation)


def _reports(listener: Listener, part: str) -> Callable[[int, int], None]:
    """A callback (done, total) that reports as `part`."""
    return lambda done, total: listener.decoding(part, done, total)


def _finished(job: Job, path: Path) -> Result | None:
    """The result of this very job, if it is done. Raises SpecError when the folder belongs to another."""
    claimed = job.folder / "job.json"
    if claimed.exists():
        before, now = json.loads(claimed.read_text())["job"], job.as_dict()
        # A run of an earlier version lacks the options that came since; it was done as their defaults say.
        defaults = {option.name: option.default for option in fields(Job) if option.default is not MISSING}
        flat_before, flat_now = _flat({**defaults, **before}), _flat(now)
        differing = [key for key in flat_now if flat_now[key] != flat_before.get(key)]
        if differing:
            raise SpecError(
                f"{job.folder} holds a run with other settings ("
                + ", ".join(f"{key}: {flat_before.get(key)} then, {flat_now[key]} now" for key in differing)
                + "); give another --out, or --overwrite to begin anew"
            )
    if not path.exists() or not job.out.exists():
        return None
    values = json.loads(path.read_text())
    return Result(**values) if values["status"] == "done" else None


def _claim(job: Job, decoded: dict[str, Examples]) -> None:
    """Write job.json; refuse to go on with a run whose images have changed since."""
    digest = hashlib.sha256()
    for examples in decoded.values():
        digest.update(examples.pixels.data)
        digest.update(examples.labels.data)
    path, images = job.folder / "job.json", digest.hexdigest()
    if path.exists() and json.loads(path.read_text())["images"] != images:
        raise DataError(
            f"the images of {job.data} have changed since {job.folder} was begun; give another --out, or --overwrite"
        )
    write_atomic(path, json.dumps({"job": job.as_dict(), "images": images, "begun": time.time()}, indent=1).encode())


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
    for part, split in parts.items():
        wanted = preprocessing
        if part == "train" and job.recipe.augment == "crop":
            wanted = replace(preprocessing, size=round(preprocessing.size * 8 / 7), resize="squash")
        try:
            pixels = decode_once(
                split,
                wanted,
                folder=job.cache,
                spill=job.folder / "pixels",
                skip_corrupt=job.skip_corrupt,
                progress=_reports(listener, part),
            )
        except DataError as error:
            faults.append(f"{part}: {error}")
            continue
        decoded[part] = Examples(pixels.images, pixels.labels)
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


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat
