"""Budgets, their costs, and the record of decisions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vpt.search.budget import Budget, Costs, images_that_fit, measure
from vpt.search.candidates import epochs_that_fit, full_epochs, least_epochs
from vpt.search.decisions import Decisions


def test_budget_by_a_clock_keeps_a_tenth_for_what_is_not_measured() -> None:
    now = [100.0]
    budget = Budget(60, lambda: now[0], started=95.0)
    now[0] = 115.0
    assert (budget.elapsed, budget.remaining) == (20.0, 34.0)


def test_measure_of_a_block_gives_its_seconds() -> None:
    now = [0.0]
    with measure(lambda: now[0]) as watch:
        now[0] = 2.5
    assert watch.seconds == 2.5


COSTS = Costs(decode=0.01, forward=0.05, step=0.15)


@pytest.mark.parametrize(
    ("seconds", "used", "expected"),
    [
        (600, 10, (1000, 800)),  # all of them
        (60, 10, (499, 109)),  # a fifth of the time for test images that pass through two models; half for train
        (60, 60, (99, 109)),  # however late, a tenth of the time for train
    ],
)
def test_images_that_fit_a_budget_leave_room_for_the_rest(
    seconds: float, used: float, expected: tuple[int, int]
) -> None:
    train, test = images_that_fit(seconds, used, COSTS, 1000, 800, min_steps_images=960)
    assert (train, test) == expected
    assert test * (0.01 + 2 * 0.05) <= 0.2 * seconds


def test_images_that_fit_with_an_epoch_of_prompts_leave_its_time() -> None:
    train, _ = images_that_fit(600, 10, COSTS, 100_000, 0, min_steps_images=960)
    assert train == int(530 / 0.21)  # decoding, features and one epoch


def test_epochs_that_fit_are_whole_and_worth_their_time() -> None:
    assert full_epochs(1000, 16) == 20 and full_epochs(100, 16) == 29 and full_epochs(10, 16) == 100
    assert epochs_that_fit(1000.0, 1000, 16, 0.15) == 6
    assert epochs_that_fit(1e6, 1000, 16, 0.15) == 20
    assert epochs_that_fit(100.0, 1000, 16, 0.15) == 0  # not even one
    assert epochs_that_fit(60.0, 100, 16, 0.15) == 0  # 28 steps
    assert [least_epochs(images, 16) for images in (16, 100, 466, 1000)] == [40, 6, 2, 1]


def test_decisions_of_an_interrupted_search_are_read_with_its_seconds(tmp_path: Path) -> None:
    now = [5.0]
    path = tmp_path / "decisions.jsonl"
    decisions = Decisions(path, Budget(60, lambda: now[0]))
    assert decisions.decide("request", lambda: "all", later=True) == "all" and not path.exists()
    assert decisions.decide("first", lambda: {"a": (1, 2)}) == {"a": [1, 2]}
    now[0] = 7.5
    assert decisions.decide("second", lambda: 0.1 + 0.2) == 0.1 + 0.2
    assert [json.loads(line)["decision"] for line in path.read_text().splitlines()] == ["request", "first", "second"]

    now[0], budget = 1000.0, Budget(60, lambda: now[0], started=999.0)
    again = Decisions(path, budget)
    assert budget.elapsed == 7.5
    assert again.decide("second", lambda: pytest.fail("a decision is made twice")) == 0.1 + 0.2
    assert again.decide("third", lambda: 3) == 3
