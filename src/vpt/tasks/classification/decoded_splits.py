"""The splits of a dataset as arrays, which are decoded once."""

from collections.abc import Callable, Mapping
from functools import partial

from vpt.data.dataset import Dataset, Split
from vpt.data.decoding.arrays import DecodedImages
from vpt.data.preprocessing import Preprocessing
from vpt.data.splits import stratified_subset
from vpt.errors import DataError
from vpt.tasks.classification.config import ClassificationOptions
from vpt.training import Callback, Examples
from vpt.training.augmentation import CROP_SCALE, parse_augmentation


def select_splits(dataset: Dataset, train_on: str, options: ClassificationOptions, seed: int) -> dict[str, Split]:
    """Select the images of a job.

    Args:
        dataset: The data.
        train_on: "train" or "trainval".
        options: Options of the job.
        seed: Seed of the selection.

    Returns:
        The images of each split that has some.
    """
    images = dataset.trainval() if train_on == "trainval" else dataset.train
    others = {"test": dataset.test} if train_on == "trainval" else {"val": dataset.val, "test": dataset.test}
    train = stratified_subset(images, dataset.classes, options.train_fraction, seed, options.images_per_class)
    return {"train": train, **{name: split for name, split in others.items() if len(split)}}


def decode_splits(
    splits: Mapping[str, Split],
    preprocessing: Preprocessing,
    train_augment: str,
    decode: Callable[..., DecodedImages],
    callback: Callback,
) -> tuple[dict[str, Examples], list[str]]:
    """Decode the images of all splits.

    Args:
        splits: The images of each split.
        preprocessing: Preprocessing of the backbone.
        train_augment: Text of the augmentation of training images, for whose crops larger images are kept.
        decode: Function such as `vpt.data.decoding.cache.decode_cached`, with its options.
        callback: Receiver of progress.

    Returns:
        The splits, and notes about the images.

    Raises:
        DataError: Images cannot be used. The message names all of them.
    """
    decoded, notes, errors = {}, [], []
    for name, split in splits.items():
        crop = parse_augmentation(train_augment).crop if name == "train" else None
        oversized = None
        try:
            pixels = decode(split, preprocessing, progress=partial(callback.on_data_progress, name))
            if crop is not None:
                side = round(preprocessing.size * CROP_SCALE[crop])
                progress = partial(callback.on_data_progress, f"{name}, larger")
                oversized = decode(split, preprocessing, whole_side=side, progress=progress).whole
        except DataError as error:
            errors.append(f"{name}: {error}")
            continue
        decoded[name] = Examples(pixels.images, pixels.labels, oversized, pixels.groups)
        notes += [f"{name}: {note}" for note in pixels.all_notes]
    if errors:
        raise DataError("\n".join(errors))
    return decoded, notes
