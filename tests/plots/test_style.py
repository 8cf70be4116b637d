"""One style for every figure: colors, markers, ticks and line breaks."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from vpt.methods.registry import METHODS
from vpt.plots.style import (
    BLUE,
    COLORS,
    GREEN,
    METHOD_MARKS,
    PURPLE,
    VERMILLION,
    format_tick,
    method_styles,
    series_styles,
    wrap,
)

PAPERS = ("#ffffff", "#16181a")  # of the pages, light and dark
# Machado et al. (2009), severity 1.0: linear RGB as a dichromat sees it.
DEFICIENCIES = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


def linear(color: str) -> np.ndarray:
    values = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def luminance(color: str) -> float:
    return float(linear(color) @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("paper", PAPERS)
def test_colors_of_families_stand_out_from_light_and_dark_paper(paper: str) -> None:
    for color in (BLUE, VERMILLION, GREEN, PURPLE):
        low, high = sorted((luminance(color), luminance(paper)))
        assert (high + 0.05) / (low + 0.05) >= 3, color


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_colors_as_a_dichromat_sees_them_differ(deficiency: str) -> None:
    matrix = np.array(DEFICIENCIES[deficiency])
    seen = {color: np.clip(matrix @ linear(color), 0, 1) ** (1 / 2.4) for color in COLORS}
    distances = {pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]]) for pair in combinations(COLORS, 2)}
    assert min(distances.values()) > 0.12, min(distances, key=distances.__getitem__)


def test_method_marks_of_every_method_are_set_and_differ() -> None:
    assert METHODS.keys() <= METHOD_MARKS.keys()
    assert len(set(METHOD_MARKS.values())) == len({marker for _, marker in METHOD_MARKS.values()}) == len(METHOD_MARKS)


def test_method_styles_of_rows_differ_in_more_than_color() -> None:
    texts = ("vpt(length=4)", "vpt(length=50)", "vpt + bias", "lora(rank=4) + bias", "linear", "mine(a=1)", "full")
    styles = method_styles({f"row {i}": text for i, text in enumerate(texts)})
    assert len({(style["marker"], style["fillstyle"]) for style in styles.values()}) == len(texts) - 1  # two sums
    assert styles["row 0"]["color"] == styles["row 1"]["color"] == styles["row 2"]["color"] == BLUE
    assert styles["row 3"]["color"] == GREEN and styles["row 2"]["marker"] == styles["row 3"]["marker"] == "P"
    assert len({styles[f"row {i}"]["linestyle"] for i in range(3)}) == 3
    assert method_styles({"a": "prefix(length=2)"})["a"]["marker"] == method_styles({"b": "prefix"})["b"]["marker"]


def test_series_styles_of_77_series_differ() -> None:
    assert len({tuple(style.values()) for style in series_styles(77)}) == 77


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.6, "0.6"), (1e-6, "0.000001"), (1234567.0, "1,234,567"), (-2, "−2"), (1.0, "1"), (0.30000000000000004, "0.3")],
)
def test_format_tick_writes_numbers_as_people_do(value: float, text: str) -> None:
    assert format_tick(value) == text


def test_wrap_breaks_and_cuts_text() -> None:
    assert wrap("one two three four", 1, points=10, lines=2) == "one two\nthree four"
    assert wrap("one two three four five six seven", 1, lines=2) == "one two\nthree four…"
    assert wrap("$5 a\nb", 5) == r"\$5 a" + "\nb"
