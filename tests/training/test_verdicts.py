"""Verdicts: each kind where its figures say so, and none where they do not."""

from __future__ import annotations

from typing import Any

import pytest

from vpt.training.verdicts import Verdict, edges_of_grid, joins_ridge, judge_run, judge_splits

IMAGES = {"train": 800, "val": 200, "test": 400}


def epochs(losses: list[float], train: list[float] | None = None, val: list[float] | None = None) -> list[Any]:
    return [
        {"train_loss": loss, "train_metric": (train or losses)[i], "val_metric": None if val is None else val[i]}
        for i, loss in enumerate(losses)
    ]


def scores(top1: float, classes: int = 2, split: str = "test") -> dict[str, Any]:
    return {"split": split, "top1": top1, "per_class": dict.fromkeys(map(str, range(classes)), top1)}


def kinds(verdicts: list[Verdict]) -> list[str]:
    return [verdict.kind for verdict in verdicts]


def test_judge_run_of_a_loss_that_rose_says_diverged() -> None:
    found = judge_run(scores(0.9), epochs([12.6, 300.0, 555.0], [0.5, 0.5, 0.5]), IMAGES)
    assert kinds(found) == ["diverged"]
    assert str(found[0]) == "diverged: training loss rose from 12.6 to 555; lower the learning rate"
    assert kinds(judge_run(scores(0.9), epochs([1.0, float("nan")], [0.5, 0.5]), IMAGES)) == ["diverged"]
    assert judge_run(scores(0.9), epochs([12.6, 555.0, 3.0], [0.5, 0.5, 0.5]), IMAGES) == []
    assert judge_run(scores(0.9), epochs([0.6931, 0.6935], [0.5, 0.5]), IMAGES) == []  # by less than its noise
    assert judge_run({}, [], {}, error="the loss is nan") == [Verdict("diverged", "the loss is nan")]


def test_judge_run_of_a_healthy_loss_that_began_low_is_silent() -> None:
    assert judge_run(scores(0.9), epochs([0.100, 0.070, 0.105], [0.9, 0.9, 0.9]), IMAGES) == []
    assert judge_run(scores(0.9), epochs([0.100, 0.095, 0.150], [0.9, 0.9, 0.9]), IMAGES) == []
    assert kinds(judge_run(scores(0.9), epochs([0.100, 0.095, 0.105], [0.9, 0.9, 0.6]), IMAGES)) == ["diverged"]
    rose_later = epochs([1.0, 0.5, 50.0], [0.5, 0.9, 0.5], val=[0.5, 0.9, 0.5])
    assert judge_run(scores(0.9), rose_later, IMAGES, keep="best") == []
    assert "diverged" in kinds(judge_run(scores(0.9), rose_later, IMAGES))
    errors = epochs([1.0, 0.5, 50.0], [0.5, 0.9, 0.9], val=[9.0, 3.0, 90.0])
    assert judge_run({}, errors, IMAGES, metric="mae", lower_is_better=True, keep="best") == []


def test_judge_run_near_guessing_says_at_chance_with_its_interval() -> None:
    found = judge_run(scores(0.52), [], IMAGES)
    assert kinds(found) == ["at chance"]
    assert found[0].evidence == ("top-1 52.0 % on test, 95 % interval 47.1 to 56.9 of 400 images; chance is 50.0 %")
    assert kinds(judge_run(scores(0.1), [], IMAGES)) == ["at chance"]  # below is no better
    assert judge_run(scores(0.56), [], IMAGES) == []
    assert judge_run(scores(0.52, classes=10), [], IMAGES) == []
    assert judge_run({"split": "test", "miou": 0.1, "per_class": {"a": 0.1, "b": 0.1}}, [], IMAGES) == []


def test_judge_run_still_rising_says_not_converged() -> None:
    loss = [1.0, 0.9, 0.8, 0.7]
    found = judge_run(scores(0.8), epochs(loss, val=[0.3, 0.5, 0.6, 0.8]), IMAGES)
    assert kinds(found) == ["not converged"] and "0.6 to 0.8 in the last epoch of 4" in found[0].evidence
    assert judge_run(scores(0.8), epochs(loss, val=[0.3, 0.78, 0.79, 0.8]), IMAGES) == []  # less than its noise
    assert judge_run(scores(0.8), epochs(loss, val=[0.3, 0.9, 0.85, 0.8]), IMAGES) == []
    falling = epochs(loss, val=[9.0, 6.0, 4.0, 2.0])
    assert kinds(judge_run({}, falling, IMAGES, metric="mae", lower_is_better=True)) == ["not converged"]
    assert judge_run(scores(0.8), epochs(loss[:1], val=[0.8]), IMAGES) == []  # one epoch has no direction
    assert kinds(judge_run(scores(0.8), epochs(loss, train=[0.1, 0.2, 0.3, 0.4]), IMAGES)) == ["not converged"]


