"""What a search decides before a trial: the seconds of a step, which rates are tried, and notes on images."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from simulation import SimulatedClock

import vpt
from vpt.search import selection as module
from vpt.search.budget import Budget
from vpt.search.candidates import make_candidate, probe_seconds
from vpt.search.comparison import Comparison
from vpt.search.selection import Selection
from vpt.search.trials import measure_step
from vpt.training import Callback, Examples
from vpt.training.batches import iter_batches, join_last
from vpt.tuning import make_job

Search = Callable[..., tuple[vpt.RunResult, SimulatedClock]]
PROMPTS = "vpt(length=4)"


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[str], list[str]]]:
    """A function that lets a candidate have a result, and returns the candidates that are tried, and the notes."""

    def choose_after(wins: int = 30, losses: int = 15, **pool: Any) -> tuple[list[str], list[str]]:
        tried, callback = list[str](), SimulatedClock(0, 0)

        def carry_out(self: Selection, candidate: Any, rows: Any) -> dict[str, Any]:
            tried.append(candidate.name)
            gain = (wins - losses) / 400
            against = Comparison(400, "top1", gain, gain - 0.1, gain + 0.1, 0.01, wins, losses, 0.1, gain)
            recipe = {"method": candidate.method, "recipe": candidate.recipe, "factor": candidate.factor}
            return {**recipe, "status": "tried", "folds": 2, "comparison": against.to_dict()}

        monkeypatch.setattr(module, "list_candidates", lambda *given, **options: [make_candidate("vpt")])
        monkeypatch.setattr(Selection, "_try", carry_out)
        labels = SimpleNamespace(kind=SimpleNamespace(name="single_label"))
        data = SimpleNamespace(classes=("a", "b"), labels=labels)
        selection: Any = Selection.__new__(Selection)
        for name, value in {
            "request": SimpleNamespace(options={"head": "linear"}, method=None, max_size=10), "head": "linear",
            "pool": SimpleNamespace(data=data, **{"held_out": None, "takes_all": False, **pool}),
            "backbone": "vit_nano_patch12_48", "callback": callback,
            "halves": [SimpleNamespace(rows=[0]), SimpleNamespace(rows=[1])],
        }.items():  # fmt: skip
            object.__setattr__(selection, name, value)
        selection.try_all()
        return tried, callback.notes

    return choose_after


@pytest.mark.parametrize(
    ("wins", "losses", "refines"), [(30, 15, True), (15, 15, True), (12, 15, True), (12, 20, False)]
)
def test_other_rates_are_tried_unless_the_best_is_a_standard_error_below_the_probe(
    choose: Callable[..., tuple[list[str], list[str]]], wins: int, losses: int, refines: bool
) -> None:
    tried, _ = choose(wins, losses)
    assert tried == ["vpt", *(["vpt, rate x 3", "vpt, rate x 0.333"] if refines else [])]


@pytest.mark.parametrize(("images", "takes_all", "noted"), [(40, False, True), (40, True, False), (100, False, False)])
def test_val_that_takes_no_part_is_named(
    choose: Callable[..., tuple[list[str], list[str]]], images: int, takes_all: bool, noted: bool
) -> None:
    _, notes = choose(held_out=range(images), takes_all=takes_all)
    assert [note.startswith("40 images of val take no part: 100 or more can tell") for note in notes] == [True] * noted


@pytest.mark.usefixtures("few_steps")
def test_steps_of_a_method_are_measured_once_for_all_rates(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    measured, measure = list[str](), module.measure_step

    def count(pool: Any, job: Any, *given: Any) -> float:
        measured.append(job.method)
        return measure(pool, job, *given)

    monkeypatch.setattr(module, "measure_step", count)
    monkeypatch.setattr(module, "_WORTH_OTHER_RATES", -np.inf)
    result, _ = search(method=PROMPTS, step=0.3)
    assert result.search is not None
    rates = [row for row in result.search["candidates"] if row["method"] == PROMPTS]
    assert len(rates) >= 3 and measured == [PROMPTS]


def test_probe_epochs_that_are_given_count_as_time(search: Search) -> None:
    result, _ = search(method=PROMPTS, probe_epochs=200_000)
    assert result.search is not None
    row = next(row for row in result.search["candidates"] if row["method"] == PROMPTS)
    assert row["status"] == "no_time" and "are left" in row["reason"]


def test_seconds_of_a_probe_grow_with_its_visits_from_a_least_on() -> None:
    least = probe_seconds(100, 60)
    assert least == probe_seconds(1, 100_000) == probe_seconds(2, 50_000) > 0
    assert probe_seconds(100, 10_000) == pytest.approx(10 * least)


@pytest.mark.parametrize("least", [1, 2])
@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_steps_are_measured_with_every_batch_size(batch_size: int, least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of one image are joined where batch normalization trains."""

    def train(job: Any, data: Examples, callback: Callback, device: Any) -> None:
        batches = list(iter_batches(np.arange(len(data)), job.config.training.batch_size))
        for step, indices in enumerate(join_last(batches, least)):
            clock.now += 0.5 * len(indices)
            callback.on_step(1, step + 1, 0.0, 0.0)

    monkeypatch.setattr("vpt.search.trials.train_model", train)
    clock = SimulatedClock(0, 0)
    examples = Examples(np.zeros((5, 3, 8, 8), np.uint8), np.zeros(5, np.int64))
    pool: Any = SimpleNamespace(examples=examples, job_data=lambda job, rows: rows, device="cpu")
    job = make_job("data", "out.safetensors", task="classification", method="full", batch_size=batch_size)
    assert measure_step(pool, job, Budget(60, clock), Callback()) == pytest.approx(0.5)
