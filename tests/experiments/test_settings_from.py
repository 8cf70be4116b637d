"""A task that takes the settings that were selected on another one, and searches none of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vpt.errors import DataError, SpecError
from vpt.experiments.experiment import Experiment, Run
from vpt.experiments.planning.file import load_experiment
from vpt.experiments.reports.report import write_report
from vpt.experiments.reports.status import read_status
from vpt.experiments.results import load_results
from vpt.experiments.running.cost_estimate import estimate_cost
from vpt.experiments.running.worker import run_worker
from vpt.experiments.selection import best_setting, count_runs, remaining_runs, runnable_runs
from vpt.experiments.store import Record, Store

FROM = ('name = "hue", data', 'name = "hue", settings_from = "shade", images_per_class = 3, data')


def record_of(run: Run, top1: float, status: Any = "done") -> Record:
    scores = {"split": "val" if run.stage == "search" else "test", "top1": top1, "mean_per_class": top1,
              "per_class": {"a": top1, "b": top1}}  # fmt: skip
    return Record.of_run(
        run, status, scores=scores if status == "done" else {}, error="" if status == "done" else "NaN"
    )


def test_task_searches_nothing_and_waits_for_the_other_task(experiment_of: Callable[..., Experiment]) -> None:
    experiment = experiment_of(FROM)
    runs = runnable_runs(experiment, {})
    assert [run.label.split("  ")[:3] for run in runs if run.stage == "search"] == [["shade", "VPT", "search"]] * 2
    assert len([run for run in runs if run.task.name == "hue"]) == 2, "full has one setting, which needs no search"
    assert len(remaining_runs(experiment, {})) == 10 and count_runs(experiment, {}) == (0, 10)
    assert estimate_cost(experiment).runs == 10
    assert estimate_cost(experiment_of()).runs == 12


@pytest.mark.parametrize("best", [0, 1])
def test_final_runs_have_the_setting_of_the_other_task(experiment_of: Callable[..., Experiment], best: int) -> None:
    experiment = experiment_of(FROM)
    searched = [run for run in runnable_runs(experiment, {}) if run.stage == "search"]
    records = {run.id: record_of(run, 0.5 + 0.1 * (index == best)) for index, run in enumerate(searched)}
    hue = experiment.task("hue")
    setting = best_setting(experiment, hue, experiment.row("VPT"), records)
    assert setting == searched[best].setting
    runs = [run for run in runnable_runs(experiment, records) if (run.task, run.method) == (hue, "VPT")]
    assert [run.stage for run in runs] == ["final"] * 2
    assert all(run.config["images_per_class"] == 3 for run in runs)
    assert {run.setting.config.training.learning_rate for run in runs} == {
        searched[best].setting.config.training.learning_rate
    }


def test_runs_are_those_of_a_plan_that_names_the_setting(experiment_of: Callable[..., Experiment]) -> None:
    """A run is what it computes, not how its setting was found: records are shared."""
    experiment = experiment_of(FROM)
    (setting,) = [one for one in experiment.row("VPT").settings if one.config.training.learning_rate == 0.1]
    found = experiment.final_runs(experiment.task("hue"), experiment.row("VPT"), setting)
    own = experiment_of((FROM[0], FROM[1].replace('settings_from = "shade", ', "")))
    assert [run.id for run in found] == [run.id for run in own.final_runs(own.task("hue"), own.row("VPT"), setting)]


def test_worker_ends_and_reports_tell_of_each_run_once(
    experiment_of: Callable[..., Experiment], tmp_path: Path
) -> None:
    experiment, store = experiment_of(FROM), Store(tmp_path / "out")
    store.save_experiment(experiment)
    run_worker(experiment, store)
    status = read_status(store.folder)
    assert (status.total, status.done) == (10, 10)
    assert {row[:2]: row[2:] for row in status.rows}["hue", "VPT"] == (2, 2)
    results = load_results(store)
    cell = results.cells["hue", "VPT"]
    assert cell.complete and not cell.search_records and cell.val_score is None
    assert cell.setting == results.cells["shade", "VPT"].setting
    write_report(store.folder, tmp_path / "report")
    lines = (tmp_path / "report" / "report.md").read_text().splitlines()
    (row,) = [line for line in lines if line.startswith("| hue | VPT | vpt")]
    assert row.endswith("| from shade |") and any(
        "from TASK: selected on the val of that task" in line for line in lines
    )
    assert store.load_experiment() == experiment


def test_task_whose_settings_all_failed_elsewhere_has_no_runs(
    experiment_of: Callable[..., Experiment], tmp_path: Path
) -> None:
    experiment, store = experiment_of(FROM), Store(tmp_path / "out")
    store.save_experiment(experiment)
    for run in runnable_runs(experiment, {}):
        store.write(record_of(run, 0.5, "failed" if run.stage == "search" else "done"))
    assert not remaining_runs(experiment, store.records())
    write_report(store.folder, tmp_path / "report")
    lines = (tmp_path / "report" / "report.md").read_text().splitlines()
    failures = [line for line in lines if "| hue | VPT |" in line]
    assert any("2 runs: all settings failed" in line for line in failures)


def test_hours_name_a_task_after_the_one_that_selects_its_settings(experiment_of: Callable[..., Experiment]) -> None:
    found = replace(
        estimate_cost(experiment_of(FROM)),
        cell_seconds={"Full": {"shade": 3600.0, "hue": 60.0}},
        settings_from={"hue": "shade"},
    )
    assert found.fitting_tasks(60, ["Full"]) == []
    assert found.fitting_tasks(3600, ["Full"]) == ["shade"]
    assert found.fitting_tasks(3660, ["Full"]) == ["shade", "hue"]
    assert replace(found, settings_from={}).fitting_tasks(3660, ["Full"]) == ["hue", "shade"]


def test_task_that_selects_nothing_needs_no_val_images(folder: Path, experiment_of: Any) -> None:
    shutil.rmtree(folder / "hue" / "val")
    changes = (("seeds = 2", 'seeds = 2\nval_fraction = 0.0\ntrain_on = "train"'),)
    assert experiment_of(FROM, *changes).task("hue").images["val"] == 0
    with pytest.raises(DataError, match="the task 'hue' has no val images to choose settings on"):
        experiment_of(*changes)


def test_folders_whose_tasks_have_other_images_are_not_joined(
    experiment_of: Callable[..., Experiment], tmp_path: Path
) -> None:
    stores = [Store(tmp_path / "with"), Store(tmp_path / "without")]
    stores[0].save_experiment(experiment_of(FROM))
    stores[1].save_experiment(experiment_of(('name = "Full"', 'name = "Other"'), ('name = "VPT"', 'name = "More"')))
    with pytest.raises(DataError, match="cannot be compared: tasks is"):
        load_results(*stores)


def test_ensemble_that_is_not_done_yet_has_not_failed(experiment_of: Any, tmp_path: Path) -> None:
    store = Store(tmp_path / "out")
    store.save_experiment(
        experiment_of(('{ name = "Full"', '{ name = "Both", ensemble_of = "Full" }, { name = "Full"'))
    )
    write_report(store.folder, tmp_path / "report")
    (line, *_) = [
        line for line in (tmp_path / "report" / "report.md").read_text().splitlines() if "| Both | final |" in line
    ]
    assert "1 runs: not done yet" in line


@pytest.mark.parametrize(
    ("of", "stage", "reason"),
    [("Full", "final", "a run of Full diverged"), ("VPT", "search", "all settings failed")],
)
def test_ensemble_that_cannot_be_made_says_why(
    experiment_of: Any, tmp_path: Path, of: str, stage: str, reason: str
) -> None:
    row = f'{{ name = "Both", ensemble_of = "{of}" }}, {{ name = "Full"'
    experiment, store = experiment_of(('{ name = "Full"', row)), Store(tmp_path / "out")
    store.save_experiment(experiment)
    for run in runnable_runs(experiment, {}):
        failed = (run.method, run.stage) == (of, stage) and run.setting.config.training.seed == 0
        store.write(record_of(run, 0.5, "failed" if failed else "done"))
    write_report(store.folder, tmp_path / "report")
    lines = (tmp_path / "report" / "report.md").read_text().splitlines()
    assert [f"1 runs: {reason}" in line for line in lines if "| Both | final |" in line] == [True, True]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([(FROM[0], 'name = "hue", settings_from = "shad", data')], "which is no task; did you mean 'shade'"),
        ([(FROM[0], 'name = "hue", settings_from = "hue", data')], "which is itself; leave the key out"),
        (
            [FROM, ('name = "shade", data', 'name = "shade", settings_from = "hue", data')],
            "'shade' has settings_from = 'hue', which takes its settings from another task itself",
        ),
        (
            [FROM, ('spec = "full"', 'spec = "full", task = { hue = { epochs = 2 } }')],
            "and the method 'Full' has keys for 'hue'; remove one of the two",
        ),
    ],
)
def test_impossible_sources_are_refused(experiment_of: Callable[..., Experiment], changes: Any, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        experiment_of(*changes)
    assert message in str(caught.value)


def test_settings_of_an_ensemble_come_from_the_other_task(folder: Path, experiment_of: Any) -> None:
    row = '{ name = "Both", ensemble_of = "VPT" }, { name = "Full"'
    experiment = experiment_of(FROM, ('{ name = "Full"', row))
    searched = [run for run in runnable_runs(experiment, {}) if run.stage == "search"]
    records = {run.id: record_of(run, 0.5) for run in searched}
    records |= {
        run.id: record_of(run, 0.5) for run in runnable_runs(experiment, records) if run.method in ("VPT", "Full")
    }
    (both,) = [run for run in runnable_runs(experiment, records) if run.task.name == "hue"]
    assert both.stage == "ensemble" and len(both.members) == 2
    assert replace(both.task) == load_experiment(folder / "changed.toml").task("hue")
