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

import numpy as np
import PIL

from vpt.core.io import storage_error, write_atomic
from vpt.core.legacy_keys import upgrade
from vpt.data.dataset import Split
from vpt.data.images import DecodedImages, decode
from vpt.data.preprocessing import Preprocessing

CACHE_VERSION = 1  # to be raised when the same files come to give other pixels


def decode_cached(
    split: Split,
    preprocessing: Preprocessing,
    *,
    cache_dir: Path | None,
    spill_dir: Path,
    skip_corrupt: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> DecodedImages:
    """As `decode`, but images that lie in `cache_dir` already are only mapped into memory.

    cache_dir: of the entries, made if missing; None keeps nothing. spill_dir: as for `decode`. Images that are arrays are
    not kept: to fit them takes no longer than to read them. Raises what `decode` raises.
    """
    if cache_dir is None or not isinstance(split.images, tuple) or not len(split):
        return decode(split, preprocessing, skip_corrupt=skip_corrupt, progress=progress, spill_dir=spill_dir)
    array_path = cache_dir / f"pixels-{_cache_key(split.images, preprocessing, skip_corrupt)}.npy"
    cached = _load_entry(array_path, split)
    if cached is not None:
        return cached
    pixels = decode(
        split, preprocessing, skip_corrupt=skip_corrupt, progress=progress, memory_limit=0, spill_dir=cache_dir
    )
    assert isinstance(pixels.images, np.memmap) and pixels.images.filename is not None
    pixels.images.flush()
    record = {"indices": pixels.indices.tolist(), "notes": pixels.notes, "dropped": pixels.dropped}
    try:
        Path(pixels.images.filename).replace(array_path)
    except OSError as error:
        raise storage_error(array_path, error) from error
    write_atomic(array_path.with_suffix(".json"), json.dumps(record).encode())
    return _load_entry(array_path, split) or pixels


def _cache_key(images: tuple[Path, ...], preprocessing: Preprocessing, skip_corrupt: bool) -> str:
    resize_options = {name: value for name, value in preprocessing.to_dict().items() if name not in ("mean", "std")}
    fields = [CACHE_VERSION, PIL.__version__, resize_options, skip_corrupt]
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    for path in images:
        digest.update(f"{path.absolute()}\0{_file_state(path)}\n".encode())
    return digest.hexdigest()[:32]


def _file_state(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:  # decoding says what is wrong with it
        return "unreadable"
    return f"{status.st_size} {status.st_mtime_ns}"


def _load_entry(array_path: Path, split: Split) -> DecodedImages | None:
    """The entry, or None where it is missing or damaged."""
    try:
        record = upgrade("decode_cache", json.loads(array_path.with_suffix(".json").read_text(encoding="utf-8")))
        images = np.load(array_path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    indices = np.array(record["indices"], dtype=np.int64)
    if len(images) < len(indices):
        return None
    return DecodedImages(
        images=images[: len(indices)],
        labels=split.labels[indices],
        names=tuple(split.names[index] for index in indices),
        indices=indices,
        notes=tuple(record["notes"]),
        dropped=tuple(record["dropped"]),
    )
