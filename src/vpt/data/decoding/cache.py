"""A cache of decoded pixels on disk, shared by runs and processes.

An entry is a memory-mapped array and a record, each with a checksum. The record is written last; an array without a
record is not an entry.
The name of an entry is a hash of its files (path, size, modification time) and of the resize options, so that any
change leads to a new entry. Processes that decode the same images at the same time write one file each and move it to
the same path; the bytes are equal.
"""

import hashlib
import json
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from vpt.core.array_file import append_checksum, map_array
from vpt.core.damage import FAULTS
from vpt.core.io import move_into_place, sweep_abandoned, write_atomic
from vpt.data.dataset import Split
from vpt.data.decoding.arrays import DecodedImages, decode
from vpt.data.decoding.whole_images import WholeImages
from vpt.data.preprocessing import Preprocessing

CACHE_VERSION = {"squash": 3, "crop": 4}  # to be increased when the same files decode to different pixels


def decode_cached(
    split: Split,
    preprocessing: Preprocessing,
    *,
    cache_dir: Path | None,
    spill_dir: Path,
    whole_side: int | None = None,
    skip_corrupt: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> DecodedImages:
    """Decode the images of a split, or map them into memory if the cache has them.

    Images that are arrays are not cached, because resizing them is as fast as reading a cache. Errors of `decode`
    propagate.

    Args:
        split: The images.
        preprocessing: Resize options.
        cache_dir: Folder of the cache, created if missing; None for no cache.
        spill_dir: Folder for pixels that exceed the memory limit of `decode`.
        whole_side: Short side of images from which nothing is cut, as for `decode`. Default: none.
        skip_corrupt: Leave out images that cannot be used instead of raising an error. Default: False.
        progress: Called as (done, total) after each image.

    Returns:
        The decoded images.

    Raises:
        StorageError: The cache cannot be written.
    """
    decode_split = partial(
        decode, split, preprocessing, whole_side=whole_side, skip_corrupt=skip_corrupt, progress=progress
    )
    if cache_dir is None or not len(split) or len(split.paths) < len(split):
        return decode_split(spill_dir=spill_dir)
    array_path = cache_dir / f"pixels-{_cache_key(split.paths, preprocessing, whole_side, skip_corrupt)}.npy"
    load_entry = partial(_load_entry, array_path, split, preprocessing.size, whole_side is not None)
    cached = load_entry()
    if cached is not None:
        return cached
    sweep_abandoned(cache_dir)
    pixels = decode_split(memory_limit=0, spill_dir=cache_dir)
    assert isinstance(pixels.images, np.memmap) and pixels.images.filename is not None
    unfinished = Path(pixels.images.filename)
    pixels.images.flush()
    record: dict[str, Any] = {
        "indices": pixels.indices.tolist(), "notes": pixels.notes, "dropped": pixels.dropped
    }  # fmt: skip
    if pixels.whole is not None:
        record |= {"starts": pixels.whole.starts.tolist(), "shapes": pixels.whole.shapes.tolist()}
    del pixels  # closes the file, which Windows renames only then
    append_checksum(unfinished)
    move_into_place(unfinished, array_path)
    write_atomic(array_path.with_suffix(".json"), json.dumps({**record, "crc32": _checksum(record)}).encode())
    return load_entry() or decode_split(spill_dir=spill_dir)  # if the entry is gone already


def _cache_key(
    images: tuple[Path, ...], preprocessing: Preprocessing, whole_side: int | None, skip_corrupt: bool
) -> str:
    resize_options = {name: value for name, value in preprocessing.to_dict().items() if name not in ("mean", "std")}
    fields = [CACHE_VERSION[preprocessing.resize], PIL.__version__, resize_options, skip_corrupt]
    if whole_side is not None:
        fields.append(whole_side)
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    for path in images:
        try:
            status = path.stat()
            state = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:  # decoding reports the fault
            state = "unreadable"
        digest.update(f"{path.absolute()}\0{state}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def _checksum(record: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(record).encode())


def _load_entry(array_path: Path, split: Split, size: int, is_whole: bool) -> DecodedImages | None:
    """Return a cache entry of images of a size, or of whole ones; None if it is missing or damaged."""
    images, path = map_array(array_path), array_path.with_suffix(".json")
    if images is None or images.dtype != np.uint8 or not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record.pop("crc32") != _checksum(record):
            return None
        indices = np.array(record["indices"], dtype=np.int64)
        notes, dropped = (tuple(map(str, record[key])) for key in ("notes", "dropped"))
        whole = WholeImages(images, np.array(record["starts"]), np.array(record["shapes"])) if is_whole else None
        fits = images.shape[1:] == (3, size, size) if whole is None else whole.fits(len(indices))
        is_complete = indices.shape == (len(split) - len(dropped),) and (np.diff(indices, prepend=-1) > 0).all()
        if len(images) < len(indices) or not fits or not is_complete:
            return None
        kept = split.select(indices)
    except FAULTS:
        return None
    pixels = images[: len(indices)] if whole is None else images
    return DecodedImages(pixels, kept.labels, kept.names, indices, notes, dropped, whole, kept.groups)
