"""Wording of numbers."""

from __future__ import annotations

import pytest

from vpt.core.text import begin_sentence, format_number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0123456, "0.01235"), (41.5346, "41.53"), (-999.4, "-999.4"), (1234.56, "1235"), (1700000123.4, "1700000123"),
        (-86400.0, "-86400"), (3e20, "3e+20"), (0.0, "0"),
    ],
)  # fmt: skip
def test_format_number_has_four_digits_and_the_whole_number(value: float, text: str) -> None:
    assert format_number(value) == text


@pytest.mark.parametrize(
    ("text", "heading"),
    [
        ("loss", "Loss"), ("top-1", "Top-1"), ("mean IoU", "Mean IoU"), ("mIoU", "mIoU"), ("mAP", "mAP"), ("R²", "R²"),
        ("val and test apart", "Val and test apart"), ("", ""),
    ],
)  # fmt: skip
def test_begin_sentence_keeps_names_that_have_capitals_inside(text: str, heading: str) -> None:
    assert begin_sentence(text) == heading
