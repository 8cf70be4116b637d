"""Colors of the classes of masks: those that the authors of a dataset publish, else colors far from each other."""

import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vpt.data.masks.schemes import LABEL_SCHEMES, palette

_COLORS: dict[str, list[str]] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
_SHADES = (1.0, 0.6, 0.35)  # of the colors, once they are used up


# What a reader sees: linear RGB with normal sight, and as a protanope and a deuteranope (Machado et al., 2009).
_SIGHTS = np.array(
    [
        np.eye(3),
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    ]
)


def class_colors(classes: Sequence[str], chosen: Sequence[str] | None = None) -> NDArray[np.uint8]:
    """Return the color of each class.

    Without `chosen`, the colors depend on the names and the order of the classes alone.

    Args:
        classes: Names of the classes. Those of a public dataset have its published colors.
        chosen: Colors that a tuned file has for them, such as "0072b2". Default: none.

    Returns:
        uint8 (classes, 3), all different for up to 256 classes but for two of ADE20K.
    """
    colors = np.array([list(bytes.fromhex(color)) for color in chosen or _COLORS[publisher(classes) or "other"]])
    if len(classes) > len(_SHADES) * len(colors):
        return palette(len(classes))
    index = np.arange(len(classes))
    shades = np.array(_SHADES)[index // len(colors)]
    shaded: NDArray[np.uint8] = (colors[index % len(colors)] * shades[:, None]).round().astype(np.uint8)
    return shaded


def arrange_colors(classes: Sequence[str], borders: NDArray[np.int64]) -> tuple[str, ...]:
    """Choose the colors so that classes that adjoin have colors far apart, also for readers with color blindness.

    Args:
        classes: Names of the classes.
        borders: Length of the border between each two classes, (classes, classes), as `count_borders` returns.

    Returns:
        Colors such as "0072b2", a permutation of `class_colors`.
    """
    colors = class_colors(classes)
    count = len(colors)
    nearness = (0.01 + _distances(colors)) ** -2.0
    weights, chosen = np.log1p(borders), np.arange(count)  # the logarithm: short borders count, too
    improved = True
    while improved:  # exchange two colors as long as that helps; every exchange lowers the sum, so it ends
        improved = False
        for i in range(count):
            near = nearness[np.ix_(chosen, chosen)]
            changes = ((weights[i] - weights) * (near - near[i])).sum(1)  # of the sum, by exchanging i with each class
            changes -= 2 * weights[i] * (near[i, i] - near[i])  # the distance of the two stays
            j = int(changes.argmin())
            if changes[j] < -1e-9:
                chosen[[i, j]] = chosen[[j, i]]
                improved = True
    return tuple(bytes(color).hex() for color in colors[chosen])


def count_borders(mask: NDArray[np.integer], num_classes: int) -> NDArray[np.int64]:
    """Return how many pixels of each class adjoin pixels of each other class.

    Args:
        mask: Class numbers (height, width); others stand for no class.
        num_classes: Number of classes.

    Returns:
        A symmetric matrix (classes, classes) with a diagonal of 0.
    """
    total = np.zeros((num_classes, num_classes), np.int64)
    for one, other in ((mask[1:], mask[:-1]), (mask[:, 1:], mask[:, :-1])):
        border = (one != other) & (one < num_classes) & (other < num_classes)
        pairs = one[border].astype(np.int64) * num_classes + other[border]
        total += np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
    return total + total.T


def publisher(classes: Sequence[str]) -> str | None:
    """Return the name of the dataset whose authors publish colors for these classes, or None."""
    return next((name for name, scheme in LABEL_SCHEMES.items() if scheme.classes == tuple(classes)), None)


def _distances(colors: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the distance of each two colors to the reader who tells them apart worst, (colors, colors)."""
    values = colors / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.einsum("sij,cj->sci", _SIGHTS, linear), 0, 1) ** (1 / 2.4)
    distances: NDArray[np.float64] = np.linalg.norm(seen[:, :, None] - seen[:, None], axis=3).min(0)
    return distances
