"""Drawing of synthetic scenes with NumPy.

Lengths are fractions of the image side. x points to the right and y points down, both from 0 to 1.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
ImageArray = NDArray[np.uint8]
IntArray = NDArray[np.int64]

NONE, BALL, BLOCK, HEART, KITE, ROD = range(6)

_CHUNK = 64  # images drawn at a time, so that the arrays stay in the CPU cache


@dataclass(frozen=True, eq=False)
class Scene:
    """A batch of n scenes of up to k objects. Later objects cover earlier ones.

    Args:
        kind: int64 (n, k), one of NONE, BALL, BLOCK, HEART, KITE, ROD.
        x: Centers (n, k), fraction of the image width.
        y: Centers (n, k), fraction of the image height.
        radius: Half sizes (n, k), fraction of the image side.
        angle: Degrees (n, k), clockwise from the right.
        color: RGB (n, k, 3) in 0..1.
    """

    kind: IntArray
    x: FloatArray
    y: FloatArray
    radius: FloatArray
    angle: FloatArray
    color: FloatArray


def random_colors(rng: np.random.Generator, n: int, k: int) -> FloatArray:
    """Return random colors.

    Args:
        rng: Random generator.
        n: Number of images.
        k: Colors per image.

    Returns:
        RGB (n, k, 3) in 0..1.
    """
    return rng.uniform(0, 1, (n, k, 3)).astype(np.float32)


def non_overlapping_centers(
    rng: np.random.Generator, radius: FloatArray, margin: float = 0.0, tries: int = 60
) -> tuple[FloatArray, FloatArray]:
    """Return random centers of circles that stay inside the image and do not overlap.

    Args:
        rng: Random generator.
        radius: Radii (n, k), fraction of the image side.
        margin: Minimum gap between circles, fraction of the image side. Default: 0.
        tries: Maximum number of draws per circle. After that, the draw with the largest gap is used. Default: 60.

    Returns:
        x and y, each (n, k).
    """
    n, k = radius.shape
    centers = np.zeros((n, k, 2), dtype=np.float32)
    for slot in range(k):
        best = np.full(n, -np.inf)
        for _ in range(tries):
            pending = np.flatnonzero(best < margin)
            if not len(pending):
                break
            radii = radius[pending, slot]
            candidates = rng.uniform(radii[:, None], 1 - radii[:, None], (len(pending), 2))
            distances = np.hypot(*np.moveaxis(candidates[:, None] - centers[pending, :slot], -1, 0))
            gap = (distances - radii[:, None] - radius[pending, :slot]).min(axis=1, initial=1.0)
            better = gap > best[pending]
            centers[pending[better], slot] = candidates[better]
            best[pending] = np.maximum(best[pending], gap)
    return centers[..., 0], centers[..., 1]


def marble_texture(rng: np.random.Generator, n: int, size: int) -> FloatArray:
    """Return random backgrounds: two colors blended by a sum of plane waves with modulated phase.

    Args:
        rng: Random generator.
        n: Number of images.
        size: Image side in pixels.

    Returns:
        RGB (n, size, size, 3) in about 0..1.
    """
    y, x = (np.mgrid[:size, :size] / size).astype(np.float32)
    field = np.zeros((n, size, size), dtype=np.float32)
    bend = 0.0
    for _ in range(4):
        fx, fy = rng.normal(0, 2.5, (2, n, 1, 1)).astype(np.float32)
        phase = rng.uniform(0, 2 * np.pi, (n, 1, 1)).astype(np.float32)
        wave = np.sin(2 * np.pi * (fx * x + fy * y) + phase + bend)
        field += wave
        bend = 1.5 * wave
    first, second = random_colors(rng, n, 2).transpose(1, 0, 2)[:, :, None, None]
    texture: FloatArray = first + (second - first) * (field[..., None] / 8 + 0.5)
    return texture


def render(scene: Scene, background: FloatArray) -> FloatArray:
    """Draw scenes over backgrounds.

    Args:
        scene: n scenes.
        background: RGB (n, size, size, 3) in 0..1.

    Returns:
        A new array of the same shape.
    """
    image = background.copy()
    for start in range(0, len(image), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        for slot in range(scene.kind.shape[1]):
            for kind in np.unique(scene.kind[chunk, slot]):
                if kind != NONE:
                    rows = start + np.flatnonzero(scene.kind[chunk, slot] == kind)
                    _render_object(image, scene, rows, slot, int(kind))
    return image


def add_noise(rng: np.random.Generator, image: FloatArray, noise: float = 0.03) -> ImageArray:
    """Add Gaussian noise and convert to uint8.

    Args:
        rng: Random generator.
        image: RGB (n, size, size, 3) in 0..1.
        noise: Standard deviation. Default: 0.03.

    Returns:
        uint8 of the same shape.
    """
    noisy = image + noise * rng.standard_normal(image.shape, dtype=np.float32)
    return (np.clip(noisy, 0, 1) * 255).round().astype(np.uint8)


def _render_object(image: FloatArray, scene: Scene, rows: IntArray, slot: int, kind: int) -> None:
    size = image.shape[1]
    y, x = ((np.mgrid[:size, :size] + 0.5) / size).astype(np.float32)
    radius = scene.radius[rows, slot, None, None]
    angle = np.deg2rad(scene.angle[rows, slot, None, None])
    dx, dy = (x - scene.x[rows, slot, None, None]) / radius, (y - scene.y[rows, slot, None, None]) / radius
    u, v = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    # `signed_distance` is in radii, negative inside; `shading` multiplies the color
    if kind == BALL:
        signed_distance = np.hypot(dx, dy) - 1
        shading = 0.45 + 0.75 * np.clip(1 - np.hypot(dx + 0.4, dy + 0.4) / 1.5, 0, 1)
    elif kind == BLOCK:
        signed_distance = np.maximum(np.abs(dx), np.abs(dy)) - 0.85
        shading = np.where(dy < -0.45, 1.25, np.where(dx > 0.4, 0.55, 0.9))
    elif kind == HEART:
        across = np.abs(v)  # the lobes point along +u, the tip along -u
        signed_distance = np.hypot(across, u + 0.2 - 0.65 * np.sqrt(across)) - 0.8
        shading = 1 - 0.25 * u
    elif kind == KITE:  # long and bright toward its tip
        signed_distance = np.maximum(np.abs(v) - 0.45 * (1 - u), np.abs(v) - 0.9 * (u + 1)) * 0.75
        shading = 0.85 + 0.35 * u
    else:
        signed_distance = np.maximum(np.abs(u) - 1, np.abs(v) - 0.16)
        shading = 0.9 + 0.2 * np.sin(9 * u)
    alpha = np.clip(0.5 - signed_distance * radius * size, 0, 1)[..., None]
    object_color = np.clip(scene.color[rows, slot, None, None] * shading[..., None], 0, 1)
    image[rows] += alpha * (object_color - image[rows])
