"""Decoded pixels, kept on disk: an image is decoded once, whatever number of runs and processes read it.

An entry is a memory-mapped array and a small record, written last: what has no record is not there. Its name is a hash
of the files (path, size, time of change) and of how they are fitted, so that any change makes another entry.
Processes that decode the same images at the same time each write their own file, and the last to finish puts the same
bytes in the same place.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from vpt.core.io import storage_error, write_atomic
from vpt.data.dataset import Split
from vpt.data.images import Pixels, decode
from vpt.data.preprocessing import Preprocessing

FORMAT = 1  # to be raised when the same files come to give other pixels


def decode_once(
    split: Split,
    preprocessing: Preprocessing,
    *,
    folder: Path | None,
    spill: Path,
    skip_corrupt: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Pixels:
    """As `decode`, but images that lie in `folder` already are only mapped into memory.

    folder: of the entries, made if missing; None keeps nothing. spill: as for `decode`. Images that are arrays are
    not kept: to fit them takes no longer than to read them. Raises what `decode` raises.
    """
    if folder is None or not isinstance(split.images, tuple) or not len(split):
        return decode(split, preprocessing, skip_corrupt=skip_corrupt, progress=progress, spill=spill)
    array = folder / f"pixels-{_key(split.images, preprocessing, skip_corrupt)}.npy"
    found = _mapped(array, split)
    if found is not None:
        return found
    pixels = decode(split, preprocessing, skip_corrupt=skip_corrupt, progress=progress, memory_limit=0, spill=folder)
    assert isinstance(pixels.images, np.memmap) and pixels.images.filename is not None
    pixels.images.flush()
    record = {"places": pixels.places.tolist(), "notes": pixels.notes, "dropped": pixels.dropped}
    try:
        Path(pixels.images.filename).replace(array)
    except OSError as error:
        raise storage_error(array, error) from error
    write_atomic(array.with_suffix(".json"), json.dumps(record).encode())
    return _mapped(array, split) or pixels


def _key(images: tuple[Path, ...], preprocessing: Preprocessing, skip_corrupt: bool) -> str:
    fitted = {name: value for name, value in preprocessing.as_dict().items() if name not in ("mean", "std")}
    said = [FORMAT, PIL.__version__, fitted, skip_corrupt]
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for path in images:
        digest.update(f"{path.absolute()}\0{_state(path)}\n".encode())
    return digest.hexdigest()[:32]


def _state(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:  # decoding says what is wrong with it
        return "unreadable"
    return f"{status.st_size} {status.st_mtime_ns}"


def _mapped(array: Path, split: Split) -> Pixels | None:
    """The entry, or None where it is missing or damaged."""
    try:
        record: dict[str, Any] = json.loads(array.with_suffix(".json").read_text(encoding="utf-8"))
        images = np.load(array, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    places = np.array(record["places"], dtype=np.int64)
    if len(images) < len(places):
        return None
    return Pixels(
        images=images[: len(places)],
        labels=split.labels[places],
        names=tuple(split.names[place] for place in places),
        places=places,
        notes=tuple(record["notes"]),
        dropped=tuple(record["dropped"]),
    )
