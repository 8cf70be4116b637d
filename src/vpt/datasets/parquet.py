"""Parquet files as data hubs keep them: a row an image with its label, `data/train-00000-of-00002.parquet`.

They are written out once as a folder with list files, the bytes of every image as they are. Needs the extra `parquet`.
"""

from __future__ import annotations

import io
import json
import re
from collections import defaultdict
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vpt.core.optional import need
from vpt.core.text import lines, listed, number
from vpt.data.image_files import formats, suffix_of
from vpt.data.manifest import is_finished, read_manifest
from vpt.datasets.prepared.progress import Progress, quiet
from vpt.datasets.prepared.records import Records
from vpt.datasets.prepared.writer import write_folder
from vpt.errors import DataError, nearest

HUB = "hub:"  # hub:OWNER/NAME or hub:OWNER/NAME@REVISION
_CONVERTED = "refs/convert/parquet"  # the branch where the hub keeps its own conversion of other formats
_PARTS = {"train": "train", "validation": "val", "valid": "val", "val": "val", "dev": "val", "test": "test"}
_WORD = re.compile(r"[A-Za-z]+")


def unpack_parquet(
    source: Path | str, folder: Path, *, image: str | None = None, label: str | None = None, progress: Progress = quiet
) -> dict[str, Any]:
    """Make the data folder `folder` and return what it says of itself (prepared.json).

    source: a Parquet file, a folder of them, or "hub:OWNER/NAME", with "@REVISION" where it should not be the newest.
    image, label: the columns, where the files do not tell which they are.
    Part and order are those of the file names; rows without a label (-1) are left out and noted. Interrupted or
    killed, the same call goes on. Raises DataError where the source is not there or its columns do not fit.
    """
    if not is_finished(folder):
        facts: dict[str, Any] = {"source": str(source), "asked": str(source), "notes": []}
        root = Path(source)
        if str(source).startswith(HUB):
            root, facts["source"], facts["terms"] = _download(str(source).removeprefix(HUB))
        tables = {part: _Table(files) for part, files in _files(root).items()}
        columns = _columns(next(iter(tables.values())), image, label)
        classes, numbers = _numbers(tables, columns)
        unused = [name for name in columns.classes if name not in classes]
        if unused:
            facts["notes"].append(f"{number(len(unused), 'class')} without any image left out: {listed(unused)}")
        parts = {}
        for part, table in tables.items():
            parts[part], missing = _records(part, table, columns, numbers, progress)
            if missing:
                facts["notes"].append(f"{number(missing, 'image')} of {part} have no label and were left out")
        parts = {part: records for part, records in parts.items() if len(records)}
        if "train" not in parts:
            raise DataError(f"{source} holds no labelled image of train; its files are for {listed(list(tables))}")
        lists = {f"{part}.txt": (part,) for part in parts}
        write_folder(folder, parts, classes, lists, {"label": f"column {columns.label}", **facts}, progress)
    done = read_manifest(folder)
    assert done is not None
    if str(source) not in (done.get("asked"), done["source"]):
        raise DataError(f"{folder} was made from {done['source']}, not from {source}; choose another --out")
    return done


