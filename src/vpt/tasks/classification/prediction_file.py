"""Predictions of any number of images, streamed to a table.

Finished rows are appended to a journal beside the table, `predictions.csv.partial`, so that an interrupted call goes on
where it was. The table itself appears at the end, whole.
"""

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from vpt.backbones.backbone import digest_tensors
from vpt.core.damage import damage_named
from vpt.core.io import describe_write_error
from vpt.core.lock import lock_output
from vpt.core.prediction import NONE_OF_THESE
from vpt.core.table_file import check_table_path, write_table
from vpt.data.dataset import Split
from vpt.data.decoding.chunks import decode_chunk
from vpt.data.folders.walk import stamp_files
from vpt.errors import DataError, SpecError, StorageError
from vpt.model.tuned_model import TunedModel
from vpt.tasks.classification.labels import label_task
from vpt.tasks.classification.rejection import check_rejection
from vpt.training import Callback, DeviceDataset, Examples, predict_logits

_CHUNK = 256  # images in memory at once


@dataclass(frozen=True)
class PredictionFile:
    """A table of predictions.

    Attributes:
        file: The table.
        images: Number of its rows.
        resumed: Number of rows that an interrupted call had left.
        dropped: Number of images that were left out.
    """

    file: str
    images: int
    resumed: int
    dropped: int


@dataclass(frozen=True)
class RowOptions:
    """Options of the rows of a table, as for `predict_to_file`."""

    probabilities: bool = False
    min_confidence: float = 0.0
    skip_corrupt: bool = False


Rows = list[dict[str, Any]]
# (model, chunks of images, options) -> the rows of each chunk, in order, and notes about its images.
ClassifyChunks = Callable[[TunedModel, Iterable[Sequence[Path]], RowOptions], Iterator[tuple[Rows, list[str]]]]


def classify_here(
    model: TunedModel, chunks: Iterable[Sequence[Path]], options: RowOptions
) -> Iterator[tuple[Rows, list[str]]]:
    """Classify one chunk after the other in this process.

    Args:
        model: The model.
        chunks: The images.
        options: Options of the rows.

    Yields:
        The rows of a chunk, and notes.
    """
    for chunk in chunks:
        yield classify_chunk(model, chunk, options)


def predict_to_file(
    model: TunedModel,
    images: Sequence[Path],
    out: Path,
    callback: Callback,
    *,
    probabilities: bool = False,
    min_confidence: float | None = None,
    skip_corrupt: bool = False,
    overwrite: bool = False,
    classify: ClassifyChunks = classify_here,
) -> PredictionFile:
    """Classify images and write a row for each: path, label, probability; several labels joined by |; or a number.

    An interrupted call is resumed by the same call. Memory holds the paths and a few hundred images.

    Args:
        model: The model.
        images: The images.
        out: The table, .csv, .jsonl or .parquet.
        callback: Receiver of progress and of notes about images.
        probabilities: True adds a column "p_CLASS" for each class. Default: False.
        min_confidence: Least probability of the most likely class; under it the label is "none of these". Default: 0.
        skip_corrupt: True leaves unreadable images out. Default: False.
        overwrite: True replaces a table, and begins anew. Default: False.
        classify: Classifies chunks of images, here or elsewhere. Default: in this process.

    Returns:
        The table.

    Raises:
        SpecError: The table exists, or its suffix is unknown.
        DataError: Images cannot be used, or they are not those of the interrupted call, or have changed since.
    """
    model.require_classifier("vpt.predict_to_file")
    check_rejection(model.label_kind, min_confidence)
    if probabilities and model.label_kind.name == "regression":
        raise SpecError("the model predicts a number, which has no probabilities; leave them out")
    check_table_path(out)
    with lock_output(out):
        options = RowOptions(probabilities, min_confidence or 0.0, skip_corrupt)
        return _predict(model, images, out, callback, options, overwrite, classify)


def _predict(
    model: TunedModel,
    images: Sequence[Path],
    out: Path,
    callback: Callback,
    options: RowOptions,
    overwrite: bool,
    classify: ClassifyChunks,
) -> PredictionFile:
    journal = _Journal(out.with_name(f"{out.name}.partial"))
    if overwrite:
        journal.path.unlink(missing_ok=True)
    elif out.exists():
        if journal.path.exists() and journal.path.stat().st_mtime <= out.stat().st_mtime:
            journal.path.unlink()  # a kill at the very end has left it
        raise SpecError(f"{out} already exists; choose another file, or replace it with --overwrite")
    done = resumed = journal.open(_describe(model, options), images)
    starts = range(resumed - resumed % _CHUNK, len(images), _CHUNK)
    stamps: deque[list[str]] = deque()  # of the chunks at work, before their images are read, and by this machine

    def stamped_chunks() -> Iterator[Sequence[Path]]:
        for start in starts if resumed < len(images) else ():
            chunk = images[max(start, resumed) : start + _CHUNK]
            stamps.append([stamp_files(image, [image]) for image in chunk])
            yield chunk

    for rows, notes in classify(model, stamped_chunks(), options):
        for note in notes:
            callback.on_note(note)
        journal.append(zip(stamps.popleft(), rows, strict=True))
        done += len(rows)
        callback.on_data_progress("images", done, len(images))
    count = sum(1 for _, row in journal.rows() if len(row) > 1)
    if not count:
        raise DataError(f"none of {len(images)} images can be used, so {out} would be empty; give other images")
    predicted = (row for _, row in journal.rows() if len(row) > 1)  # others have the path alone
    write_table(out, _batches(predicted))
    journal.path.unlink()
    return PredictionFile(str(out), count, resumed, len(images) - count)


