"""Images of three classes, and searches among them by a simulated clock."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from simulation import SimulatedClock, run, write_images

import vpt
from helpers.segmentation import write_scenes

Search = Callable[..., tuple[vpt.RunResult, SimulatedClock]]


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 60 training and 30 test images, without val."""
    root = tmp_path_factory.mktemp("images")
    write_images(root / "train", 60)
    write_images(root / "test", 30, seed=1)
    return root


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training of few steps is worth its time, and is kept however it does, so that tests are short."""
    monkeypatch.setattr("vpt.search.candidates._MIN_STEPS", 4)
    monkeypatch.setattr("vpt.search.selection._HOPELESS", -float("inf"))


@pytest.fixture
def search(images: Path, tmp_path: Path) -> Search:
    def search_there(data: Any = images, out: str = "a.safetensors", **options: Any) -> Any:
        return run(data, tmp_path / out, **options)

    return search_there
