"""A short soak: no request fails, and every prediction is of a file that was served."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest


def test_soak_of_some_seconds_fails_and_predicts_wrongly_never(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    soak = importlib.import_module("soak")
    monkeypatch.setattr(soak, "SETTLING", 4.0)
    found = soak.measure(seconds=8, count=12, clients=4)
    assert (found["failed"], found["wrong"]) == (0, 0), found["first_faults"]
    assert found["answers"] > 10 and found["changes"] >= 2
