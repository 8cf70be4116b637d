"""Marks of training images in a tuned file, which tell whether a folder holds images of the training."""

import hashlib
import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from vpt.core.text import pluralize
from vpt.data.folders.shards import TarImage
from vpt.data.images.inputs import ImageInput
from vpt.errors import DataError

_NUM_MARKS = 16


def make_marks(images: Iterable[ImageInput]) -> list[str]:
    """Return marks of some images: size and hash of the files. An image in a shard has the mark of its file.

    Args:
        images: The training images. Those that are neither files nor in a shard have no mark.

    Returns:
        Up to 16 texts, of images that the hash of their name selects.
    """

    def rank(image: Path | TarImage) -> bytes:
        name = image.name if isinstance(image, Path) else f"{image.shard.name}/{image.offset}"
        return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()

    files = (image for image in images if isinstance(image, Path | TarImage))
    return [mark for mark in map(_mark, heapq.nsmallest(_NUM_MARKS, files, key=rank)) if mark]


def has_marked(images: Iterable[ImageInput], marks: Collection[str]) -> bool:
    """Return True if there is one of the marked images. Only files of the same size are read.

    Args:
        images: Images, of which those that are files or in a shard are compared.
        marks: What `make_marks` returned.

    Returns:
        True for images of the training.
    """
    return any(_marked(images, marks))


def check_split_again(
    source: object, splits: Mapping[str, Iterable[ImageInput]], scored: str, marks: Collection[str]
) -> str:
    """Check that training images are still in train where the data of the training are split again.

    They are not if images were added or deleted since, or the seed is another one. A copy in another split, whose
    original is in train, is none of them: the training noted it. Data without train were not split again.

    Args:
        source: The data.
        splits: Name of a split, among them "train", to its images.
        scored: Name of the split that is scored.
        marks: What `make_marks` returned.

    Returns:
        A note if training images are in another split than train and the scored one, or in the scored one of data
        without train, else "".

    Raises:
        DataError: Training images are in the scored split of data that are split again.
    """
    found = {name: set(_marked(images, marks)) for name, images in splits.items() if name != "train"}
    if not any(found.values()):
        return ""
    if not any(True for _ in splits["train"]):
        trained = pluralize(len(found[scored]), "image")
        note = f"{source}: {scored} holds {trained} that were trained on, so the score may be too high"
        return note if found[scored] else ""
    kept = set(_marked(splits["train"], marks))
    counts = {name: len(moved) for name, own in found.items() if (moved := own - kept)}
    where = ", ".join(f"{count} in {name}" for name, count in counts.items())
    described = (
        f"{source}: of the {pluralize(len(marks), 'training image')} that the tuned file marks, {where}: the images or "
        "the seed changed since the training, and with them the splits"
    )
    if counts.get(scored):
        raise DataError(
            f"{described}, so {scored} would score images that were trained on; score a folder without training images"
        )
    return f"{described}, so {scored} may hold images that were val in training" if counts else ""


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


def describe_trained_val(source: object) -> str:
    """Say that val is not scored because the training took it, too.

    Args:
        source: The data.

    Returns:
        One sentence.
    """
    return (
        f"{source}: the training took val, too (train_on is trainval), so val is not scored; score test or other data"
    )


def _marked(images: Iterable[ImageInput], marks: Collection[str]) -> Iterator[str]:
    """Yield the mark of each marked image. Only files of the same size are read."""
    sizes = {int(mark.partition(":")[0]) for mark in marks}
    for image in images:
        if isinstance(image, Path | TarImage) and _size(image) in sizes and (mark := _mark(image)) in marks:
            yield mark


def _size(image: Path | TarImage) -> int:
    if isinstance(image, TarImage):
        return image.size
    try:
        return image.stat().st_size if image.is_file() else -1  # reading a pipe would block
    except OSError:  # decoding reports the fault
        return -1


def _mark(image: Path | TarImage) -> str:
    with suppress(OSError):
        if isinstance(image, TarImage):
            digest = hashlib.sha256(image.read())
        else:
            with image.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256")
        return f"{_size(image)}:{digest.hexdigest()[:12]}"
    return ""
