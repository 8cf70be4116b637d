"""Marks of training images in a tuned file, which tell whether a folder holds images of the training."""

import hashlib
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from vpt.core.text import pluralize

_NUM_MARKS = 16


def make_marks(paths: Sequence[Path]) -> list[str]:
    """Return marks of some images: size and hash of the files.

    Args:
        paths: The training images.

    Returns:
        Up to 16 texts, of images that the hash of their name selects.
    """

    def rank(path: Path) -> bytes:
        return hashlib.sha256(path.name.encode("utf-8", "surrogateescape")).digest()

    return [mark for mark in map(_mark, sorted(paths, key=rank)[:_NUM_MARKS]) if mark]


def has_marked(paths: Sequence[Path], marks: Collection[str]) -> bool:
    """Return True if files hold one of the marked images. Only files of the same size are read.

    Args:
        paths: Image files.
        marks: What `make_marks` returned.

    Returns:
        True for images of the training.
    """
    sizes = {int(mark.partition(":")[0]) for mark in marks}
    return any(_size(path) in sizes and _mark(path) in marks for path in paths)


def describe_whole(root: Path, split: str, num_images: int) -> str:
    """Say that a folder is measured whole.

    Args:
        root: The folder.
        split: The split that was asked for.
        num_images: Number of images of the folder.

    Returns:
        One sentence.
    """
    return (
        f"{root} has no {split} split and no training image, so all of it is measured: {pluralize(num_images, 'image')}"
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else -1  # reading a pipe would block
    except OSError:  # decoding reports the fault
        return -1


def _mark(path: Path) -> str:
    with suppress(OSError), path.open("rb") as file:
        return f"{_size(path)}:{hashlib.file_digest(file, 'sha256').hexdigest()[:12]}"
    return ""
