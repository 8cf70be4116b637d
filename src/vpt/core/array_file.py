"""Arrays that caches and runs keep on disk. A damaged file is told from a whole one, and is computed again."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vpt.core.damage import FAULTS, damage_named
from vpt.errors import DataError


def map_array(path: Path, mode: Literal["r", "c"] = "r") -> NDArray[Any] | None:
    """Return the array of a .npy file, mapped into memory.

    Args:
        path: The file.
        mode: "r" for an array that cannot be written, "c" for one whose writes stay in memory. Default: "r".

    Returns:
        The array, or None where there is no regular file or a damaged one.
    """
    if not path.is_file():  # a pipe or a device may never end
        return None
    try:
        return np.lib.format.open_memmap(path, mode=mode)
    except (*FAULTS, MemoryError):
        return None


def read_array(path: Path, kind: str, advice: str) -> NDArray[Any]:
    """Return the array of a .npy file that cannot be computed again.

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
        return np.lib.format.open_memmap(path, mode="r")
