"""Splits that others have published: VTAB's 800/200 file names, and the lists of FGVC's train, val and test."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from vpt.core.text import lines, number
from vpt.datasets.prepared.records import Listing, Records
from vpt.datasets.task import BenchmarkTask
from vpt.errors import DataError

_PARTS = ("train", "val", "test")


def fgvc_lists(folder: Path) -> dict[str, Path] | None:
    """`train.json`, `val.json` and `test.json` in `folder`; None where one of them is not there."""
    files = {part: folder / f"{part}.json" for part in _PARTS}
    return files if all(file.is_file() for file in files.values()) else None


def by_names(task: BenchmarkTask, cut: Mapping[str, Records], listing: Listing, file: Path) -> dict[str, Records]:
    """train and val as the published name file has them: task -> {"train": 800 names, "val": 200 names}.

    Raises DataError for a file without this task, and names all images that the source lacks.
    """
    every = _json(file)
    if task.names is None or task.names not in every:
        raise DataError(f"{file} tells nothing of {task.name}; leave it out, and the published order is computed")
    wanted = {"train": every[task.names]["train"], "val": every[task.names]["val"]}
    repeated = [name for names in wanted.values() for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DataError(
            f"{file}: names of {task.name} stand for several images, such as {repeated[0]!r}; leave the file out"
        )
    slices = {"train": task.cut.train, "val": task.cut.val}
    found = {part: _find(listing.parts[text.split("[")[0]], wanted[part], file) for part, text in slices.items()}
    return {**found, "test": cut["test"]}


def by_lists(files: Mapping[str, Path], listing: Listing) -> dict[str, Records]:
    """train, val and test as the lists have them: JSON objects, file -> class.

    Raises DataError for files that the source lacks and for classes that are not those of the source.
    """
    everything: Records | None = None
    for records in listing.parts.values():
        everything = records if everything is None else everything.joined(records)
    assert everything is not None
    parts: dict[str, Records] = {}
    classes: dict[str, int] = {}
    for part, file in files.items():
        wanted = _json(file)
        parts[part] = _find(everything, list(wanted), file)
        for label, own in zip(wanted.values(), parts[part].labels, strict=True):
            if classes.setdefault(str(label), int(own)) != own:
                raise DataError(f"{file}: its class {label!r} is two classes of the source; it belongs to other data")
    if len(set(classes.values())) != len(classes):
        raise DataError(f"{', '.join(map(str, files.values()))}: two of their classes are one class of the source")
    return parts


def _find(records: Records, wanted: list[str], file: Path) -> Records:
    """The records of these names, or else of the same last part where only one has it; suffixes do not count."""
    exact = {_plain(name): i for i, name in enumerate(records.names)}
    short: dict[str, list[int]] = {}
    for name, i in exact.items():
        short.setdefault(name.rpartition("/")[2], []).append(i)
    found, missing = [], []
    for name in wanted:
        plain = _plain(name)
        places = [exact[plain]] if plain in exact else short.get(plain.rpartition("/")[2], [])
        if len(places) == 1:
            found.append(places[0])
        else:
            missing.append(name)
    if missing:
        raise DataError(f"{file}: {number(len(missing), 'image')} that the source lacks:{lines(missing)}")
    return records.pick(found)


def _plain(name: str) -> str:
    return str(PurePosixPath(name.lstrip("/")).with_suffix(""))


def _json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise DataError(f"{file} holds no JSON object; give a published list of names")
    return values
