"""Images of any source, written as a folder with list files: lossless, resumable, and marked when it is whole."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from vpt._version import __version__
from vpt.core.io import write_atomic, write_atomic_by
from vpt.data.manifest import begin, finish
from vpt.datasets.prepared.progress import Progress
from vpt.datasets.prepared.records import Records
from vpt.errors import DataError

_File = tuple[str, Records, int]  # path below the folder, where its bytes come from


def write_folder(
    folder: Path,
    parts: Mapping[str, Records],
    classes: tuple[str, ...],
    lists: Mapping[str, tuple[str, ...]],
    facts: Mapping[str, Any],
    progress: Progress,
) -> None:
    """Write each part below `folder / "images"`, then the lists (name -> parts in it), last what it says of itself.

    Killed, the same call goes on. Raises DataError where the folder holds something else.
    """
    folders = _class_folders(classes)
    files = {part: _files(part, records, folders) for part, records in parts.items()}
    texts = {
        name: "".join(
            f"{path} {records.labels[i]}\n" for part in within for path, records, i in files[part]
        )
        for name, within in lists.items()
    }  # fmt: skip
    begin(folder, hashlib.sha256("".join([str(facts["source"]), *texts.values()]).encode()).hexdigest())
    _write(folder, [file for part in files.values() for file in part], f"writing {folder.name}", progress)
    for name, text in texts.items():
        write_atomic(folder / name, text.encode())
    counted = {"images": {part: len(records) for part, records in parts.items()}, "classes": list(classes)}
    finish(folder, {"format": 1, **facts, **counted, "vpt": __version__})


def _class_folders(classes: tuple[str, ...]) -> tuple[str, ...]:
    """A folder for each class, named after it; with its number where two names would be one."""
    plain = [re.sub(r"[^\w.+-]+", "_", name).strip("_.") or "_" for name in classes]
    twice = {name for name, count in Counter(name.casefold() for name in plain).items() if count > 1}
    return tuple(f"{k:03d}_{name}" if name.casefold() in twice else name for k, name in enumerate(plain))


def _files(part: str, records: Records, classes: tuple[str, ...]) -> list[_File]:
    """Where each image goes. The parts have folders of their own: the same name may stand in two of them."""
    return [
        (f"images/{part}/{classes[label]}/{_flat(name)}", records, i)
        for i, (name, label) in enumerate(zip(records.names, records.labels.tolist(), strict=True))
    ]


def _flat(name: str) -> str:
    return PurePosixPath(name).name


def _write(folder: Path, files: list[_File], what: str, progress: Progress) -> None:
    """Write what is not there yet. Files come into place whole, so one that is there is complete."""
    twice = [path for path, count in Counter(path for path, _, _ in files).items() if count > 1]
    if twice:
        raise DataError(f"{folder}: {len(twice)} images would share a path, such as {twice[0]}; this is a fault of vpt")
    for done, (path, records, i) in enumerate(files):
        place = folder / path
        if not place.is_file() or not place.stat().st_size:  # an empty one is left by a power cut
            content = records.encoded(i)
            write_atomic_by(place, partial(_put, content), size=len(content))
        progress(what, done + 1, len(files))


def _put(content: bytes, part: Path) -> None:
    """Without waiting for the disk: a power cut costs files, not sense, and there may be 70,000 of them."""
    part.write_bytes(content)
