"""Built-in tasks without a download: synthetic scenes, and the handwritten digits of scikit-learn.

The scenes resemble the structured group of VTAB: counting, position, orientation and distance. A seed determines
every image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vpt.core.text import did_you_mean
from vpt.data.drawing import ImageArray, IntArray
from vpt.data.synthetic_digits import generate_digits, generate_numerals
from vpt.data.synthetic_scenes import (
    COLUMNS,
    COUNTS,
    DIRECTIONS,
    FAR,
    NEAR,
    RANGES,
    count_scene,
    generate_distance,
    orientation_scene,
    position_scene,
    scene_generator,
)
from vpt.errors import DataError


@dataclass(frozen=True)
class SyntheticTask:
    """A built-in task.

    Args:
        name: Name of the task.
        classes: Class names, in the order of the labels.
        description: What is to be recognized, for `vpt list tasks`.
        generate: Function (n, generator, size) that returns uint8 (n, size, size, 3) and int64 (n,).
        train: Number of training images. Default: 800.
        val: Number of validation images. Default: 200.
        test: Number of test images. Default: 1000.
    """

    name: str
    classes: tuple[str, ...]
    description: str
    generate: Callable[[int, np.random.Generator, int], tuple[ImageArray, IntArray]]
    train: int = 800
    val: int = 200
    test: int = 1000


def generate(task: str, n: int, seed: int, size: int = 48) -> tuple[ImageArray, IntArray]:
    """Return the first images of a task. The same arguments give the same bytes.

    Args:
        task: A name in `TASKS`.
        n: Number of images, at least 1.
        seed: Seed, at least 0.
        size: Image side in pixels, at least 16. Default: 48.

    Returns:
        Images, uint8 (n, size, size, 3), and labels, int64 (n,).

    Raises:
        DataError: An argument is out of range, or the task is unknown.
    """
    definition = _find_task(task)
    if n < 1 or size < 16:
        raise DataError(f"cannot draw {n} images of {size} px; ask for at least 1 image of at least 16 px")
    if seed < 0:
        raise DataError(f"the seed is {seed}; give 0 or more")
    # The index of the task gives tasks with the same seed different random numbers.
    return definition.generate(n, np.random.default_rng([seed, list(TASKS).index(task)]), size)


def generate_splits(task: str, seed: int, size: int = 48) -> dict[str, tuple[ImageArray, IntArray]]:
    """Return the splits of a task. They share no image. An unknown task raises DataError.

    Args:
        task: A name in `TASKS`.
        seed: Seed, at least 0.
        size: Image side in pixels. Default: 48.

    Returns:
        Split ("train", "val", "test") to images and labels.
    """
    definition = _find_task(task)
    images, labels = generate(task, definition.train + definition.val + definition.test, seed, size)
    boundaries = (definition.train, definition.train + definition.val)
    names = ("train", "val", "test")
    return dict(zip(names, zip(np.split(images, boundaries), np.split(labels, boundaries), strict=True), strict=True))


def _find_task(name: str) -> SyntheticTask:
    if name not in TASKS:
        raise DataError(f"there is no built-in task {name!r}; {did_you_mean(name, TASKS)}")
    return TASKS[name]


_EDGES = NEAR * (FAR / NEAR) ** (np.arange(RANGES + 1) / RANGES)

TASKS: dict[str, SyntheticTask] = {
    task.name: task
    for task in (
        SyntheticTask(
            name="count",
            classes=tuple(str(k + 1) for k in range(COUNTS)),
            description="number of balls, among blocks",
            generate=scene_generator(count_scene),
        ),
        SyntheticTask(
            name="position",
            classes=tuple(f"column {k + 1}" for k in range(COLUMNS)),
            description="column of the heart, one of eight, among balls, blocks and a rod",
            generate=scene_generator(position_scene),
        ),
        SyntheticTask(
            name="orientation",
            classes=tuple(f"{k * 360 // DIRECTIONS} degrees" for k in range(DIRECTIONS)),
            description="direction of the kite, clockwise from the right, among balls, a block and rods",
            generate=scene_generator(orientation_scene),
        ),
        SyntheticTask(
            name="distance",
            classes=tuple(f"{_EDGES[k]:.1f}-{_EDGES[k + 1]:.1f} m" for k in range(RANGES)),
            description="distance of the nearest of three objects on a plane",
            generate=generate_distance,
        ),
        SyntheticTask(
            name="digits",
            classes=tuple(str(k) for k in range(10)),
            train=400,
            val=100,
            test=1297,
            description="scikit-learn's handwritten digits, real scans of 8x8 pixels, enlarged",
            generate=generate_digits,
        ),
        SyntheticTask(
            name="numerals",
            classes=tuple(str(k) for k in range(10)),
            train=100,
            val=20,
            test=1000,
            description="the same scans rotated, moved and colored, on a cloudy and noisy background; few for training",
            generate=generate_numerals,
        ),
    )
}
