"""The main job: a folder of images and a frozen backbone in, one small tuned file out.

Everything a job leaves besides the tuned file lies in its run folder (`pets.safetensors` -> `pets.run/`):
job.json, checkpoint.safetensors, metrics.jsonl, result.json, curve.png, confusion.png.
The same job again goes on where it stopped; a finished one is only read.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace

import torch

from vpt import artifact, machine, pictures
from vpt.backbone import load_backbone
from vpt.data.dataset import Dataset, Split
from vpt.data.kept import decode_once
from vpt.data.read import read
from vpt.data.split import subset
from vpt.data.transforms import Preprocessing
from vpt.errors import DataError, TrainingError
from vpt.files import write_atomic
from vpt.job import Job, Listener, Result
from vpt.model import attach
from vpt.run_folder import Recorder, claim, finished_run, record_failure
from vpt.training import (
    Examples,
    Feed,
    Scores,
    distributed,
    logits_of,
    prototypes,
    score,
    train,
    what_must_run,
)


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
    if overwrite:
        distributed.add_number(0.0)  # the others wait, or they would find the old run finished
    result_path = job.folder / "result.json"
    finished = finished_run(job, Result)
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
        claim(job, _digest(decoded))

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
            watcher=Recorder(listener, job.folder / "metrics.jsonl"),
        )
    except TrainingError as error:
        if first:
            record_failure(job, error)
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
    listener.finished(figures)
    return result


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
