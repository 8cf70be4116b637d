"""Random scenes of the built-in tasks: counting, position, orientation and distance."""

from collections.abc import Callable

import numpy as np

from vpt.data.synthetic import drawing
from vpt.data.synthetic.drawing import FloatArray, ImageArray, IntArray, Scene, random_colors

COUNTS = 6
COLUMNS = 8
DIRECTIONS = 8
RANGES = 6
NEAR, FAR = 2.0, 12.0  # meters
CAMERA_HEIGHT = 1.1  # meters above the plane; the focal length of the camera is one image side


def count_scene(n: int, rng: np.random.Generator) -> tuple[Scene, IntArray]:
    """Return scenes of one to six balls and up to three blocks. The label is the number of balls minus one.

    Args:
        n: Number of scenes.
        rng: Random generator.

    Returns:
        The scenes, and labels, int64 (n,).
    """
    labels = _balanced_labels(n, COUNTS, rng)
    slots = np.arange(COUNTS + 3)
    kind = np.where(slots <= labels[:, None], drawing.BALL, drawing.NONE)
    blocks = (slots >= COUNTS) & (slots < COUNTS + rng.integers(0, 4, (n, 1)))
    kind = np.where(blocks, drawing.BLOCK, kind)
    radius = rng.uniform(0.06, 0.13, kind.shape).astype(np.float32)
    extent = np.where(kind == drawing.NONE, 0, radius).astype(np.float32)  # an absent object must not take space
    x, y = drawing.non_overlapping_centers(rng, extent, margin=0.01)
    return Scene(kind, x, y, radius, np.zeros_like(radius), random_colors(rng, *kind.shape)), labels


def position_scene(n: int, rng: np.random.Generator) -> tuple[Scene, IntArray]:
    """Return scenes of a heart, two balls, two blocks and a rod. The label is the column of the heart, one of eight.

    Args:
        n: Number of scenes.
        rng: Random generator.

    Returns:
        The scenes, and labels, int64 (n,).
    """
    labels = _balanced_labels(n, COLUMNS, rng)
    kinds = (drawing.BALL, drawing.BALL, drawing.BLOCK, drawing.BLOCK, drawing.ROD, drawing.HEART)
    kind, x, y, radius = _random_objects(n, kinds, 0.08, rng)
    x[:, -1] = (labels + rng.uniform(0.1, 0.9, n)) / COLUMNS
    radius[:, -1] = rng.uniform(0.09, 0.14, n)
    return Scene(kind, x, y, radius, _random_angles(rng, kind.shape), random_colors(rng, *kind.shape)), labels


def orientation_scene(n: int, rng: np.random.Generator) -> tuple[Scene, IntArray]:
    """Return scenes of a kite, two balls, a block and two rods. The label is the direction of the kite, one of eight.

    Args:
        n: Number of scenes.
        rng: Random generator.

    Returns:
        The scenes, and labels, int64 (n,).
    """
    labels = _balanced_labels(n, DIRECTIONS, rng)
    kinds = (drawing.BALL, drawing.BALL, drawing.BLOCK, drawing.ROD, drawing.ROD, drawing.KITE)
    kind, x, y, radius = _random_objects(n, kinds, 0.05, rng)
    angle = _random_angles(rng, kind.shape)
    radius[:, -1] = rng.uniform(0.16, 0.28, n)
    x[:, -1], y[:, -1] = rng.uniform(0.28, 0.72, (2, n))
    angle[:, -1] = (labels + rng.uniform(-0.4, 0.4, n)) * (360 / DIRECTIONS)
    return Scene(kind, x, y, radius, angle, random_colors(rng, *kind.shape)), labels


