"""The choice of bf16 on a CPU that is faster in it: it is recorded, and a precision that is given comes first."""

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
def fast_bf16(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Set what the CPU has; every backbone is large enough to gain from it."""

    def set_found(found: bool) -> None:
        monkeypatch.setattr(precision, "has_fast_bf16", lambda: found)
        monkeypatch.setattr(precision, "_FEWEST_PARAMETERS", 1)

    return set_found


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
def test_search_runs_in_bf16_on_a_cpu_that_is_faster_in_it(
    search: Search, fast_bf16: Callable[[bool], None], tmp_path: Path
) -> None:
    fast_bf16(True)
    result, clock = search(method=PROMPTS)
    assert result.search is not None and precision_of(tmp_path) == "bf16"
    assert any("so the search runs in bf16" in note for note in clock.notes)


@pytest.mark.parametrize(("found", "options"), [(False, {}), (True, {"precision": "fp32"})])
def test_search_stays_in_fp32_on_other_cpus_or_where_fp32_is_given(
    search: Search, fast_bf16: Callable[[bool], None], tmp_path: Path, found: bool, options: dict[str, Any]
) -> None:
    fast_bf16(found)
    _, clock = search(method="linear", **options)
    assert precision_of(tmp_path) == options.get("precision", "auto")
    assert not any("bf16" in note for note in clock.notes)


def test_search_with_a_small_backbone_stays_in_fp32(
    search: Search, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(precision, "has_fast_bf16", lambda: True)
    search(method="linear")
    assert precision_of(tmp_path) == "auto"


@pytest.mark.usefixtures("few_steps")
def test_resumed_search_keeps_its_precision_on_another_cpu(
    search: Search, fast_bf16: Callable[[bool], None], tmp_path: Path
) -> None:
    fast_bf16(True)
    with pytest.raises(KeyboardInterrupt):
        search(method=PROMPTS, clock=Interrupted(0.01, 1.0, 1))
    fast_bf16(False)
    search(method=PROMPTS)
    assert precision_of(tmp_path) == "bf16"


def test_precision_is_left_alone_on_other_devices(tmp_path: Path, fast_bf16: Callable[[bool], None]) -> None:
    fast_bf16(True)
    given = context_of(tmp_path, device="meta")
    assert choose_precision(given, NANO) is given


@pytest.mark.parametrize(
    ("amx", "capabilities", "expected"),
    [
        (True, {}, True),
        (False, {"cpu_name": "AMD EPYC", "avx512_bf16": True}, True),
        (False, {"cpu_name": "AMD EPYC", "avx512_bf16": False}, False),
        (False, {"cpu_name": "Intel(R) Xeon(R) Processor", "avx512_bf16": True}, False),
        (False, {}, False),
    ],
)
def test_fast_bf16_is_what_pytorch_says_of_the_cpu(
    monkeypatch: pytest.MonkeyPatch, amx: bool, capabilities: dict[str, Any], expected: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert precision.has_fast_bf16() is expected


def test_bf16_is_not_fast_where_pytorch_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert precision.has_fast_bf16() is False
