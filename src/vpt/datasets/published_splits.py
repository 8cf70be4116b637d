"""Splits that others have published: VTAB's 800/200 file names, and the lists of FGVC's train, val and test."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from vpt.core.text import bullets, pluralize
from vpt.datasets.prepared.records import ImageRecords, SourceData
from vpt.datasets.task import BenchmarkTask
from vpt.errors import DataError

_SPLIT_NAMES = ("train", "val", "test")


def find_fgvc_lists(folder: Path) -> dict[str, Path] | None:
    """`train.json`, `val.json` and `test.json` in `folder`; None where one of them is not there."""
    files = {split_name: folder / f"{split_name}.json" for split_name in _SPLIT_NAMES}
    return files if all(file.is_file() for file in files.values()) else None


def split_by_names(
    task: BenchmarkTask, default_splits: Mapping[str, ImageRecords], source_data: SourceData, file: Path
) -> dict[str, ImageRecords]:
    """train and val as the published name file has them: task -> {"train": 800 names, "val": 200 names}.

    Raises DataError for a file without this task, and names all images that the source lacks.
    """
    names_by_task = _read_json(file)
    if task.published_names_key is None or task.published_names_key not in names_by_task:
        raise DataError(f"{file} tells nothing of {task.name}; leave it out, and the published order is computed")
    wanted = {
        "train": names_by_task[task.published_names_key]["train"],
        "val": names_by_task[task.published_names_key]["val"],
    }
    repeated = [name for names in wanted.values() for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DataError(
            f"{file}: names of {task.name} stand for several images, such as {repeated[0]!r}; leave the file out"
        )
    slices = {"train": task.split_spec.train, "val": task.split_spec.val}
    found = {
        split_name: _select_by_name(source_data.splits[text.split("[")[0]], wanted[split_name], file)
        for split_name, text in slices.items()
    }
    return {**found, "test": default_splits["test"]}


def split_by_lists(files: Mapping[str, Path], source_data: SourceData) -> dict[str, ImageRecords]:
    """train, val and test as the lists have them: JSON objects, file -> class.

    Raises DataError for files that the source lacks and for classes that are not those of the source.
    """
    all_records: ImageRecords | None = None
    for records in source_data.splits.values():
        all_records = records if all_records is None else all_records.concat(records)
    assert all_records is not None
    splits: dict[str, ImageRecords] = {}
    classes: dict[str, int] = {}
    for split_name, file in files.items():
        wanted = _read_json(file)
        splits[split_name] = _select_by_name(all_records, list(wanted), file)
        for label, class_index in zip(wanted.values(), splits[split_name].labels, strict=True):
            if classes.setdefault(str(label), int(class_index)) != class_index:
                raise DataError(f"{file}: its class {label!r} is two classes of the source; it belongs to other data")
    if len(set(classes.values())) != len(classes):
        raise DataError(f"{', '.join(map(str, files.values()))}: two of their classes are one class of the source")
    return splits


def _select_by_name(records: ImageRecords, wanted: list[str], file: Path) -> ImageRecords:
    """The records of these names, or else of the same file name where only one has it; suffixes do not count."""
    by_path = {_without_suffix(name): i for i, name in enumerate(records.names)}
    by_basename: dict[str, list[int]] = {}
    for name, i in by_path.items():
        by_basename.setdefault(name.rpartition("/")[2], []).append(i)
    found, missing = [], []
    for name in wanted:
        path_stem = _without_suffix(name)
        candidates = [by_path[path_stem]] if path_stem in by_path else by_basename.get(path_stem.rpartition("/")[2], [])
        if len(candidates) == 1:
            found.append(candidates[0])
        else:
            missing.append(name)
    if missing:
        raise DataError(f"{file}: {pluralize(len(missing), 'image')} that the source lacks:{bullets(missing)}")
    return records.select(found)


def _without_suffix(name: str) -> str:
    return str(PurePosixPath(name.lstrip("/")).with_suffix(""))


def _read_json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise DataError(f"{file} holds no JSON object; give a published list of names")
    return values
