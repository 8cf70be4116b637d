"""A miniature ADE20K that several tests read."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.segmentation import write_split


@pytest.fixture(scope="module")
def ade20k(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ADEChallengeData2016")
    write_split(root / "images/training", root / "annotations/training", 6)
    write_split(root / "images/validation", root / "annotations/validation", 2)
    return root