def test_judge_run_of_a_curve_in_another_unit_reads_it_in_that_unit() -> None:
    loss, nan = [1.0, 0.9, 0.8, 0.7], float("nan")
    assert kinds(judge_run({}, epochs(loss, val=[nan, 0.3, 0.5, 0.8]), IMAGES, metric="miou")) == ["not converged"]
    assert judge_run({}, epochs(loss, val=[0.3, nan, nan, nan]), IMAGES, metric="map") == []
    r2 = epochs(loss, train=[-0.5, 0.1, 0.4, 0.8])  # of training, where val would count the error
    found = judge_run({}, r2, IMAGES, metric="mae", lower_is_better=True)
    assert kinds(found) == ["not converged"] and "train metric still rising" in found[0].evidence
    small = epochs(loss, val=[0.3, 0.4, 0.5, 0.52])
    assert judge_run({}, small, {"val": 10}) == []  # within the noise of a rate of ten images
    assert kinds(judge_run({}, small, {"val": 10}, metric="r2")) == ["not converged"]


def test_judge_run_of_splits_apart_gives_their_joint_interval() -> None:
    curve = epochs([1.0, 0.5], val=[0.95, 0.95])
    found = judge_run(scores(0.60), curve, IMAGES)
    assert kinds(found) == ["val and test apart"]
    assert "top-1 95.0 % on val (200 images), 60.0 % on test (400); 95 % interval" in found[0].evidence
    assert judge_run(scores(0.93), curve, IMAGES) == []
    assert judge_run(scores(0.60), curve, IMAGES, metric="macro_f1") == []  # val counts something else
    best = epochs([1.0, 0.5], val=[0.95, 0.6])
    assert judge_run(scores(0.60), best, IMAGES) == []
    assert kinds(judge_run(scores(0.60), best, IMAGES, keep="best")) == ["val and test apart"]
    assert judge_run(scores(0.60), curve, IMAGES, joined=True) == []  # val is that of the trained head alone


def test_judge_run_at_its_thresholds() -> None:
    loss = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]
    for before, expected in ((0.96, []), (0.94, ["not converged"])):  # of a curve that rises by 1
        curve = [0.0, 0.3, 0.6, 0.9, before, before, 1.0, 1.0]
        assert kinds(judge_run({}, epochs(loss, val=curve), {})) == expected
    (found,) = judge_run({}, epochs(loss, val=[0.0, 0.3, 0.5, 0.7, 0.7, 0.9, 0.9, 0.9]), {})
    assert found.evidence.endswith("0.8 to 0.9 in the last 2 epochs of 8")
    for metric, expected in ((0.86, []), (0.84, ["diverged"])):  # of 0.9, while the loss rises by 5 %
        assert kinds(judge_run({}, epochs([1.0, 1.05], [0.9, metric]), {})) == expected


def test_judge_run_whose_interval_begins_at_chance_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vpt.training.verdicts.wilson", lambda *counts: (0.5, 0.6))
    assert kinds(judge_run(scores(0.55), [], IMAGES)) == ["at chance"]


def test_joins_ridge_of_options_and_of_the_note_of_the_default() -> None:
    note = "a ridge head joins the trained head, with the penalty 1; ..."
    assert joins_ridge("auto", []) and joins_ridge(0.1, []) and joins_ridge("default", ["another", note])
    assert not joins_ridge(None, []) and not joins_ridge("none", []) and not joins_ridge("default", ["another"])


def test_judge_splits_without_numbers_of_images_is_silent() -> None:
    assert judge_splits(0.9, None, 0.1, 400) == judge_splits(0.9, 200, 0.1, None) == []
    assert judge_run(scores(0.5), [], {}) == []  # a record of an earlier version


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([0.1, 0.2, 0.3], [("lr", 1.0, 10.0)]),
        ([0.3, 0.2, 0.1], [("lr", 0.01, 0.001)]),
        ([0.1, 0.3, 0.2], []),
        ([0.3, 0.3, 0.3], []),  # it does not matter
        ([0.2, 0.3, 0.3], []),  # within is as good
        ([None, 0.2, 0.3], [("lr", 1.0, 10.0)]),
        ([None, None, None], []),
    ],
)
def test_edges_of_grid_of_each_place_of_the_best(results: list[float | None], expected: list[Any]) -> None:
    grid = [{"lr": 0.01, "wd": 0.0}, {"lr": 0.1, "wd": 0.0}, {"lr": 1.0, "wd": 0.0}]
    assert [(edge.key, edge.value, edge.beyond) for edge in edges_of_grid(grid, results)] == expected


def test_edges_of_grid_at_zero_has_none_below() -> None:
    grid = [{"wd": 0.0}, {"wd": 0.01}]
    assert edges_of_grid(grid, [0.9, 0.1]) == []
    assert [edge.beyond for edge in edges_of_grid(grid, [0.1, 0.9])] == [0.1]
    lengths = [{"length": 1}, {"length": 5}, {"length": 10}]
    assert [edge.beyond for edge in edges_of_grid(lengths, [0.1, 0.2, 0.3])] == [20]
