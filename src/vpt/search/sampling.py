"""Which of the images a search takes: the labels that may be used, and a stratified share of them."""

from typing import Any

import numpy as np

from vpt.data.dataset import Dataset, Split
from vpt.data.splits import stratified_subset
from vpt.tasks.classification.config import ClassificationOptions
from vpt.training.job import Job


def labeled_images(dataset: Dataset, job: Job) -> Split:
    """Return the images of train and val that a job may learn and choose from.

    Args:
        dataset: The images of `list_images`.
        job: The job, with `images_per_class` and `train_fraction`.

    Returns:
        The images.
    """
    return limit_images(dataset.trainval(), dataset, job, 1.0) if is_limited(job) else dataset.trainval()


def choose_subset(dataset: Dataset, name: str, share: float, seed: int) -> Split:
    """Return a stratified share of a split.

    Args:
        dataset: The images.
        name: Name of the split.
        share: The share, above 0 and at most 1.
        seed: Seed of the choice.

    Returns:
        The images. Test images that are fewer than the classes are not stratified.
    """
    split = dataset.splits[name]
    if not len(split) or share == 1:
        return split
    if name == "test" and share * len(split) < len(dataset.classes):  # of which not all can have an image
        count = max(1, round(share * len(split)))
        return split.select(np.sort(np.random.default_rng(seed).permutation(len(split))[:count]))
    return stratified_subset(split, dataset.classes, share, seed)


def is_limited(job: Job) -> bool:
    """Return whether options leave out labels of training images.

    Args:
        job: The job.

    Returns:
        True with `images_per_class`, or a `train_fraction` below 1.
    """
    assert isinstance(job.options, ClassificationOptions)
    return job.options.images_per_class is not None or job.options.train_fraction < 1


def limits_of(job: Job, share: float, per_class: int | None) -> dict[str, Any]:
    """Return the options that select a share of the training images of a job, or some of each class.

    Args:
        job: The job, with options that may limit them already.
        share: The share.
        per_class: Images of each class, in place of the share; None takes the share.

    Returns:
        "train_fraction", and "images_per_class" where they limit.
    """
    options = job.options
    assert isinstance(options, ClassificationOptions)
    if per_class is not None:
        least = min(per_class, options.images_per_class or per_class)
        return {"images_per_class": least, "train_fraction": options.train_fraction}
    limits: dict[str, Any] = {"train_fraction": options.train_fraction * share}
    if options.images_per_class is not None:
        limits["images_per_class"] = max(1, round(options.images_per_class * share))
    return limits


def limit_images(images: Split, dataset: Dataset, job: Job, share: float, per_class: int | None = None) -> Split:
    """Return the training images that `limits_of` leaves.

    Args:
        images: The training images.
        dataset: The dataset of their classes.
        job: The job.
        share: As in `limits_of`.
        per_class: As in `limits_of`. Default: None.

    Returns:
        The images.
    """
    limits = limits_of(job, share, per_class)
    seed, limit = job.config.training.seed, limits.get("images_per_class")
    return stratified_subset(images, dataset.classes, limits["train_fraction"], seed, limit)
