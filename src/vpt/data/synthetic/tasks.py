"""Built-in tasks without a download: synthetic scenes, and the handwritten digits of scikit-learn.

The scenes resemble the structured group of VTAB: counting, position, orientation and distance. A seed determines
every image.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from vpt.core.text import did_you_mean
from vpt.data.synthetic import scenes
from vpt.data.synthetic.digits import generate_digits, generate_numerals
from vpt.data.synthetic.drawing import ImageArray, IntArray
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
    images, labels = (values.copy() for values in _generate_all(task, seed, size))
    boundaries = (definition.train, definition.train + definition.val)
    names = ("train", "val", "test")
    return dict(zip(names, zip(np.split(images, boundaries), np.split(labels, boundaries), strict=True), strict=True))


@lru_cache(maxsize=4)  # drawing takes seconds; the arrays of one task take 14 MB
def _generate_all(task: str, seed: int, size: int) -> tuple[ImageArray, IntArray]:
    definition = TASKS[task]
    return generate(task, definition.train + definition.val + definition.test, seed, size)


def _find_task(name: str) -> SyntheticTask:
    if name not in TASKS:
        raise DataError(f"there is no built-in task {name!r}; {did_you_mean(name, TASKS)}")
    return TASKS[name]


_EDGES = scenes.NEAR * (scenes.FAR / scenes.NEAR) ** (np.arange(scenes.RANGES + 1) / scenes.RANGES)
_DIGITS = tuple(map(str, range(10)))
_TASKS = (
    SyntheticTask(
        "count",
        tuple(str(k + 1) for k in range(scenes.COUNTS)),
        "number of balls, among blocks",
        scenes.scene_generator(scenes.count_scene),
    ),
    SyntheticTask(
        "position",
        tuple(f"column {k + 1}" for k in range(scenes.COLUMNS)),
        "column of the heart, one of eight, among balls, blocks and a rod",
        scenes.scene_generator(scenes.position_scene),
    ),
    SyntheticTask(
        "orientation",
        tuple(f"{k * 360 // scenes.DIRECTIONS} degrees" for k in range(scenes.DIRECTIONS)),
        "direction of the kite, clockwise from the right, among balls, a block and rods",
        scenes.scene_generator(scenes.orientation_scene),
    ),
    SyntheticTask(
        "distance",
        tuple(f"{low:.1f}-{high:.1f} m" for low, high in pairwise(_EDGES)),
        "distance of the nearest of three objects on a plane",
        scenes.generate_distance,
    ),
    SyntheticTask(
        "digits",
        _DIGITS,
        "scikit-learn's handwritten digits, real scans of 8x8 pixels, enlarged",
        generate_digits,
        train=400,
        val=100,
        test=1297,
    ),
    SyntheticTask(
        "numerals",
        _DIGITS,
        "the same scans rotated, moved and colored, on a cloudy and noisy background; few for training",
        generate_numerals,
        train=100,
        val=20,
        test=1000,
    ),
)
TASKS: dict[str, SyntheticTask] = {task.name: task for task in _TASKS}
