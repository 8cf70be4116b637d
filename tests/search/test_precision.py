"""The choice of bf16 on a CPU: by a measurement that is recorded, unless a precision is given."""

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
PROMPTS = "vpt(length=4)"


@pytest.fixture
def speedup(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], list[float]]:
    """Set what a measurement finds; the list has an entry for each."""

    def set_speedup(found: float) -> list[float]:
        measured = list[float]()
        monkeypatch.setattr(precision, "has_bf16_arithmetic", lambda: True)
        monkeypatch.setattr(precision, "speedup_of_bf16", lambda context, name: measured.append(found) or found)
        return measured

    return set_speedup


def precision_of(folder: Path) -> str:
    """The precision that the repeat command of a search takes."""
    options = tomllib.loads((folder / "a.run" / "run.toml").read_text(encoding="utf-8"))
    return str(options.get("precision", "auto"))


def context_of(tmp_path: Path, clock: Callable[[], float], device: str = "cpu", **options: Any) -> SearchContext:
    target = torch.device(device)
    request = SearchRequest.create("photos", tmp_path / "a.safetensors", device=target, **options)
    budget = Budget(60, clock)
    return SearchContext(request, budget, Decisions(tmp_path / "decisions.jsonl", budget), Callback(), target)


@pytest.mark.usefixtures("few_steps")
def test_search_runs_in_bf16_where_that_is_faster(
    search: Search, speedup: Callable[[float], list[float]], tmp_path: Path
) -> None:
    measured = speedup(2.04)
    result, clock = search(method=PROMPTS)
    assert measured == [2.04] and result.search is not None
    assert precision_of(tmp_path) == "bf16"
    assert any("takes 2.0 times as long in fp32 as in bf16 on this CPU" in note for note in clock.notes)


@pytest.mark.parametrize(("found", "options"), [(1.19, {}), (2.0, {"precision": "fp32"})])
def test_search_stays_in_fp32_where_bf16_gains_little_or_fp32_is_given(
    search: Search, speedup: Callable[[float], list[float]], tmp_path: Path, found: float, options: dict[str, Any]
) -> None:
    measured = speedup(found)
    result, clock = search(method="linear", **options)
    assert measured == ([] if options else [found]) and result.search is not None
    assert precision_of(tmp_path) == options.get("precision", "auto")
    assert not any("bf16" in note for note in clock.notes)


@pytest.mark.usefixtures("few_steps")
def test_resumed_search_measures_no_second_time(
    search: Search, speedup: Callable[[float], list[float]], tmp_path: Path
) -> None:
    measured = speedup(2.0)
    with pytest.raises(KeyboardInterrupt):
        search(method=PROMPTS, clock=Interrupted(0.01, 1.0, 1))
    measured_again = speedup(1.0)
    result, _ = search(method=PROMPTS)
    assert measured == [2.0] and measured_again == [] and result.search is not None
    assert precision_of(tmp_path) == "bf16"


def test_search_that_an_earlier_version_began_goes_on_in_fp32(
    tmp_path: Path, speedup: Callable[[float], list[float]]
) -> None:
    measured = speedup(2.0)
    begun = context_of(tmp_path, SimulatedClock(0.0, 0.0))
    begun.decisions.decide("request", dict)
    again = context_of(tmp_path, SimulatedClock(0.0, 0.0))
    assert choose_precision(again, "vit_nano_patch12_48") is again and measured == []


def test_precision_is_not_measured_on_other_devices(tmp_path: Path, speedup: Callable[[float], list[float]]) -> None:
    measured = speedup(2.0)
    given = context_of(tmp_path, SimulatedClock(0.0, 0.0), device="meta")
    assert choose_precision(given, "vit_nano_patch12_48") is given and measured == []


def test_precision_is_not_measured_where_bf16_is_emulated(
    search: Search, speedup: Callable[[float], list[float]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    measured = speedup(2.0)
    monkeypatch.setattr(precision, "has_bf16_arithmetic", lambda: False)
    search(method="linear")
    assert measured == [] and precision_of(tmp_path) == "auto"


@pytest.mark.parametrize(
    ("amx", "avx512", "expected"), [(True, False, True), (False, True, True), (False, False, False)]
)
def test_bf16_arithmetic_is_what_pytorch_says_of_the_cpu(
    monkeypatch: pytest.MonkeyPatch, amx: bool, avx512: bool, expected: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    assert precision.has_bf16_arithmetic() is expected
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert precision.has_bf16_arithmetic() is False


@pytest.mark.parametrize(("seconds", "expected"), [((3.0, 1.0), 3.0), ((0.0, 0.0), 1.0)])
def test_speedup_is_the_ratio_of_the_median_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: tuple[float, float], expected: float
) -> None:
    clock, first = SimulatedClock(0.0, 0.0), [True, True]

    def forward(module: torch.nn.Module, images: torch.Tensor) -> None:
        bf16 = torch.is_autocast_enabled("cpu")
        clock.now += seconds[bf16] + (10.0 if any(seconds) and first[bf16] else 0.0)  # the first pass takes longer
        first[bf16] = False

    monkeypatch.setattr("timm.models.vision_transformer.VisionTransformer.forward", forward)
    found = precision.speedup_of_bf16(context_of(tmp_path, clock), "vit_nano_patch12_48", clock)
    assert found == expected