def _download(name: str) -> tuple[Path, str, str]:
    """The folder of a hub's Parquet files, which revision they are, and the licence it states."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repo, _, asked = name.partition("@")
    try:
        for revision in [asked] if asked else [None, _CONVERTED]:
            about = huggingface_hub.dataset_info(repo, revision=revision)
            if any(file.rfilename.endswith(".parquet") for file in about.siblings or ()):
                break
        else:
            raise DataError(f"{repo} on the hub holds no Parquet files; download it, and give its folder of images")
        place = huggingface_hub.snapshot_download(
            repo, repo_type="dataset", revision=about.sha, allow_patterns=["*.parquet"]
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise DataError(f"{HUB}{name} cannot be downloaded: {error}; check the name and the network") from error
    stated = about.card_data.get("license") if about.card_data else None
    return Path(place), f"{HUB}{repo}@{about.sha}", f"as its page states: {stated}" if stated else "none stated"


def _files(root: Path) -> dict[str, list[Path]]:
    """The files of each part, in order."""
    found = [root] if root.is_file() else sorted(root.rglob("*.parquet")) if root.is_dir() else []
    if not found:
        raise DataError(f"{root} is no Parquet file and holds none; give a .parquet file or the folder of them")
    named: defaultdict[str | None, list[Path]] = defaultdict(list)
    for file in found:
        named[_part(file, root)].append(file)
    unknown = named.pop(None, [])
    if not named:
        named["train"], unknown = unknown, []
    if unknown:
        raise DataError(f"{root}: not clear whether train, val or test:{lines([file.name for file in unknown])}")
    for part, files in named.items():
        folders = sorted({str(file.parent) for file in files})
        if len(folders) > 1:
            raise DataError(f"{root} holds {part} in {listed(folders)}; give one of these folders")
    return {part: named[part] for part in ("train", "val", "test") if part in named}


def _part(file: Path, root: Path) -> str | None:
    """By a word of the name, `train-00000-of-00002.parquet`; else by the folder, `test/0.parquet`."""
    folders = () if file == root else file.relative_to(root).parts[:-1]
    words = [word.casefold() for text in (file.stem, *reversed(folders)) for word in _WORD.findall(text)]
    return next((_PARTS[word] for word in words if word in _PARTS), None)


class _Table:
    """The rows of some files, read by groups as they come: images of a whole part need not fit into memory."""

    def __init__(self, files: list[Path]) -> None:
        parquet = need("pyarrow.parquet", "parquet", "a Parquet file")
        arrow = need("pyarrow", "parquet", "a Parquet file")
        try:
            self.files = [parquet.ParquetFile(file) for file in files]
        except (arrow.ArrowInvalid, OSError) as error:
            raise DataError(f"{listed([str(file) for file in files])} cannot be read: {error}; get it again") from error
        self.schema = self.files[0].schema_arrow
        groups = [(file, i) for file in self.files for i in range(file.num_row_groups)]
        ends = accumulate(file.metadata.row_group(i).num_rows for file, i in groups)
        self.groups, self.ends = groups, np.array(list(ends), dtype=np.int64)
        self._held: tuple[int, list[Any]] = (-1, [])

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def whole(self, column: str) -> list[Any]:
        """All values of a column that is small."""
        return [value for file in self.files for value in file.read([column])[column].to_pylist()]

    def at(self, column: str, row: int) -> Any:
        """One value of a column that is large; the group it stands in is held for the next."""
        group = int(np.searchsorted(self.ends, row, side="right"))
        if self._held[0] != group:
            file, i = self.groups[group]
            self._held = (group, file.read_row_group(i, columns=[column])[column].to_pylist())
        return self._held[1][row - (int(self.ends[group - 1]) if group else 0)]


@dataclass(frozen=True)
class _Columns:
    image: str
    label: str
    classes: tuple[str, ...]  # as the file names them; empty where it does not


def _columns(table: _Table, image: str | None, label: str | None) -> _Columns:
    """Which columns to read: as asked, as the hub's features say, or by their types where only one fits."""
    described = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    features = described.get("info", {}).get("features", {})
    types = {field.name: str(field.type) for field in table.schema}
    images = [name for name, kind in types.items() if kind == "binary" or kind.startswith("struct<bytes: binary")]
    named = [name for name in types if features.get(name, {}).get("_type") == "ClassLabel"]
    labels = named or [name for name, kind in types.items() if re.fullmatch(r"u?int\d+|(large_)?string", kind)]
    chosen = {}
    for what, asked, fitting in (("image", image, images), ("label", label, labels)):
        if asked is not None and asked not in types:
            raise DataError(f"no column {asked!r} for the {what}; there are {nearest(asked, types)}")
        if asked is None and len(fitting) != 1 and what not in fitting:
            there = listed([f"{name} ({kind})" for name, kind in types.items()], most=len(types))
            raise DataError(f"{number(len(fitting), 'column')} could be the {what}; name it with --{what}: {there}")
        chosen[what] = asked or (what if what in fitting else fitting[0])
    return _Columns(chosen["image"], chosen["label"], tuple(features.get(chosen["label"], {}).get("names", ())))


def _numbers(tables: dict[str, _Table], columns: _Columns) -> tuple[tuple[str, ...], dict[int | str, int]]:
    """The names of the classes that occur, and for each value of the column the number of its class."""
    values = {value for table in tables.values() for value in table.whole(columns.label) if value is not None}
    if not (all(isinstance(value, str) for value in values) or all(isinstance(value, int) for value in values)):
        raise DataError(f"column {columns.label} holds neither whole numbers nor texts; name another with --label")
    used = sorted(value for value in values if isinstance(value, str) or value >= 0)
    if columns.classes and used and used[-1] >= len(columns.classes):
        raise DataError(
            f"column {columns.label} holds the label {used[-1]}, but there are {number(len(columns.classes), 'class')}"
        )
    names = tuple(columns.classes[value] if columns.classes else str(value) for value in used)
    return names, {value: k for k, value in enumerate(used)}


def _records(
    part: str, table: _Table, columns: _Columns, numbers: dict[int | str, int], progress: Progress
) -> tuple[Records, int]:
    """The labelled images of a part, and how many have no label."""
    values = table.whole(columns.label)
    labels = [numbers.get(value, -1) for value in values]
    rows = [row for row, value in enumerate(labels) if value >= 0]

    def encoded(row: int) -> bytes:
        value = table.at(columns.image, row)
        content = value.get("bytes") if isinstance(value, dict) else value
        if not content:
            raise DataError(f"row {row} of {part} has no image bytes in column {columns.image}: only {value!r:.80}")
        return bytes(content)

    names, faults = [], []
    for done, row in enumerate(rows, start=1):
        try:
            names.append(f"{part}_{row:06d}{suffix_of(Image.open(io.BytesIO(encoded(row)), formats=formats()).format)}")
        except Exception as error:  # on damaged files Pillow raises whatever its decoders stumble over
            faults.append(
                str(error) if isinstance(error, DataError) else f"row {row} of {part} is no image of a known kind"
            )
        progress(f"reading {part}", done, len(rows))
    if faults:
        raise DataError(f"{number(len(faults), 'row')} cannot be used:{lines(faults)}")
    chosen = [labels[row] for row in rows]
    return Records(tuple(names), np.array(chosen, dtype=np.int64), lambda i: encoded(rows[i])), len(values) - len(rows)
