"""Predictions of any number of images, streamed to a table.

Finished rows are appended to a journal beside the table, `answers.csv.partial`, so that an interrupted call goes on
where it was. The table itself appears at the end, whole.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from vpt.backbones.backbone import digest_tensors
from vpt.core.io import describe_write_error
from vpt.core.table_file import check_table_path, write_table
from vpt.data.dataset import Split
from vpt.data.images import decode
from vpt.errors import DataError, SpecError, StorageError
from vpt.model.tuned_model import TunedModel
from vpt.tasks.classification.labels import label_task
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


def predict_to_file(
    model: TunedModel,
    images: Sequence[Path],
    out: Path,
    callback: Callback,
    *,
    probabilities: bool = False,
    skip_corrupt: bool = False,
    overwrite: bool = False,
) -> PredictionFile:
    """Classify images and write a row for each: path, label, probability; several labels joined by |; or a number.

    An interrupted call is resumed by the same call. Memory holds the paths and a few hundred images.

    Args:
        model: The model.
        images: The images.
        out: The table, .csv, .jsonl or .parquet.
        callback: Receiver of progress and of notes about images.
        probabilities: True adds a column "p_CLASS" for each class. Default: False.
        skip_corrupt: True leaves unreadable images out. Default: False.
        overwrite: True replaces a table, and begins anew. Default: False.

    Returns:
        The table.

    Raises:
        SpecError: The table exists, or its suffix is unknown.
        DataError: Images cannot be used, or they are not those of the interrupted call.
    """
    model.require_classifier("vpt.predict_to_file")
    if probabilities and model.label_kind.name == "regression":
        raise SpecError("the model predicts a number, which has no probabilities; leave them out")
    check_table_path(out)
    journal = _Journal(out.with_name(f"{out.name}.partial"))
    if overwrite:
        journal.path.unlink(missing_ok=True)
    elif out.exists():
        raise SpecError(f"{out} already exists; choose another file, or replace it with --overwrite")
    resumed = journal.open(_describe(model, probabilities), images)
    for start in range(resumed - resumed % _CHUNK, len(images), _CHUNK):
        chunk = images[max(start, resumed) : start + _CHUNK]
        if chunk:
            journal.append(_predict_rows(model, chunk, callback, probabilities, skip_corrupt))
        callback.on_data_progress("images", min(start + _CHUNK, len(images)), len(images))
    count = sum(1 for row in journal.rows() if len(row) > 1)
    if not count:
        raise DataError(f"none of {len(images)} images can be used, so {out} would be empty; give other images")
    answered = (row for row in journal.rows() if len(row) > 1)  # others have the path alone
    write_table(out, _batches(answered))
    journal.path.unlink()
    return PredictionFile(str(out), count, resumed, len(images) - count)


def _batches(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    rows = iter(rows)
    while batch := list(islice(rows, _CHUNK)):
        yield batch


def _describe(model: TunedModel, probabilities: bool) -> dict[str, Any]:
    """Return what rows of one table have in common."""
    digest = digest_tensors(model.inference_state_dict().items())
    return {"backbone": model.backbone.name, "tensors": digest, "probabilities": probabilities}


def _predict_rows(
    model: TunedModel, images: Sequence[Path], callback: Callback, probabilities: bool, skip_corrupt: bool
) -> list[dict[str, Any]]:
    """Return a row for each image, without a label for those that are left out."""
    split = Split(tuple(images), np.zeros(len(images), dtype=np.int64))
    rows: list[dict[str, Any]] = [{"path": str(image)} for image in images]
    try:
        pixels = decode(split, model.backbone.preprocessing, skip_corrupt=skip_corrupt)
    except DataError as error:
        if not skip_corrupt:
            raise
        callback.on_note(str(error))  # of all images of the chunk
        return rows
    for note in (*pixels.notes, *(f"left out {name}" for name in pixels.dropped)):
        callback.on_note(note)
    logits = predict_logits(model, DeviceDataset.for_model(model, Examples(pixels.images, pixels.labels)))
    labels, values = label_task(model.label_kind), model.label_kind.activate(logits)
    names = model.classes or tuple(map(str, range(model.num_classes)))
    for index, row in zip(pixels.indices, values.numpy(), strict=True):
        shortest = [float(str(value)) for value in row]  # as few digits as tell float32 numbers apart
        rows[index] |= labels.columns(shortest, names)
        if probabilities:
            rows[index] |= {f"p_{name}": value for name, value in zip(names, shortest, strict=True)}
    return rows


class _Journal:
    """Rows in the order of the images, as lines of JSON behind one line about the call."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, about: dict[str, Any], images: Sequence[Path]) -> int:
        """Create the journal, or check it and cut off a line that a kill left unfinished. Return the number of rows."""
        lines = self._complete_lines() if self.path.exists() else 0
        if lines == 0:
            self._write([about], "wb")
            return 0
        with self.path.open(encoding="utf-8") as file:
            if json.loads(file.readline()) != about:
                raise SpecError(
                    f"{self.path} belongs to an interrupted call with another model or other options; choose another "
                    "file, or begin anew with --overwrite"
                )
        for number, row in enumerate(self.rows()):
            if number >= len(images) or row["path"] != str(images[number]):
                raise DataError(
                    f"{self.path} has rows of other images, such as {row['path']}; images were added or removed since "
                    "the call was interrupted, so begin anew with --overwrite"
                )
        return lines - 1

    def rows(self) -> Iterator[dict[str, Any]]:
        with self.path.open(encoding="utf-8") as file:
            next(file)
            for line in file:
                yield json.loads(line)

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        self._write(rows, "ab")

    def _complete_lines(self) -> int:
        count, end = 0, 0
        with self.path.open("r+b") as file:
            for line in file:
                if line.endswith(b"\n"):
                    count, end = count + 1, end + len(line)
            file.truncate(end)
        return count

    def _write(self, rows: Sequence[dict[str, Any]], mode: str) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open(mode) as file:
                file.write("".join(json.dumps(row) + "\n" for row in rows).encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StorageError(describe_write_error(self.path, error)) from error
