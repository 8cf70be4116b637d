"""Images of two classes, and a file tuned on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.command_line import SMALL, vpt


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Light discs and light bars on dark noise: 16 images of each of two classes."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:40, :48]
    figures = {"disc": (x - 24) ** 2 + (y - 20) ** 2 < 190, "bars": x % 12 < 6}
    for name, figure in figures.items():
        (root / name).mkdir()
        for i in range(16):
            pixels = rng.integers(0, 90, (40, 48, 3), dtype=np.uint8)
            pixels[figure] += rng.integers(100, 160, 3, dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


@pytest.fixture(scope="session")
def tuned(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tuned file of those photos."""
    out = tmp_path_factory.mktemp("tuned") / "photos.safetensors"
    vpt("tune", photos, "--out", out, *SMALL)
    return out
