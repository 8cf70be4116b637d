"""Tests with other libraries: collected only with the extra `clients`, and only warnings of vpt are errors."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

CLIENTS = ("accelerate", "lightning", "torchmetrics", "transformers")
collect_ignore_glob = [] if all(map(importlib.util.find_spec, CLIENTS)) else ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Other libraries deprecate what third libraries still call. That is not a fault of vpt.
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("default", r"error:::vpt(\.|$)"))
