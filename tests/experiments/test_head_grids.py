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
from vpt.experiments.experiment import Experiment, Run
from vpt.experiments.planning.file import builtin_plans, load_experiment
from vpt.experiments.running import worker as worker_module
from vpt.experiments.running.head_jobs import tune_heads
from vpt.experiments.running.worker import execute_runs, run_worker
from vpt.experiments.selection import best_setting, run_batches
from vpt.experiments.store import Record, Store

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
def experiment(experiment_of: Callable[..., Experiment]) -> Experiment:
    return experiment_of(HEADS, ("epochs = 1", "epochs = 3"))


@pytest.fixture
def grids(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many runs were done at once, each time."""
    sizes, real = list[int](), worker_module.tune_heads

    def counted(jobs: Any, *more: Any) -> Any:
        sizes.append(len(jobs))
        return real(jobs, *more)

    monkeypatch.setattr(worker_module, "tune_heads", counted)
    return sizes


def test_run_worker_with_head_grid_gives_records_of_single_runs(
    experiment: Experiment, folder: Path, grids: list[int]
) -> None:
    together, alone = Store(folder / "out"), Store(folder / "alone")
    run_worker(experiment, together)
    # On each of two tasks six settings of Linear and two of MLP, then two seeds of each.
    assert sorted(grids) == [2] * 6 + [6] * 2
    assert not list((folder / "out" / "work").iterdir()) and not list((folder / "out" / "locks").iterdir())
    records = together.records()
    assert {record.status for record in records.values()} == {"done", "failed"}
    for task, row in experiment.cells():
        setting = best_setting(experiment, task, row, records)
        assert setting is not None
        for run in experiment.search_runs(task, row) + experiment.final_runs(task, row, setting):
            (own,), shared = execute_runs(experiment, [run], alone), records[run.id]
            assert (own.status, own.config, own.parameters) == (shared.status, shared.config, shared.parameters)
            if own.status == "failed":
                assert "learning rate" in own.error and own.error == shared.error and shared.score is None
                continue
            assert own.scores["split"] == shared.scores["split"] and own.score == pytest.approx(shared.score, abs=1e-4)
            for one, other in zip(own.history, shared.history, strict=True):
                assert one["train_loss"] == pytest.approx(other["train_loss"], abs=1e-4)
            if run.stage == "final":
                files = [inspect(store.tuned_path(run.id)) for store in (together, alone)]
                assert files[0].method == files[1].method and files[0].fingerprint == experiment.fingerprint


def test_run_worker_after_lost_records_restores_them(
    experiment: Experiment, folder: Path, without_times: Callable[[Path], dict[str, Any]]
) -> None:
    whole, broken = Store(folder / "whole"), Store(folder / "broken")
    for store in (whole, broken):
        run_worker(experiment, store)
    lost = sorted((folder / "broken" / "runs").iterdir())[::2]
    for path in lost:
        path.unlink()
    kept = {path: path.stat().st_mtime_ns for path in (folder / "broken" / "runs").iterdir()}
    run_worker(experiment, Store(folder / "broken"))
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    for path in lost:
        assert without_times(path) == without_times(folder / "whole" / "runs" / path.name)
    assert not list((folder / "broken" / "work").iterdir())


def test_run_batches_of_unsupported_runs_are_single_runs(
    experiment: Experiment, experiment_of: Callable[..., Experiment]
) -> None:
    def sizes(experiment: Experiment) -> dict[str, int]:
        return {runs[0].method: len(runs) for runs in run_batches(experiment, {})}

    assert sizes(experiment) == {"Linear": 6, "MLP": 2, "VPT": 1}
    assert Experiment.from_dict(json.loads(json.dumps(experiment.to_dict()))) == experiment
    older = experiment.to_dict()
    for row in older["methods"]:
        del row["is_head_grid"]
    assert set(sizes(Experiment.from_dict(older)).values()) == {1}
    assert set(sizes(experiment_of(HEADS, ("epochs = 1", 'epochs = 1\naugment = "flip"'))).values()) == {1}
    assert set(sizes(experiment_of(HEADS, ('"shade", g', '"shade", augment = "flip", g'))).values()) == {6, 2, 1}
    several = experiment_of((HEADS[0], 'methods = ["linear", { name = "two", spec = ["mlp", "mlp(layers=2)"] }]'))
    final = {runs[0].method: len(runs) for runs in run_batches(several, {}) if runs[0].stage == "final"}
    assert sizes(several)["two"] == 1 and final == {"linear": 2}
    part = experiment_of((HEADS[0], 'methods = ["linear"]'), ("seeds = 2", "seeds = 2\ntrain_fraction = 0.5"))
    few = experiment_of((HEADS[0], 'methods = ["linear"]'), ("seeds = 2", "seeds = 2\nimages_per_class = 2"))
    assert set(sizes(part).values()) == set(sizes(few).values()) == {1}  # each seed has images of its own


def test_run_batches_after_an_error_are_single_runs(experiment: Experiment, folder: Path, grids: list[int]) -> None:
    store = Store(folder / "out")
    runs: tuple[Run, ...] = next(runs for runs in run_batches(experiment, {}) if len(runs) == 6)
    store.write(Record.of_error(runs[0], "its worker ended with signal SIGKILL"))
    assert {len(rest) for rest in run_batches(experiment, store.records()) if rest[0].method == "Linear"} == {1, 6}
    run_worker(experiment, store)
    assert sorted(grids) == [2] * 5 + [6]  # and nothing is chosen where a setting is missing
    assert store.clear_errors() == 1 and runs in run_batches(experiment, store.records())


def test_head_grid_with_changed_weights_or_unequal_jobs_is_refused(experiment: Experiment, folder: Path) -> None:
    runs = next(runs for runs in run_batches(experiment, {}) if len(runs) == 6)
    records = execute_runs(replace(experiment, fingerprint="sha256:0"), runs, Store(folder / "out"))
    assert {record.status for record in records} == {"error"}
    assert "have changed since the plan was read" in records[0].error
    jobs = [experiment.make_job(run, folder / f"{run.id}.safetensors") for run in runs[:2]]
    with pytest.raises(SpecError, match="in their files and configurations alone"):
        tune_heads([jobs[0], replace(jobs[1], options=replace(jobs[1].options, resize="crop"))])
    with pytest.raises(SpecError, match="one by one"):
        half = replace(jobs[0].options, train_fraction=0.5)
        tune_heads([replace(job, options=half, config=job.config.replace(seed=n)) for n, job in enumerate(jobs)])


def test_builtin_plan_of_linear_is_a_head_grid() -> None:
    assert [(row.name, row.is_head_grid) for row in load_experiment(builtin_plans()["smoke"]).methods] == [
        ("Full", False), ("Linear", True), ("VPT-deep", False),
    ]  # fmt: skip
