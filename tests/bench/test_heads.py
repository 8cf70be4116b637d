"""Where only heads train, the runs of a cell are done at once: the same records, to rounding."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vpt import inspect
from vpt.errors import SpecError
from vpt.experiments import worker as work_module
from vpt.experiments.experiment import Plan, Run
from vpt.experiments.plan_file import read_plan, shipped
from vpt.experiments.search import bundles, chosen
from vpt.experiments.store import Store
from vpt.experiments.worker import execute, without_result, work
from vpt.tuning import tune_heads

HEADS = (
    'methods = [{ name = "Full", spec = "full" }, '
    '{ name = "VPT", spec = "vpt(length=1)", learning_rate = [0.1, 0.01] }]',
    """methods = [
  { name = "Linear", spec = "linear", learning_rate = [0.5, 0.05, 1e38], weight_decay = [0.1, 0.0] },
  { name = "MLP", spec = "mlp(layers=2)", learning_rate = [0.05, 0.01] },
  { name = "VPT", spec = "vpt(length=1)" },
]""",
)


@pytest.fixture
def plan(plan_of: Callable[..., Plan]) -> Plan:
    return plan_of(HEADS, ("epochs = 1", "epochs = 3"))


@pytest.fixture
def grids(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many runs were done at once, each time."""
    sizes, real = list[int](), work_module.tune_heads

    def counted(jobs: Any, *more: Any) -> Any:
        sizes.append(len(jobs))
        return real(jobs, *more)

    monkeypatch.setattr(work_module, "tune_heads", counted)
    return sizes


def test_each_record_is_that_of_the_run_alone(plan: Plan, folder: Path, grids: list[int]) -> None:
    together, alone = Store(folder / "out"), Store(folder / "alone")
    work(plan, together)
    # On each of two tasks six settings of Linear and two of MLP, then two seeds of each.
    assert sorted(grids) == [2] * 6 + [6] * 2
    assert not list((folder / "out" / "work").iterdir()) and not list((folder / "out" / "claims").iterdir())
    records = together.records()
    assert {record.status for record in records.values()} == {"done", "failed"}
    for task, entry in plan.cells():
        candidate = chosen(plan, task, entry, records)
        assert candidate is not None
        for run in plan.choosing(task, entry) + plan.final(task, entry, candidate):
            (own,), shared = execute(plan, [run], alone), records[run.id]
            assert (own.status, own.config, own.parameters) == (shared.status, shared.config, shared.parameters)
            if own.status == "failed":
                assert "learning rate" in own.error and own.error == shared.error and shared.score is None
                continue
            assert own.scores["part"] == shared.scores["part"] and own.score == pytest.approx(shared.score, abs=1e-4)
            for one, other in zip(own.history, shared.history, strict=True):
                assert one["train_loss"] == pytest.approx(other["train_loss"], abs=1e-4)
            if run.stage == "final":
                files = [inspect(store.tuned(run.id)) for store in (together, alone)]
                assert files[0].method == files[1].method and files[0].fingerprint == plan.fingerprint


def test_a_broken_store_becomes_that_of_an_unbroken_one(
    plan: Plan, folder: Path, without_times: Callable[[Path], dict[str, Any]]
) -> None:
    whole, broken = Store(folder / "whole"), Store(folder / "broken")
    for store in (whole, broken):
        work(plan, store)
    lost = sorted((folder / "broken" / "runs").iterdir())[::2]
    for path in lost:
        path.unlink()
    kept = {path: path.stat().st_mtime_ns for path in (folder / "broken" / "runs").iterdir()}
    work(plan, Store(folder / "broken"))
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    for path in lost:
        assert without_times(path) == without_times(folder / "whole" / "runs" / path.name)
    assert not list((folder / "broken" / "work").iterdir())


def test_what_cannot_be_done_at_once_is_done_one_by_one(plan: Plan, plan_of: Callable[..., Plan]) -> None:
    def sizes(plan: Plan) -> dict[str, int]:
        return {runs[0].method: len(runs) for runs in bundles(plan, {})}

    assert sizes(plan) == {"Linear": 6, "MLP": 2, "VPT": 1}
    assert Plan.from_dict(json.loads(json.dumps(plan.as_dict()))) == plan
    older = plan.as_dict()
    for entry in older["entries"]:
        del entry["at_once"]
    assert set(sizes(Plan.from_dict(older)).values()) == {1}
    assert set(sizes(plan_of(HEADS, ("epochs = 1", 'epochs = 1\naugment = "flip"'))).values()) == {1}
    assert set(sizes(plan_of(HEADS, ('"shade", g', '"shade", augment = "flip", g'))).values()) == {6, 2, 1}
    several = plan_of((HEADS[0], 'methods = ["linear", { name = "two", spec = ["mlp", "mlp(layers=2)"] }]'))
    final = {runs[0].method: len(runs) for runs in bundles(several, {}) if runs[0].stage == "final"}
    assert sizes(several)["two"] == 1 and final == {"linear": 2}
    part = plan_of((HEADS[0], 'methods = ["linear"]'), ("seeds = 2", "seeds = 2\ntrain_fraction = 0.5"))
    assert set(sizes(part).values()) == {1}  # each seed has images of its own


def test_after_an_error_the_rest_is_done_one_by_one(plan: Plan, folder: Path, grids: list[int]) -> None:
    store = Store(folder / "out")
    runs: tuple[Run, ...] = next(runs for runs in bundles(plan, {}) if len(runs) == 6)
    store.write(without_result(runs[0], "its worker ended with signal SIGKILL"))
    assert {len(rest) for rest in bundles(plan, store.records()) if rest[0].method == "Linear"} == {1, 6}
    work(plan, store)
    assert sorted(grids) == [2] * 5 + [6]  # and nothing is chosen where a setting is missing
    assert store.forget_errors() == 1 and runs in bundles(plan, store.records())


def test_changed_weights_and_unlike_jobs_are_refused(plan: Plan, folder: Path) -> None:
    runs = next(runs for runs in bundles(plan, {}) if len(runs) == 6)
    records = execute(replace(plan, fingerprint="sha256:0"), runs, Store(folder / "out"))
    assert {record.status for record in records} == {"error"}
    assert "have changed since the plan was read" in records[0].error
    jobs = [plan.job(run, folder / f"{run.id}.safetensors") for run in runs[:2]]
    with pytest.raises(SpecError, match="in their files and recipes alone"):
        tune_heads([jobs[0], replace(jobs[1], resize="crop")])
    with pytest.raises(SpecError, match="one by one"):
        seeds = [replace(job.recipe, seed=seed) for seed, job in enumerate(jobs)]
        tune_heads([replace(job, train_fraction=0.5, recipe=seed) for job, seed in zip(jobs, seeds, strict=True)])


def test_a_shipped_plan_trains_its_heads_at_once() -> None:
    assert [(entry.name, entry.at_once) for entry in read_plan(shipped()["smoke"]).entries] == [
        ("Full", False), ("Linear", True), ("VPT-deep", False),
    ]  # fmt: skip
