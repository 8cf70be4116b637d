"""Images in memory, and a model tuned on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import vpt
from helpers.brightness import CLASSES, FAST, draw


@pytest.fixture(scope="module")
def data() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    return draw(40)


@pytest.fixture(scope="module")
def result(data: Any, tmp_path_factory: pytest.TempPathFactory) -> vpt.RunResult:
    return vpt.tune(data, tmp_path_factory.mktemp("tuned") / "a.safetensors", classes=CLASSES, **FAST)