def _batches(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    rows = iter(rows)
    while batch := list(islice(rows, _CHUNK)):
        yield batch


def _describe(model: TunedModel, options: RowOptions) -> dict[str, Any]:
    """Return what rows of one table have in common."""
    digest = digest_tensors(model.inference_state_dict().items())
    labels = {"labels": str(model.label_kind), "classes": model.classes and list(model.classes)}
    asked = {"probabilities": options.probabilities, "min_confidence": options.min_confidence or None}
    inputs = {"backbone": model.backbone.name, "preprocessing": str(model.backbone.preprocessing)}
    return {**inputs, "tensors": digest, **labels, **asked}


def classify_chunk(model: TunedModel, images: Sequence[Path], options: RowOptions) -> tuple[Rows, list[str]]:
    """Classify a few images.

    Args:
        model: The model.
        images: The images.
        options: Options of the rows.

    Returns:
        A row for each image, without a label for those that are left out, and notes about them.

    Raises:
        DataError: Images cannot be used.
    """
    split = Split(tuple(images), np.zeros(len(images), dtype=np.int64))
    rows: Rows = [{"path": str(image)} for image in images]
    pixels, notes = decode_chunk(split, model.backbone.preprocessing, skip_corrupt=options.skip_corrupt)
    if pixels is None:
        return rows, notes
    logits = predict_logits(model, DeviceDataset.for_model(model, Examples(pixels.images, pixels.labels)))
    labels, values = label_task(model.label_kind), model.label_kind.activate(logits)
    names = model.classes or tuple(map(str, range(model.num_classes)))
    for index, row in zip(pixels.indices, values.numpy(), strict=True):
        shortest = [float(str(value)) for value in row]  # as few digits as tell float32 numbers apart
        rows[index] |= labels.columns(shortest, names)
        # No kind of labels but single ones has a least confidence.
        if options.min_confidence and float(row.max()) < options.min_confidence:
            rows[index]["label"] = NONE_OF_THESE
        if options.probabilities:
            rows[index] |= {f"p_{name}": value for name, value in zip(names, shortest, strict=True)}
    return rows, notes


class _Journal:
    """Rows in the order of the images, each with a stamp of its image, as lines of JSON behind one about the call."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, about: dict[str, Any], images: Sequence[Path]) -> int:
        """Create the journal, or check it and cut off a line that a kill left unfinished. Return the number of rows."""
        lines = self._complete_lines() if self.path.exists() else 0
        if lines == 0:
            self._write([about], "wb")
            return 0
        with (
            damage_named(self.path, "unfinished table", "begin anew with --overwrite", DataError),
            self.path.open(encoding="utf-8") as file,
        ):
            if json.loads(file.readline()) != about:
                raise SpecError(
                    f"{self.path} belongs to an interrupted call with another model or other options; choose another "
                    "file, or begin anew with --overwrite"
                )
        for number, (stamp, row) in enumerate(self.rows()):
            if number >= len(images) or row["path"] != str(images[number]):
                raise DataError(
                    f"{self.path} has rows of other images, such as {row['path']}; images were added or removed since "
                    "the call was interrupted, so begin anew with --overwrite"
                )
            if stamp != stamp_files(images[number], [images[number]]):
                raise DataError(
                    f"{images[number]} has changed since the call was interrupted, and {self.path} has the prediction "
                    "for the old image; begin anew with --overwrite"
                )
        return lines - 1

    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        with (
            damage_named(self.path, "unfinished table", "begin anew with --overwrite", DataError),
            self.path.open(encoding="utf-8") as file,
        ):
            next(file)
            for line in file:
                stamp, row = json.loads(line)
                row["path"]  # raises where there is none
                yield stamp, row

    def append(self, rows: Iterable[tuple[str, dict[str, Any]]]) -> None:
        self._write(rows, "ab")

    def _complete_lines(self) -> int:
        count, end = 0, 0
        with self.path.open("r+b") as file:
            for line in file:
                if line.endswith(b"\n"):
                    count, end = count + 1, end + len(line)
            file.truncate(end)
        return count

    def _write(self, values: Iterable[Any], mode: str) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open(mode) as file:
                file.write("".join(json.dumps(value) + "\n" for value in values).encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StorageError(describe_write_error(self.path, error)) from error
