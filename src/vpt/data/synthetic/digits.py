"""Images of the built-in tasks made from the handwritten digits of scikit-learn."""

import numpy as np
from PIL import Image

from vpt.data.synthetic.drawing import ImageArray, IntArray, marble_texture
from vpt.errors import DataError

NOISE = 0.25  # standard deviation, of a range of 1


def generate_digits(n: int, rng: np.random.Generator, size: int) -> tuple[ImageArray, IntArray]:
    """Return 8x8 scans, enlarged, white on black.

    Args:
        n: Number of images.
        rng: Random generator.
        size: Image side in pixels.

    Returns:
        uint8 (n, size, size, 3), and labels, int64 (n,).
    """
    scans, labels = _sample_scans(n, rng)
    large = [np.asarray(scan.resize((size, size), Image.Resampling.BICUBIC)) for scan in scans]
    return np.repeat(np.stack(large)[..., None], 3, axis=3), labels


def generate_numerals(n: int, rng: np.random.Generator, size: int) -> tuple[ImageArray, IntArray]:
    """Return the same scans rotated, scaled and moved, in light colors on a dark, cloudy and noisy background.

    Args:
        n: Number of images.
        rng: Random generator.
        size: Image side in pixels.

    Returns:
        uint8 (n, size, size, 3), and labels, int64 (n,).
    """
    scans, labels = _sample_scans(n, rng)
    scale = rng.uniform(0.5, 0.8, n)  # fraction of the image side
    center = 0.5 + rng.uniform(-0.4, 0.4, (n, 2)) * (1 - scale[:, None])
    angle = rng.uniform(-20, 20, n) * np.pi / 180
    masks = np.empty((n, size, size, 1), np.float32)
    for i, scan in enumerate(scans):
        step = 8 / (scale[i] * size)  # scan pixels per image pixel
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
    """Return real 8x8 scans and their labels. Every prefix contains the ten digits in nearly equal numbers."""
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
