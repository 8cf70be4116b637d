"""Published splits: the 800 and 200 file names of VTAB, and the lists of FGVC."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from functools import reduce
from pathlib import Path, PurePosixPath
from typing import Any

from vpt.core.text import pluralize, refuse
from vpt.datasets.prepared import ImageRecords, SourceData
from vpt.datasets.split_spec import source_split
from vpt.datasets.task import BenchmarkTask
from vpt.errors import DataError


def find_fgvc_lists(folder: Path | None) -> dict[str, Path]:
    """Return the paths of `train.json`, `val.json` and `test.json`.

    Args:
        folder: The folder, or None.

    Returns:
        Split to its list; empty if one is missing.
    """
    files = {name: folder / f"{name}.json" for name in ("train", "val", "test")} if folder else {}
    return files if all(file.is_file() for file in files.values()) else {}


def split_by_names(
    task: BenchmarkTask, default_splits: Mapping[str, ImageRecords], source_data: SourceData, file: Path
) -> dict[str, ImageRecords]:
    """Return the splits of VTAB according to the published file of names.

    Args:
        task: The task.
        default_splits: The splits without the file, for test.
        source_data: Images of the source.
        file: JSON file, task to {"train": 800 names, "val": 200 names}.

    Returns:
        Split ("train", "val", "test") to its images.

    Raises:
        DataError: The file has no entry for the task, or a name is ambiguous.
    """
    wanted = _read_json(file).get(task.published_names_key or "")
    if wanted is None:
        raise DataError(f"{file} has no entry for {task.name}; omit the file to compute the published order")
    splits = dict(default_splits)
    for split_name in ("train", "val"):
        names = wanted[split_name]
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated:
            raise DataError(
                f"{file}: names of {task.name} refer to several images, such as {repeated[0]!r}; omit the file"
            )
        records = source_data.splits[source_split(task.split_spec.slices[split_name])]
        splits[split_name] = _select_by_name(records, names, file)
    return splits


def split_by_lists(files: Mapping[str, Path], source_data: SourceData) -> dict[str, ImageRecords]:
    """Return the splits of FGVC according to published lists.

    Args:
        files: Split to its list, a JSON object of file to class.
        source_data: Images of the source.

    Returns:
        Split ("train", "val", "test") to its images.

    Raises:
        DataError: The classes of the lists differ from those of the source.
    """
    all_records = reduce(ImageRecords.concat, source_data.splits.values())
    splits: dict[str, ImageRecords] = {}
    classes: dict[str, int] = {}
    for split_name, file in files.items():
        wanted = _read_json(file)
        splits[split_name] = _select_by_name(all_records, list(wanted), file)
        for label, class_index in zip(wanted.values(), splits[split_name].labels, strict=True):
            if classes.setdefault(str(label), int(class_index)) != class_index:
                raise DataError(
                    f"{file}: its class {label!r} covers two classes of the source; use the lists of this dataset"
                )
    if len(set(classes.values())) != len(classes):
        raise DataError(
            f"{', '.join(map(str, files.values()))}: two of their classes are one class of the source; use the lists "
            "of this dataset"
        )
    return splits


def _select_by_name(records: ImageRecords, wanted: list[str], file: Path) -> ImageRecords:
    """Return the images with these paths, or with the same unique file name. Suffixes are ignored."""
    by_path = {_without_suffix(name): i for i, name in enumerate(records.names)}
    by_basename = defaultdict(list)
    for path, i in by_path.items():
        by_basename[path.rpartition("/")[2]].append(i)
    found, missing = [], []
    for name in wanted:
        path = _without_suffix(name)
        candidates = [by_path[path]] if path in by_path else by_basename[path.rpartition("/")[2]]
        if len(candidates) == 1:
            found.append(candidates[0])
        else:
            missing.append(name)
    refuse(missing, f"{file}: {pluralize(len(missing), 'image')} missing from the source")
    return records.select(found)


def _without_suffix(name: str) -> str:
    return str(PurePosixPath(name.lstrip("/")).with_suffix(""))


def _read_json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise DataError(f"{file} is not a JSON object; give a published list of names")
    return values
