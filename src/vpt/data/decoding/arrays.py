"""Decoding of a `Split` into a uint8 array, with all images resized to the input size of a backbone."""

import math
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import ENOSPC
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vpt.core.io import describe_write_error, temporary_path
from vpt.core.text import bullets, comma_list, pluralize
from vpt.data.dataset import Split
from vpt.data.decoding.whole_images import WholeImages
from vpt.data.images.files import UnreadableImageError, capture_warnings
from vpt.data.images.inputs import read_image, read_size
from vpt.data.preprocessing import Preprocessing
from vpt.errors import DataError, StorageError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

MEMORY_LIMIT = 4 * 2**30  # bytes
_QUEUE_SIZE = 1024  # images submitted to the threads at once; limits memory and the delay after Ctrl-C


@dataclass(frozen=True, eq=False)
class DecodedImages:
    """Decoded images.

    Args:
        images: uint8 (n, 3, size, size), in memory or a `np.memmap` whose file the caller deletes. With `whole`, all
            bytes of it instead.
        labels: Labels of the images, see `Split`.
        names: n texts for messages.
        indices: int64 (n,), index of each image in the split.
        notes: Notes about irregularities, one sentence each.
        dropped: "name: reason" of each image that is left out, only with `skip_corrupt`.
        whole: The images in their own shapes, only with `whole_side`.
        groups: int64 (n,), group of each image, or None without groups.
    """

    images: NDArray[np.uint8]
    labels: NDArray[Any]
    names: tuple[str, ...]
    indices: NDArray[np.int64]
    notes: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    whole: WholeImages | None = None
    groups: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    @property
    def all_notes(self) -> list[str]:
        """The notes, with one for each image that is left out."""
        return [*self.notes, *(f"left out {name}" for name in self.dropped)]


def decode(
    split: Split,
    preprocessing: Preprocessing,
    *,
    whole_side: int | None = None,
    skip_corrupt: bool = False,
    progress: Callable[[int, int], None] | None = None,
    threads: int | None = None,
    memory_limit: int = MEMORY_LIMIT,
    spill_dir: Path | None = None,
) -> DecodedImages:
    """Decode every image of a split and resize it to the input size of the backbone.

    After an error, no file is left in `spill_dir`. StorageError is raised if `spill_dir` is full or cannot be written.

    Args:
        split: The images.
        preprocessing: Resize options.
        whole_side: Short side in pixels of images from which nothing is cut (`Preprocessing.resize_whole`), instead of
            inputs of the backbone. Default: none.
        skip_corrupt: Leave out images that cannot be used and list them in `dropped`. Default: False.
        progress: Called as (done, total) by this thread after each image.
        threads: Number of threads. Default: one per CPU core.
        memory_limit: Bytes. Larger pixel arrays are stored in a file in `spill_dir`. Default: 4 GiB.
        spill_dir: Folder for that file, created if missing.

    Returns:
        The decoded images.

    Raises:
        DataError: Images cannot be used. All images are tried, and the message names every fault.
        BaseException: Re-raised after the file in `spill_dir` is deleted.
    """
    total = len(split)
    whole, capacities = None, np.empty(0, np.int64)
    if whole_side is None:
        images = allocate((total, 3, preprocessing.size, preprocessing.size), memory_limit, spill_dir)
    else:
        sizes = map_images(
            lambda i: read_size(split.images[i], preprocessing.value_range), range(total), threads=threads
        )
        capacities = np.array([3 * math.prod(preprocessing.whole_size(*size, whole_side)) for size in sizes], np.int64)
        images = allocate((int(capacities.sum()),), memory_limit, spill_dir)
        whole = WholeImages(images, capacities.cumsum() - capacities, np.zeros((total, 2), np.int64))

    def decode_one(i: int) -> list[str] | str:
        """Return the notes on an image, or its fault."""
        try:
            image, notes = read_image(split.images[i], preprocessing.value_range)
            if whole is None or whole_side is None:
                images[i] = preprocessing.resize_image(image)
                return notes
            resized = preprocessing.resize_whole(image, whole_side)
            if resized.size != capacities[i]:
                raise UnreadableImageError("damaged: its header names another size than its pixels have")
            whole.shapes[i] = resized.shape[1:]
            whole[i][...] = resized
            return notes
        except UnreadableImageError as error:
            return str(error)

    try:
        results = map_images(decode_one, range(total), progress, threads)
        faults = {i: result for i, result in enumerate(results) if isinstance(result, str)}
        dropped = describe_dropped(split, faults, skip_corrupt)
    except BaseException:
        file = Path(str(images.filename)) if isinstance(images, np.memmap) else None
        del images, whole  # closes the file, which Windows removes only then
        if file is not None:
            with suppress(OSError):  # the error before says more
                file.unlink(missing_ok=True)
        raise
    kept = np.array([i for i in range(total) if i not in faults], dtype=np.int64)
    if whole is not None:
        whole = whole.select(kept)
    elif faults:
        for position, i in enumerate(kept):  # in place, because a copy may not fit in memory
            images[position] = images[i]
    left = split.select(kept)
    by_image = {i: result for i, result in enumerate(results) if isinstance(result, list)}
    notes = describe_notes(split, by_image, len(np.setdiff1d(split.strata, left.strata)))
    pixels = images[: len(kept)] if whole is None else images
    return DecodedImages(pixels, left.labels, left.names, kept, notes, dropped, whole, left.groups)


