"""The choice of bf16 on a CPU with AMX: it is recorded, and a precision that is given comes first."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from simulation import Interrupted, SimulatedClock

import vpt
from vpt.search import precision
from vpt.search.budget import Budget
from vpt.search.context import SearchContext
from vpt.search.decisions import Decisions
from vpt.search.precision import choose_precision
from vpt.search.request import SearchRequest
from vpt.training import Callback

Search = Callable[..., tuple[vpt.RunResult, SimulatedClock]]
PROMPTS, NANO = "vpt(length=4)", "vit_nano_patch12_48"


@pytest.fixture
def amx(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Set what the CPU has; every backbone is large enough to gain from it."""

    def set_amx(found: bool) -> None:
        monkeypatch.setattr(precision, "has_amx", lambda: found)
        monkeypatch.setattr(precision, "_FEWEST_PARAMETERS", 1)

    return set_amx


def precision_of(folder: Path) -> str:
    """The precision that the repeat command of a search takes."""
    options = tomllib.loads((folder / "a.run" / "run.toml").read_text(encoding="utf-8"))
    return str(options.get("precision", "auto"))


def context_of(tmp_path: Path, device: str = "cpu") -> SearchContext:
    target = torch.device(device)
    request = SearchRequest.create("photos", tmp_path / "a.safetensors", device=target)
    budget = Budget(60, SimulatedClock(0.0, 0.0))
    return SearchContext(request, budget, Decisions(tmp_path / "decisions.jsonl", budget), Callback(), target)


@pytest.mark.usefixtures("few_steps")
def test_search_runs_in_bf16_on_a_cpu_with_amx(search: Search, amx: Callable[[bool], None], tmp_path: Path) -> None:
    amx(True)
    result, clock = search(method=PROMPTS)
    assert result.search is not None and precision_of(tmp_path) == "bf16"
    assert any("so the search runs in bf16" in note for note in clock.notes)


@pytest.mark.parametrize(("found", "options"), [(False, {}), (True, {"precision": "fp32"})])
def test_search_stays_in_fp32_without_amx_or_where_fp32_is_given(
    search: Search, amx: Callable[[bool], None], tmp_path: Path, found: bool, options: dict[str, Any]
) -> None:
    amx(found)
    _, clock = search(method="linear", **options)
    assert precision_of(tmp_path) == options.get("precision", "auto")
    assert not any("bf16" in note for note in clock.notes)


def test_search_with_a_small_backbone_stays_in_fp32(
    search: Search, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(precision, "has_amx", lambda: True)
    search(method="linear")
    assert precision_of(tmp_path) == "auto"


@pytest.mark.usefixtures("few_steps")
def test_resumed_search_keeps_its_precision_on_another_cpu(
    search: Search, amx: Callable[[bool], None], tmp_path: Path
) -> None:
    amx(True)
    with pytest.raises(KeyboardInterrupt):
        search(method=PROMPTS, clock=Interrupted(0.01, 1.0, 1))
    amx(False)
    search(method=PROMPTS)
    assert precision_of(tmp_path) == "bf16"


def test_search_that_an_earlier_version_began_goes_on_in_fp32(tmp_path: Path, amx: Callable[[bool], None]) -> None:
    amx(True)
    begun = context_of(tmp_path)
    begun.decisions.decide("request", dict)
    again = context_of(tmp_path)
    assert choose_precision(again, NANO) is again


def test_precision_is_left_alone_on_other_devices(tmp_path: Path, amx: Callable[[bool], None]) -> None:
    amx(True)
    given = context_of(tmp_path, device="meta")
    assert choose_precision(given, NANO) is given


@pytest.mark.parametrize("found", [True, False])
def test_amx_is_what_pytorch_says_of_the_cpu(monkeypatch: pytest.MonkeyPatch, found: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: found, raising=False)
    assert precision.has_amx() is found
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert precision.has_amx() is False
