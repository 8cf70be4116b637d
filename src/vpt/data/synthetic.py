"""Tasks that need no download: pictures drawn on the spot, and scikit-learn's handwritten digits.

They follow the structured group of VTAB: how many, where, which way, how far. All are fixed by a seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vpt.core.text import did_you_mean
from vpt.data.drawing import (
    BALL,
    BLOCK,
    HEART,
    KITE,
    NONE,
    ROD,
    FloatArray,
    IntArray,
    Scene,
    add_noise,
    marble_texture,
    non_overlapping_centers,
    random_colors,
    render,
)
from vpt.errors import DataError

ImageArray = NDArray[np.uint8]

COUNTS = 6
COLUMNS = 8
DIRECTIONS = 8
RANGES = 6
NEAR, FAR = 2.0, 12.0  # meters
NOISE = 0.25  # standard deviation, of a range of 1
CAMERA_HEIGHT = 1.1  # meters from the plain up to the camera, whose focal length is one picture side


@dataclass(frozen=True)
class SyntheticTask:
    """One built-in task.

    classes: their names, in the order of the labels.
    train, val, test: images in each split.
    generate: (n, generator, size) -> uint8 (n, size, size, 3) and int64 (n,).
    """

    name: str
    classes: tuple[str, ...]
    train: int
    val: int
    test: int
    description: str
    generate: Callable[[int, np.random.Generator, int], tuple[ImageArray, IntArray]]


def generate(task: str, n: int, seed: int, size: int = 48) -> tuple[ImageArray, IntArray]:
    """The first `n` images of a task: uint8 (n, size, size, 3), and their labels, int64 (n,).

    The same arguments give the same bytes; another `n` or `seed` gives other pictures.
    Raises DataError for an unknown task, for fewer than one image, and for a side below 16 pixels.
    """
    if task not in TASKS:
        raise DataError(f"there is no generated task {task!r}; {did_you_mean(task, TASKS)}")
    if n < 1 or size < 16:
        raise DataError(f"cannot draw {n} images of {size} px; ask for at least 1 image of at least 16 px")
    if seed < 0:
        raise DataError(f"the seed is {seed}; give 0 or more")
    # The task's own number keeps two tasks of one seed from sharing their random numbers.
    return TASKS[task].generate(n, np.random.default_rng([seed, list(TASKS).index(task)]), size)


def generate_splits(task: str, seed: int, size: int = 48) -> dict[str, tuple[ImageArray, IntArray]]:
    """The splits "train", "val" and "test" of a task, each as images and labels.

    They are one draw cut in three, so they share no image.
    """
    if task not in TASKS:
        raise DataError(f"there is no generated task {task!r}; {did_you_mean(task, TASKS)}")
    definition = TASKS[task]
    images, labels = generate(task, definition.train + definition.val + definition.test, seed, size)
    boundaries = (definition.train, definition.train + definition.val)
    names = ("train", "val", "test")
    return dict(zip(names, zip(np.split(images, boundaries), np.split(labels, boundaries), strict=True), strict=True))


def count_scene(n: int, rng: np.random.Generator) -> tuple[Scene, IntArray]:
    """One to six balls among up to three blocks; the label is the number of balls less one."""
    labels = _balanced_labels(n, COUNTS, rng)
    slots = np.arange(COUNTS + 3)
    kind = np.where(slots <= labels[:, None], BALL, NONE)
    blocks = (slots >= COUNTS) & (slots < COUNTS + rng.integers(0, 4, (n, 1)))
    kind = np.where(blocks, BLOCK, kind)
    radius = rng.uniform(0.06, 0.13, kind.shape).astype(np.float32)
    # An absent object must not take room: the picture would be emptier for it.
    x, y = non_overlapping_centers(rng, np.where(kind == NONE, 0, radius).astype(np.float32), margin=0.01)
    return Scene(kind, x, y, radius, np.zeros_like(radius), random_colors(rng, *kind.shape)), labels


def position_scene(n: int, rng: np.random.Generator) -> tuple[Scene, IntArray]:
    """A heart among two balls, two blocks and a rod; the label is the heart's column, one of eight."""
    labels = _balanced_labels(n, COLUMNS, rng)
    kind = np.tile(np.array([BALL, BALL, BLOCK, BLOCK, ROD, HEART]), (n, 1))
    shape = kind.shape
    radius = rng.uniform(0.06, 0.13, shape).astype(np.float32)
    x, y = rng.uniform(0.08, 0.92, (2, *shape)).astype(np.float32)
    x[:, -1] = (labels + rng.uniform(0.1, 0.9, n)) / COLUMNS
    radius[:, -1] = rng.uniform(0.09, 0.14, n)
    return Scene(kind, x, y, radius, _random_angles(rng, shape), random_colors(rng, *shape)), labels


