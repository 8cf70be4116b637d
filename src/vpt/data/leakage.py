"""Detection of identical files in different splits of a dataset, which make test scores too high."""

from __future__ import annotations

import hashlib
import stat
from collections import defaultdict
from itertools import combinations
from pathlib import Path

from vpt.core.text import comma_list, pluralize
from vpt.data.dataset import Dataset

_File = tuple[str, str, Path]  # split, name, path


def leakage_notes(dataset: Dataset) -> tuple[str, ...]:
    """Return notes about files with identical bytes in two splits.

    Only image files are compared. Unreadable files are skipped, because decoding reports them.

    Args:
        dataset: The dataset.

    Returns:
        One note per pair of splits that share files.
    """
    files = [
        (split_name, name, path)
        for split_name, split in dataset.splits.items()
        for name, path in zip(split.names, split.images, strict=True)
        if isinstance(path, Path)
    ]
    same_size: defaultdict[int, list[_File]] = defaultdict(list)
    for file in files:
        size = _size(file[2])
        if size:
            same_size[size].append(file)

    # Only files with the size of a file in another split are read, which are few even in a large dataset.
    same_bytes: defaultdict[bytes, list[_File]] = defaultdict(list)
    for group in same_size.values():
        if len({split_name for split_name, _, _ in group}) > 1:
            for file in group:
                digest = _digest(file[2])
                if digest:
                    same_bytes[digest].append(file)

    pairs: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for group in same_bytes.values():
        first = {split_name: name for split_name, name, _ in reversed(group)}
        for a, b in combinations(dataset.splits, 2):
            pairs[a, b] += [f"{name} = {first[a]}" for split_name, name, _ in group if split_name == b and a in first]
    return tuple(
        f"{pluralize(len(shared), 'file')} of {b} with the same bytes as a file of {a}, "
        f"so the {b} accuracy may be too high: {comma_list(shared)}"
        for (a, b), shared in pairs.items()
        if shared
    )


def _size(path: Path) -> int:
    """Return the size of a regular file in bytes, else 0. Reading a pipe would block."""
    try:
        status = path.stat()
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return b""