def distance_scene(n: int, rng: np.random.Generator) -> tuple[Scene, IntArray, FloatArray, FloatArray]:
    """Return scenes of balls and blocks of different sizes on a plane. The label is the distance of the nearest object.

    Args:
        n: Number of scenes.
        rng: Random generator.

    Returns:
        The scenes; labels, int64 (n,), each one of six ranges; distances in meters, (n, 3), farthest first; and heights
        of the horizon, (n,).
    """
    labels = _balanced_labels(n, RANGES, rng)
    ratio = FAR / NEAR  # ranges are equal steps of the logarithm, like sizes in the image
    closest = NEAR * ratio ** ((labels + rng.uniform(0.05, 0.95, n)) / RANGES)
    behind = closest[:, None] * (1.1 + rng.exponential(0.6, (n, 2)))
    distance = np.concatenate([np.sort(behind, axis=1)[:, ::-1], closest[:, None]], axis=1)
    kind = rng.choice(np.array([drawing.BALL, drawing.BLOCK]), distance.shape)
    horizon = rng.uniform(0.25, 0.4, n)
    radius = rng.uniform(0.25, 0.45, distance.shape) / distance
    x, y = rng.uniform(0.1, 0.9, distance.shape), horizon[:, None] + CAMERA_HEIGHT / distance - radius
    floats = [values.astype(np.float32) for values in (x, y, radius, np.zeros(kind.shape))]
    scene = Scene(kind, floats[0], floats[1], floats[2], floats[3], random_colors(rng, *kind.shape))
    return scene, labels, distance.astype(np.float32), horizon.astype(np.float32)


def scene_generator(
    make_scene: Callable[[int, np.random.Generator], tuple[Scene, IntArray]],
) -> Callable[[int, np.random.Generator, int], tuple[ImageArray, IntArray]]:
    """Return a function that draws scenes over marble.

    Args:
        make_scene: Function (n, generator) that returns scenes and labels.

    Returns:
        Function (n, generator, size) that returns images and labels.
    """

    def generate_images(n: int, rng: np.random.Generator, size: int) -> tuple[ImageArray, IntArray]:
        scene, labels = make_scene(n, rng)
        return drawing.add_noise(rng, drawing.render(scene, drawing.marble_texture(rng, n, size))), labels

    return generate_images


def generate_distance(n: int, rng: np.random.Generator, size: int) -> tuple[ImageArray, IntArray]:
    """Return images of `distance_scene` on a furrowed plane under a sky.

    Args:
        n: Number of images.
        rng: Random generator.
        size: Image side in pixels.

    Returns:
        uint8 (n, size, size, 3), and labels, int64 (n,).
    """
    scene, labels, _, horizon = distance_scene(n, rng)
    # (n, size, 1), distance of a pixel row below the horizon
    below = ((np.arange(size, dtype=np.float32) + 0.5) / size)[:, None] - horizon[:, None, None]
    depth = CAMERA_HEIGHT / np.maximum(below, 0.01)
    across = (np.arange(size, dtype=np.float32) / size - 0.5) * depth
    furrows = np.sin(3 * np.cos(turn := rng.uniform(0, np.pi, (n, 1, 1))) * across + 3 * np.sin(turn) * depth)
    # Distant furrows are finer than a pixel: fade them out to avoid aliasing.
    furrows = (0.12 * furrows * np.clip(below * 5, 0, 1))[..., None].astype(np.float32)
    ground = random_colors(rng, n, 1)[:, :, None] * 0.7 + 0.15 + furrows
    sky = 0.4 + 0.6 * drawing.marble_texture(rng, n, size)
    return drawing.add_noise(rng, drawing.render(scene, np.where(below[..., None] > 0, ground, sky))), labels


def _balanced_labels(n: int, classes: int, rng: np.random.Generator) -> IntArray:
    """Return labels (n,) in random order. The numbers of images per class differ by at most one."""
    return rng.permutation(np.arange(n, dtype=np.int64) % classes)


def _random_objects(
    n: int, kinds: tuple[int, ...], margin: float, rng: np.random.Generator
) -> tuple[IntArray, FloatArray, FloatArray, FloatArray]:
    """Return kinds, x, y and radii (n, len(kinds)) of objects at random positions, which may overlap."""
    kind = np.tile(np.array(kinds), (n, 1))
    radius = rng.uniform(0.06, 0.13, kind.shape).astype(np.float32)
    x, y = rng.uniform(margin, 1 - margin, (2, *kind.shape)).astype(np.float32)
    return kind, x, y, radius


def _random_angles(rng: np.random.Generator, shape: tuple[int, ...]) -> FloatArray:
    return rng.uniform(0, 360, shape).astype(np.float32)