def orientation_scene(n: int, rng: np.random.Generator) -> tuple[Scene, IntArray]:
    """A kite among two balls, a block and two rods; the label is which of eight ways its tip points."""
    labels = _balanced_labels(n, DIRECTIONS, rng)
    kind = np.tile(np.array([BALL, BALL, BLOCK, ROD, ROD, KITE]), (n, 1))
    shape = kind.shape
    radius = rng.uniform(0.06, 0.13, shape).astype(np.float32)
    x, y = rng.uniform(0.05, 0.95, (2, *shape)).astype(np.float32)
    angle = _random_angles(rng, shape)
    radius[:, -1] = rng.uniform(0.16, 0.28, n)
    x[:, -1], y[:, -1] = rng.uniform(0.28, 0.72, (2, n))
    angle[:, -1] = (labels + rng.uniform(-0.4, 0.4, n)) * (360 / DIRECTIONS)
    return Scene(kind, x, y, radius, angle, random_colors(rng, *shape)), labels


def distance_scene(n: int, rng: np.random.Generator) -> tuple[Scene, IntArray, FloatArray, FloatArray]:
    """Balls and blocks of unlike sizes on a plain; the label is the range of the nearest one, one of six.

    Also returns the distances (n, 3) in meters, farthest first, and the height of the horizon (n,).
    """
    labels = _balanced_labels(n, RANGES, rng)
    ratio = FAR / NEAR  # ranges are equal steps of the logarithm, as sizes in the picture are
    closest = NEAR * ratio ** ((labels + rng.uniform(0.05, 0.95, n)) / RANGES)
    behind = closest[:, None] * (1.1 + rng.exponential(0.6, (n, 2)))
    distance = np.concatenate([np.sort(behind, axis=1)[:, ::-1], closest[:, None]], axis=1)
    kind = rng.choice(np.array([BALL, BLOCK]), distance.shape)
    horizon = rng.uniform(0.25, 0.4, n)
    radius = rng.uniform(0.25, 0.45, distance.shape) / distance
    ground_y = horizon[:, None] + CAMERA_HEIGHT / distance
    x = rng.uniform(0.1, 0.9, distance.shape)
    scene = Scene(
        kind=kind,
        x=x.astype(np.float32),
        y=(ground_y - radius).astype(np.float32),
        radius=radius.astype(np.float32),
        angle=np.zeros(kind.shape, dtype=np.float32),
        color=random_colors(rng, *kind.shape),
    )
    return scene, labels, distance.astype(np.float32), horizon.astype(np.float32)


def _scene_generator(
    make_scene: Callable[[int, np.random.Generator], tuple[Scene, IntArray]],
) -> Callable[[int, np.random.Generator, int], tuple[ImageArray, IntArray]]:
    """A scene over marble."""

    def generate_images(n: int, rng: np.random.Generator, size: int) -> tuple[ImageArray, IntArray]:
        scene, labels = make_scene(n, rng)
        return add_noise(rng, render(scene, marble_texture(rng, n, size))), labels

    return generate_images


def _generate_distance(n: int, rng: np.random.Generator, size: int) -> tuple[ImageArray, IntArray]:
    scene, labels, _, horizon = distance_scene(n, rng)
    # (n, size, 1), how far under the horizon a row of pixels lies
    below = ((np.arange(size, dtype=np.float32) + 0.5) / size)[:, None] - horizon[:, None, None]
    depth = CAMERA_HEIGHT / np.maximum(below, 0.01)
    across = (np.arange(size, dtype=np.float32) / size - 0.5) * depth
    furrows = np.sin(3 * np.cos(turn := rng.uniform(0, np.pi, (n, 1, 1))) * across + 3 * np.sin(turn) * depth)
    # Far furrows are finer than a pixel: let them fade rather than flicker.
    furrows = (0.12 * furrows * np.clip(below * 5, 0, 1))[..., None].astype(np.float32)
    ground = random_colors(rng, n, 1)[:, :, None] * 0.7 + 0.15 + furrows
    sky = 0.4 + 0.6 * marble_texture(rng, n, size)
    return add_noise(rng, render(scene, np.where(below[..., None] > 0, ground, sky))), labels


def _generate_digits(n: int, rng: np.random.Generator, size: int) -> tuple[ImageArray, IntArray]:
    """Scans of 8x8 pixels, enlarged, white on black."""
    scans, labels = _sample_scans(n, rng)
    large = [np.asarray(scan.resize((size, size), Image.Resampling.BICUBIC)) for scan in scans]
    return np.repeat(np.stack(large)[..., None], 3, axis=3), labels


