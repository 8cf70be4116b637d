"""Colors of classes: published ones, and others that differ."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from vpt.data.masks.class_colors import _distances, arrange_colors, class_colors, count_borders
from vpt.data.masks.schemes import LABEL_SCHEMES, palette

# From the label files of their authors.
PUBLISHED = {
    "cityscapes": {"road": (128, 64, 128), "sky": (70, 130, 180), "person": (220, 20, 60), "bicycle": (119, 11, 32)},
    "camvid": {"sky": (128, 128, 128), "road": (128, 64, 128), "car": (64, 0, 128), "bicyclist": (0, 128, 192)},
    "voc": {"background": (0, 0, 0), "aeroplane": (128, 0, 0), "person": (192, 128, 128), "tvmonitor": (0, 64, 128)},
    "ade20k": {"wall": (120, 120, 120), "sky": (6, 230, 230), "tree": (4, 200, 3), "flag": (92, 0, 255)},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_class_colors_of_public_datasets_are_the_published_ones(name: str) -> None:
    classes = LABEL_SCHEMES[name].classes
    colors = dict(zip(classes, map(tuple, class_colors(classes).tolist()), strict=True))
    assert colors.items() >= PUBLISHED[name].items()


def test_class_colors_of_voc_are_those_of_its_formula() -> None:
    assert np.array_equal(class_colors(LABEL_SCHEMES["voc"].classes), palette(21))


def test_class_colors_of_other_classes_are_far_apart() -> None:
    colors = class_colors([f"class {i}" for i in range(12)]).astype(int)
    assert min(np.abs(one - other).sum() for one, other in combinations(colors, 2)) > 80
    assert colors.sum(1).min() > 120  # none is black, which hides the image beneath


@pytest.mark.parametrize("count", [1, 24, 72, 73, 256])
def test_class_colors_of_many_classes_differ(count: int) -> None:
    names = [f"class {i}" for i in range(count)]
    assert len(np.unique(class_colors(names), axis=0)) == count
    assert np.array_equal(class_colors(names), class_colors(names))


def test_arrange_colors_of_adjoining_classes_puts_them_far_apart() -> None:
    names = [f"class {i}" for i in range(30)]  # more than the colors, so that shades of one are near each other
    plain, rng = class_colors(names), np.random.default_rng(0)
    borders = np.zeros((30, 30), np.int64)
    for k in range(29):
        borders[k, k + 1] = borders[k + 1, k] = rng.integers(1, 1000)
    chosen = class_colors(names, arrange_colors(names, borders))
    assert sorted(map(tuple, chosen)) == sorted(map(tuple, plain))
    adjoining = np.arange(29), np.arange(1, 30)
    assert _distances(chosen)[adjoining].min() > 0.35 > 3 * _distances(plain)[adjoining].min()
    assert arrange_colors(names, 0 * borders) == tuple(bytes(color).hex() for color in plain)


def test_count_borders_counts_pixels_beside_another_class() -> None:
    mask = np.array([[0, 0, 1], [2, 255, 1]], np.uint8)
    assert count_borders(mask, 3).tolist() == [[0, 1, 1], [1, 0, 0], [1, 0, 0]]
