"""Tests with other libraries: collected only with the extra `clients`, and only warnings of vpt are errors."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

CLIENTS = ("accelerate", "captum", "lightning", "peft", "skorch", "torchao", "torchmetrics", "transformers")
collect_ignore_glob = [] if all(map(importlib.util.find_spec, CLIENTS)) else ["test_*.py"]

# The folder tests/datasets must not pass for the package of that name, which transformers looks for.
if getattr(importlib.util.find_spec("datasets"), "origin", None) is None:
    sys.modules["datasets"] = None  # type: ignore[assignment]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Other libraries deprecate what third libraries still call. That is not a fault of vpt.
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("default", r"error:::vpt(\.|$)"))
