"""CUB-200-2011 and NABirds: the same four text files, keyed by the image."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from vpt.datasets.download_dir import Place
from vpt.datasets.prepared.records import Listing, from_files
from vpt.errors import DataError


def _birds(place: Place, *, folder: str) -> Listing:
    """`images.txt`, `image_class_labels.txt`, `train_test_split.txt` (1 is train), `classes.txt`; images in `images/`.

    Labels are the class numbers that have images, in order: NABirds numbers its whole tree of species.
    """
    names = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
    files = place.find(*(f"{folder}/{name}" for name in names))
    images, numbers, in_train, titles = map(_table, files)
    lost = sorted(set(images) - (set(numbers) & set(in_train)))
    if lost:
        raise DataError(
            f"{files[0].parent}: {len(lost)} images without label or part, such as {lost[0]}; unpack it again"
        )
    used = sorted(set(numbers.values()), key=int)
    labels = {number: label for label, number in enumerate(used)}
    parts = {}
    for part, flag in (("train", "1"), ("test", "0")):
        chosen = [image for image in images if in_train[image] == flag]
        parts[part] = from_files(
            files[0].parent / "images",
            [images[image] for image in chosen],
            [labels[numbers[image]] for image in chosen],
        )
    return Listing(tuple(titles[number].split(".", 1)[-1] for number in used), parts, files[0].parent)


cub = partial(_birds, folder="CUB_200_2011")
nabirds = partial(_birds, folder="nabirds")


def _table(file: Path) -> dict[str, str]:
    """First word of each line -> the rest of it."""
    rows = (line.split(maxsplit=1) for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    return {row[0]: row[1].strip() for row in rows}
