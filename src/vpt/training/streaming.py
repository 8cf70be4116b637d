"""The splits of a dataset as streams of images: checked before training, decoded and augmented while it runs."""

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vpt.core.text import format_bytes, pluralize
from vpt.data.dataset import Split
from vpt.data.decoding.arrays import MEMORY_LIMIT, describe_dropped, describe_notes
from vpt.data.decoding.batches import BatchRequest
from vpt.data.decoding.stream import ImageLoader, StreamedImages, default_workers
from vpt.data.preprocessing import Preprocessing
from vpt.errors import DataError
from vpt.training.augmentation import CROP_SCALE, ImageAugmentation, parse_augmentation, random_box
from vpt.training.batches import Examples, iter_batches
from vpt.training.callbacks import Callback, Progress

_BATCH = 64  # images that a worker checks at once


def choose_loading(loading: str, decoded: int, cache: Path | None, workers: int | None) -> tuple[bool, str]:
    """Decide how images are loaded, and say it with sizes.

    Args:
        loading: "cache" decodes every image once, "stream" whenever it is used; "auto" streams if decoded images would
            take more than `vpt.data.decoding.arrays.MEMORY_LIMIT`, unless a folder keeps them.
        decoded: Bytes of the decoded images.
        cache: Folder that keeps decoded images, or None.
        workers: Number of processes that decode a stream, or None for the default.

    Returns:
        True for a stream, and a few words.
    """
    sizes = f"{format_bytes(decoded)} of pixels, "
    if loading == "stream" or (loading == "auto" and cache is None and decoded > MEMORY_LIMIT):
        count = pluralize(default_workers() if workers is None else workers, "worker")
        return True, f"streamed by {count} ({sizes}and at most {format_bytes(MEMORY_LIMIT)} are decoded once)"
    return False, f"decoded once ({sizes}and more than {format_bytes(MEMORY_LIMIT)} are streamed)"


class StreamAugmentation:
    """The augmentation of single images, which cuts crops from the whole image at its own resolution.

    Args:
        text: Text of the augmentation.
        preprocessing: Preprocessing of the backbone.
    """

    def __init__(self, text: str, preprocessing: Preprocessing) -> None:
        augmentation = parse_augmentation(text)
        self._crop = augmentation.crop
        self._flips = augmentation.flips
        self._of_image = ImageAugmentation(augmentation, preprocessing)
        self._preprocessing = preprocessing

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Augment an image.

        Args:
            image: An RGB image of any size.
            rng: Random generator.

        Returns:
            uint8 (3, size, size).
        """
        preprocessing = self._preprocessing
        if self._crop is None:
            pixels = preprocessing.resize_image(image)
        else:
            side = round(preprocessing.size * CROP_SCALE[self._crop])
            width, height = preprocessing.whole_size(*image.size, side)
            corner, sides = random_box((height, width), preprocessing.size, self._crop, rng)
            pixels = preprocessing.resize_box(image, side, corner, sides)
        if self._flips and rng.random() < 0.5:
            pixels = pixels[..., ::-1].copy()
        return self._of_image.change_pixels(torch.from_numpy(pixels), rng).numpy()


def stream_splits(
    splits: Mapping[str, Split],
    preprocessing: Preprocessing,
    augment: str,
    *,
    workers: int | None,
    folder: Path,
    skip_corrupt: bool,
    callback: Callback,
) -> tuple[dict[str, Examples], list[str]]:
    """Check every image of all splits, and return the splits as streams.

    Args:
        splits: The images of each split.
        preprocessing: Preprocessing of the backbone.
        augment: Text of the augmentation of training images.
        workers: Number of worker processes. Default: one for each core, at most 8.
        folder: Folder for what is computed from the images and too large for memory.
        skip_corrupt: True leaves unreadable images out.
        callback: Receiver of progress.

    Returns:
        The splits, and notes about the images.

    Raises:
        DataError: Images cannot be used. The message names all of them.
    """
    augmentation = None if augment == "none" else StreamAugmentation(augment, preprocessing)
    loader = ImageLoader(
        [split.images for split in splits.values()],
        preprocessing,
        augmentation,
        default_workers() if workers is None else workers,
    )
    start, streamed, notes, errors = 0, dict[str, Examples](), list[str](), list[str]()
    for name, split in splits.items():
        positions = np.arange(start, start + len(split))
        start += len(split)
        try:
            progress = partial(callback.on_data_progress, f"{name}, checking")
            streamed[name], found = _check(loader, split, positions, folder / name, augment, skip_corrupt, progress)
        except DataError as error:
            errors.append(f"{name}: {error}")
            continue
        notes += [f"{name}: {note}" for note in found]
    if errors:
        raise DataError("\n".join(errors))
    return streamed, notes


def _check(
    loader: ImageLoader,
    split: Split,
    positions: NDArray[np.int64],
    folder: Path,
    augment: str,
    skip_corrupt: bool,
    progress: Progress,
) -> tuple[Examples, list[str]]:
    """Decode every image of a split once, so that every fault is named before training."""
    batches = list(iter_batches(np.arange(len(split)), _BATCH))
    requests = [BatchRequest(positions[indices]) for indices in batches]
    loader.plan(requests)
    digest = hashlib.sha256()
    irregular: dict[int, list[str]] = {}
    faults: dict[int, str] = {}
    for indices, request in zip(batches, requests, strict=True):
        batch = loader.load(request)
        irregular.update({int(indices[i]): found for i, found in batch.notes.items()})
        faults.update({int(indices[i]): fault for i, fault in batch.faults.items()})
        digest.update(np.delete(batch.pixels, list(batch.faults), axis=0).data)
        progress(int(indices[-1]) + 1, len(split))
    dropped = describe_dropped(split, faults, skip_corrupt)
    kept = np.delete(np.arange(len(split)), list(faults))
    left = split.select(kept) if faults else split
    notes = describe_notes(split, irregular, len(np.setdiff1d(split.strata, left.strata)))
    images = StreamedImages(loader, positions[kept], left.names, digest.digest(), folder, augment)
    examples = Examples(images, left.labels, groups=left.groups)
    return examples, [*notes, *(f"left out {name}" for name in dropped)]
