"""Detection of identical files in different splits of a dataset, which make test scores too high."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from contextlib import suppress
from itertools import combinations
from pathlib import Path

from vpt.core.text import comma_list, pluralize
from vpt.data.dataset import Dataset


def leakage_notes(dataset: Dataset) -> tuple[str, ...]:
    """Return notes about files with identical bytes in two splits.

    Only image files are compared. Unreadable files are skipped, because decoding reports them.

    Args:
        dataset: The dataset.

    Returns:
        One note per pair of splits that share files.
    """
    same_size: defaultdict[int, list[tuple[str, str, Path]]] = defaultdict(list)  # split, name, path
    for split_name, split in dataset.splits.items():
        for name, path in zip(split.names, split.images, strict=True):
            with suppress(OSError):  # decoding reports unreadable files
                if isinstance(path, Path) and path.is_file():  # reading a pipe would block
                    same_size[path.stat().st_size].append((split_name, name, path))
    same_size.pop(0, None)

    # Only files with the size of a file in another split are read, which are few even in a large dataset.
    same_bytes: defaultdict[bytes, list[tuple[str, str]]] = defaultdict(list)
    for group in same_size.values():
        if len({split_name for split_name, _, _ in group}) > 1:
            for split_name, name, path in group:
                with suppress(OSError), path.open("rb") as file:
                    same_bytes[hashlib.file_digest(file, "sha256").digest()].append((split_name, name))

    pairs: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for found in same_bytes.values():
        first = dict(reversed(found))
        for a, b in combinations(dataset.splits, 2):
            pairs[a, b] += [f"{name} = {first[a]}" for split_name, name in found if split_name == b and a in first]
    return tuple(
        f"{pluralize(len(shared), 'file')} of {b} with the same bytes as a file of {a}, "
        f"so the {b} accuracy may be too high: {comma_list(shared)}"
        for (a, b), shared in pairs.items()
        if shared
    )