def _generate_numerals(n: int, rng: np.random.Generator, size: int) -> tuple[ImageArray, IntArray]:
    """The same scans as if seen outdoors: turned, scaled, moved, light on a dark and cloudy ground, in sensor noise."""
    scans, labels = _sample_scans(n, rng)
    scale = rng.uniform(0.5, 0.8, n)  # of the picture's side
    center = 0.5 + rng.uniform(-0.4, 0.4, (n, 2)) * (1 - scale[:, None])
    angle = rng.uniform(-20, 20, n) * np.pi / 180
    masks = np.empty((n, size, size, 1), np.float32)
    for i, scan in enumerate(scans):
        step = 8 / (scale[i] * size)  # scan pixels per picture pixel
        c, s = step * np.cos(angle[i]), step * np.sin(angle[i])
        x, y = center[i] * size
        affine = (c, s, 4 - c * x - s * y, -s, c, 4 + s * x - c * y)
        turned = scan.transform((size, size), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)
        masks[i, ..., 0] = np.asarray(turned, np.float32) / 255
    ground = rng.uniform(0, 0.45, (n, 1, 1, 3)).astype(np.float32)
    figure = rng.uniform(0.55, 1, (n, 1, 1, 3)).astype(np.float32)
    clouds = 0.15 * (marble_texture(rng, n, size) - 0.5)
    image = ground + clouds + masks * (figure - ground)
    image += rng.normal(0, NOISE, image.shape).astype(np.float32)
    return (image.clip(0, 1) * 255).round().astype(np.uint8), labels


def _sample_scans(n: int, rng: np.random.Generator) -> tuple[list[Image.Image], IntArray]:
    """Real scans of 8x8 pixels and their labels; every prefix holds the ten digits in nearly equal shares."""
    from sklearn.datasets import load_digits  # half a second, for this task only

    scans, truth = load_digits(return_X_y=True)
    if n > len(truth):
        raise DataError(f"{n} digits were asked for and scikit-learn has {len(truth)}; ask for at most {len(truth)}")
    turn = np.zeros(len(truth))
    for digit in range(10):
        of_digit = rng.permutation(np.flatnonzero(truth == digit))
        turn[of_digit] = (np.arange(len(of_digit)) + rng.uniform(0, 1, len(of_digit))) / len(of_digit)
    order = np.argsort(turn, kind="stable")[:n]
    gray = (scans[order].reshape(-1, 8, 8) * (255 / 16)).round().astype(np.uint8)
    return [Image.fromarray(scan) for scan in gray], truth[order].astype(np.int64)


def _balanced_labels(n: int, classes: int, rng: np.random.Generator) -> IntArray:
    """Labels (n,) in random order, every class equally often, give or take one."""
    return rng.permutation(np.arange(n, dtype=np.int64) % classes)


def _random_angles(rng: np.random.Generator, shape: tuple[int, ...]) -> FloatArray:
    return rng.uniform(0, 360, shape).astype(np.float32)


_EDGES = NEAR * (FAR / NEAR) ** (np.arange(RANGES + 1) / RANGES)

TASKS: dict[str, SyntheticTask] = {
    task.name: task
    for task in (
        SyntheticTask(
            name="count",
            classes=tuple(str(k + 1) for k in range(COUNTS)),
            train=800,
            val=200,
            test=1000,
            description="how many balls there are, among blocks",
            generate=_scene_generator(count_scene),
        ),
        SyntheticTask(
            name="position",
            classes=tuple(f"column {k + 1}" for k in range(COLUMNS)),
            train=800,
            val=200,
            test=1000,
            description="which of eight columns holds the heart, among balls, blocks and a rod",
            generate=_scene_generator(position_scene),
        ),
        SyntheticTask(
            name="orientation",
            classes=tuple(f"{k * 360 // DIRECTIONS} degrees" for k in range(DIRECTIONS)),
            train=800,
            val=200,
            test=1000,
            description="which way the kite points, clockwise from the right, among balls, a block and rods",
            generate=_scene_generator(orientation_scene),
        ),
        SyntheticTask(
            name="distance",
            classes=tuple(f"{_EDGES[k]:.1f}-{_EDGES[k + 1]:.1f} m" for k in range(RANGES)),
            train=800,
            val=200,
            test=1000,
            description="how far the nearest of three objects on a plain is",
            generate=_generate_distance,
        ),
        SyntheticTask(
            name="digits",
            classes=tuple(str(k) for k in range(10)),
            train=400,
            val=100,
            test=1297,
            description="scikit-learn's handwritten digits, real scans of 8x8 pixels, enlarged",
            generate=_generate_digits,
        ),
        SyntheticTask(
            name="numerals",
            classes=tuple(str(k) for k in range(10)),
            train=100,
            val=20,
            test=1000,
            description="the same scans turned, moved and colored, on a cloudy ground, in noise; few to learn from",
            generate=_generate_numerals,
        ),
    )
}
