"""Arrays that caches and runs keep on disk, with a checksum behind them.

The checksum detects a damaged file: that of a cache is computed again, any other is refused.
"""

import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vpt.core.damage import FAULTS, damage_named
from vpt.core.io import describe_write_error, write_atomic_with
from vpt.errors import DataError, StorageError

_MARK = b"vpt-crc32:"  # behind the array, before eight hexadecimal digits; readers of .npy files stop before it
_TRAILER_BYTES = len(_MARK) + 8
_CHUNK = 2**20


def append_checksum(path: Path) -> None:
    """Append the checksum to a .npy file that is complete.

    Args:
        path: The file.

    Raises:
        StorageError: The disk is full, or the file cannot be written.
    """
    try:
        checksum = _checksum(path, path.stat().st_size)
        with path.open("ab") as file:
            file.write(checksum)
    except OSError as error:
        raise StorageError(describe_write_error(path, error)) from error


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array that `read_array` reads.

    Args:
        path: The .npy file, which is replaced in one step.
        array: The array.
    """

    def write(file: Any) -> None:
        np.save(file, array)
        file.flush()
        append_checksum(Path(file.name))

    write_atomic_with(path, write, size=array.nbytes)


def map_array(path: Path, mode: Literal["r", "c"] = "r") -> NDArray[Any] | None:
    """Return the array of a .npy file, mapped into memory.

    Args:
        path: The file.
        mode: "r" for an array that cannot be written, "c" for one whose writes stay in memory. Default: "r".

    Returns:
        The array, or None where there is no regular file, or a damaged one, or one without a checksum.
    """
    if not path.is_file():  # a pipe or a device may never end
        return None
    try:
        array = np.lib.format.open_memmap(path, mode=mode)
        return array if _is_whole(path) else None
    except (*FAULTS, MemoryError):
        return None


def read_array(path: Path, kind: str, advice: str) -> NDArray[Any]:
    """Return the array of a .npy file that cannot be computed again. Earlier versions wrote no checksum.

    Args:
        path: The file.
        kind: What the file is, such as "file of predictions".
        advice: What to do if it is damaged.

    Returns:
        The array, mapped into memory.

    Raises:
        DataError: There is no regular file, or a damaged one.
    """
    with damage_named(path, kind, advice, DataError):
        if _is_whole(path) is False:
            raise ValueError("its checksum differs")
        return np.lib.format.open_memmap(path, mode="r")


def _is_whole(path: Path) -> bool | None:
    """Return True if the checksum of a file is that of its array, and None if it has none."""
    size = path.stat().st_size - _TRAILER_BYTES
    if size < 0:
        return None
    with path.open("rb") as file:
        file.seek(size)
        trailer = file.read()
    return trailer == _checksum(path, size) if trailer.startswith(_MARK) else None


def _checksum(path: Path, size: int) -> bytes:
    """Return the trailer that belongs behind the first bytes of a file."""
    value, left = 0, size
    with path.open("rb") as file:
        while left and (chunk := file.read(min(_CHUNK, left))):
            value, left = zlib.crc32(chunk, value), left - len(chunk)
    return _MARK + f"{value:08x}".encode()