@contextmanager
def decode_to_tempdir(split: Split, preprocessing: Preprocessing, **options: Any) -> Iterator[DecodedImages]:
    """Decode images with a temporary spill folder that is deleted at the end of the context.

    Args:
        split: The images.
        preprocessing: Resize options.
        **options: Other arguments of `decode`.

    Yields:
        The decoded images.
    """
    with tempfile.TemporaryDirectory(prefix="vpt-", ignore_cleanup_errors=True) as tmp_dir:
        yield decode(split, preprocessing, spill_dir=Path(tmp_dir), **options)


def map_images(
    function: Callable[[_Item], _Result],
    items: Sequence[_Item],
    progress: Callable[[int, int], None] | None = None,
    threads: int | None = None,
) -> list[_Result]:
    """Call a function that decodes images, in threads, because Pillow releases the GIL.

    Args:
        function: The function. Pillow's warnings become notes, see `capture_warnings`.
        items: Its arguments.
        progress: Called as (done, total) by this thread after each item.
        threads: Number of threads. Default: one per CPU core.

    Returns:
        The results, in the order of the items.
    """
    results: list[_Result] = []
    pool = ThreadPoolExecutor(max_workers=threads or os.cpu_count(), thread_name_prefix="decode")
    with capture_warnings():
        try:
            for start in range(0, len(items), _QUEUE_SIZE):
                for result in pool.map(function, items[start : start + _QUEUE_SIZE]):
                    results.append(result)
                    if progress:
                        progress(len(results), len(items))
        finally:
            pool.shutdown(cancel_futures=True)  # after an interrupt, do not process the queue
    return results


def describe_dropped(split: Split, faults: Mapping[int, str], skip_corrupt: bool) -> tuple[str, ...]:
    """Return the names of images that are left out, with the reasons.

    Args:
        split: The images.
        faults: Index to the reason why an image cannot be used.
        skip_corrupt: True if images may be left out.

    Returns:
        "name: reason" of each.

    Raises:
        DataError: None may be left out, or none would remain. The message names every fault.
    """
    total, dropped = len(split), tuple(f"{split.names[i]}: {reason}" for i, reason in faults.items())
    if faults and (not skip_corrupt or len(faults) == total):
        raise DataError(
            f"{len(faults)} of {pluralize(total, 'image')} cannot be used:{bullets(dropped, limit=total)}\n"
            "replace or delete them" + ("" if len(faults) == total else ", or leave them out with --skip-corrupt")
        )
    return dropped


def describe_notes(split: Split, by_image: Mapping[int, Sequence[str]], num_empty_classes: int) -> tuple[str, ...]:
    """Return one note per kind of irregularity, with the count and the first names.

    Args:
        split: The images.
        by_image: Index to the notes on an image, in order.
        num_empty_classes: Number of classes that lost all their images.

    Returns:
        The notes.
    """
    names: defaultdict[str, list[str]] = defaultdict(list)
    for i, messages in by_image.items():
        for message in dict.fromkeys(messages):
            names[" ".join(message.split())].append(split.names[i])
    notes = [f"{pluralize(len(found), 'image')}: {message} ({comma_list(found)})" for message, found in names.items()]
    if num_empty_classes:
        notes.append(f"{pluralize(num_empty_classes, 'class')} without any image left after skipping the corrupt ones")
    return tuple(notes)


def allocate(
    shape: tuple[int, ...], memory_limit: int, spill_dir: Path | None, dtype: type[np.generic] = np.uint8
) -> NDArray[Any]:
    """Return an empty array in memory, or in a file with reserved blocks: writing to a full disk would crash.

    Args:
        shape: Shape of the array.
        memory_limit: Bytes. A larger array is stored in a file.
        spill_dir: Folder for that file, created if missing, or None for none.
        dtype: Type of the elements. Default: uint8.

    Returns:
        The array, a `np.memmap` if it is stored in a file, which the caller deletes.

    Raises:
        DataError: The array is larger than the limit, and there is no folder.
        StorageError: The folder is full or cannot be written.
    """
    needed = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if needed <= memory_limit:
        return np.empty(shape, dtype)
    if spill_dir is None:
        raise DataError(
            f"the images take {needed / 2**30:.1f} GiB after decoding, more than the memory limit of "
            f" {memory_limit / 2**30:.1f} GiB; give a spill_dir, or increase memory_limit"
        )
    file: Path | None = None
    try:
        spill_dir.mkdir(parents=True, exist_ok=True)
        file = temporary_path(spill_dir / "pixels.npy")
        if shutil.disk_usage(spill_dir).free < needed:
            raise OSError(ENOSPC, os.strerror(ENOSPC))
        array: NDArray[Any] = np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=shape)
        if hasattr(os, "posix_fallocate"):
            with file.open("r+b") as reserved:
                os.posix_fallocate(reserved.fileno(), 0, file.stat().st_size)
    except OSError as error:
        message = describe_write_error(spill_dir / "pixels.npy", error, needed)
        if file:
            file.unlink(missing_ok=True)
        raise StorageError(message) from error
    return array
