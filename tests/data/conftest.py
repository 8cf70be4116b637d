"""Tiny images, each with bytes of its own."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Protocol

import pytest
from PIL import Image


class Draw(Protocol):
    def __call__(self, *paths: str, color: tuple[int, int, int] | None = None) -> Path: ...


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Write a 10 x 12 image to each path below the returned root; a new color each, unless one is given."""
    fresh = count(1)

    def draw(*paths: str, color: tuple[int, int, int] | None = None) -> Path:
        for path in paths:
            number = next(fresh)
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (10, 12), color or (number % 256, number // 256, 7)).save(file)
        return tmp_path

    return draw
