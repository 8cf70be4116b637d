"""The protocol: choosing on val, ties, one look at the test set, failures as records."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vpt.errors import TrainingError
from vpt.experiments.experiment import Experiment, Run
from vpt.experiments.running import worker as worker_module
from vpt.experiments.running.worker import execute_runs, run_worker
from vpt.experiments.selection import best_setting, remaining_runs, runnable_runs
from vpt.experiments.store import Record, Store
from vpt.training.job import Job

ExperimentOf = Callable[..., Experiment]
_opened: list[str] = []
_recording = False


def _record_open(event: str, arguments: tuple[Any, ...]) -> None:
    if _recording and event == "open" and isinstance(arguments[0], str):
        _opened.append(arguments[0])


sys.addaudithook(_record_open)  # an audit hook cannot be removed, so a flag turns it off


def fake_record(run: Run, top1: float | None) -> Record:
    """A record of a run that was not done."""
    scores = {} if top1 is None else {"top1": top1, "split": "val"}
    status = "failed" if top1 is None else "done"
    return Record(run.id, status, run.task.name, run.method, run.stage, dict(run.config), scores=scores)


def test_run_worker_of_each_cell_selects_on_val_and_scores_on_test(done: Store) -> None:
    experiment, records = done.load_experiment(), done.records()
    assert len(records) == 12 and not remaining_runs(experiment, records)
    by_stage = {stage: [r for r in records.values() if r.stage == stage] for stage in ("search", "final")}
    assert {record.scores["split"] for record in by_stage["search"]} == {"val"}
    assert {record.scores["split"] for record in by_stage["final"]} == {"test"}
    for record in by_stage["search"]:
        assert record.score == record.history[-1]["val_metric"]  # of the last epoch
    assert {record.history[-1]["val_metric"] for record in by_stage["final"]} == {None}
    assert sorted(r.config["training"]["seed"] for r in by_stage["final"]) == [0] * 4 + [1] * 4
    assert {path.stem for path in (done.folder / "tuned").iterdir()} == {r.id for r in by_stage["final"]}
    assert not list((done.folder / "work").iterdir()) and not list((done.folder / "locks").iterdir())
    record = by_stage["final"][0]
    assert record.cost.keys() == {"seconds", "wall_seconds", "peak_memory_bytes", "file_bytes"}
    assert "torch" in record.provenance["versions"] and record.cost["peak_memory_bytes"] >= 0
    for task, row in experiment.cells():
        setting = best_setting(experiment, task, row, records)
        assert setting is not None
        for run in experiment.final_runs(task, row, setting):
            assert records[run.id].config["training"]["learning_rate"] == setting.config.training.learning_rate


def test_execute_runs_of_search_stage_opens_no_test_image(experiment_of: ExperimentOf, folder: Path) -> None:
    global _recording
    experiment = experiment_of()
    store = Store(folder / "out")
    for image in folder.glob("*/test/*/*.png"):
        image.write_bytes(bytes(image.stat().st_size))  # of the same size, and no picture any more
    runs = [run for run in runnable_runs(experiment, {}) if run.stage == "search"]
    _recording = True
    try:
        for run in runs:
            (record,) = execute_runs(experiment, [run], store)
            assert (record.status, record.scores.get("split")) == ("done", "val"), record.error
    finally:
        _recording = False
    opened = {Path(name).parts[-3] for name in _opened if name.endswith(".png")}
    assert opened == {"train", "val"}  # the hook recorded files, and no test image
    final = next(run for run in runnable_runs(experiment, {}) if run.stage == "final")
    (record,) = execute_runs(experiment, [final], store)
    assert record.status == "error" and "8 of 8 images cannot be used" in record.error


@pytest.mark.parametrize(
    ("top1", "expected"),
    [
        ([0.5, 0.7, 0.6, 0.1], (1.0, 0.1)),
        ([0.7, 0.7, 0.7, 0.7], (0.5, 0.1)),  # ties: the smaller step, then the order of the plan
        ([0.7, 0.1, 0.7, 0.7], (0.5, 0.1)),
        ([0.7, 0.7, 0.1, 0.1], (1.0, 0.0)),
        ([None, 0.2, None, 0.1], (1.0, 0.1)),
    ],
)
def test_best_setting_with_ties_prefers_smaller_steps_then_plan_order(
    top1: list[float | None], expected: tuple[float, float], experiment_of: ExperimentOf
) -> None:
    experiment = experiment_of(("[0.1, 0.01]", "[1.0, 0.5], weight_decay = [0.0, 0.1]"))
    experiment = replace(experiment, methods=(experiment.methods[1],))
    if expected == (0.5, 0.1):  # the order is the plan's, and no other
        first = experiment.methods[0].settings
        experiment = replace(
            experiment, methods=(replace(experiment.methods[0], settings=(first[0], first[1], first[3], first[2])),)
        )
    task, row = next(experiment.cells())
    runs = experiment.search_runs(task, row)
    records = {run.id: fake_record(run, value) for run, value in zip(runs, top1, strict=True)}
    setting = best_setting(experiment, task, row, records)
    assert setting is not None
    assert (setting.config.training.learning_rate, setting.config.training.weight_decay) == expected


def test_best_setting_with_ties_in_order_takes_the_first_of_the_plan(experiment_of: ExperimentOf) -> None:
    changes = ("[0.1, 0.01]", "[1.0, 0.5]")
    for more, rate in ((), 0.5), ((("seeds = 2", 'seeds = 2\nties = "order"'),), 1.0):
        experiment = experiment_of(changes, *more)
        task, row = experiment.tasks[0], experiment.methods[1]
        records = {run.id: fake_record(run, 0.7) for run in experiment.search_runs(task, row)}
        setting = best_setting(experiment, task, row, records)
        assert setting is not None and setting.config.training.learning_rate == rate


def test_best_setting_of_incomplete_or_failed_runs_is_none(experiment_of: ExperimentOf) -> None:
    experiment = experiment_of()
    task, row = list(experiment.cells())[1]
    first, second = experiment.search_runs(task, row)
    assert best_setting(experiment, task, row, {first.id: fake_record(first, 0.9)}) is None
    failed = {run.id: fake_record(run, None) for run in (first, second)}
    assert best_setting(experiment, task, row, failed) is None
    assert (
        len(remaining_runs(experiment, {})) - len(remaining_runs(experiment, failed)) == 4
    )  # no final run waits for them any more
    error = {**failed, first.id: replace(fake_record(first, None), status="error"), second.id: fake_record(second, 0.5)}
    assert best_setting(experiment, task, row, error) is None


def test_run_worker_with_divergence_records_it_and_retries_other_errors(
    experiment_of: ExperimentOf, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = experiment_of(("0.1, 0.01", "1e30, 0.01"))
    experiment = replace(experiment, tasks=experiment.tasks[:1])
    store, real = Store(folder / "out"), worker_module.run_job

    def tune(job: Job, *args: Any, **options: Any) -> Any:
        if job.method.startswith("full") and job.config.training.seed == 1:
            raise OSError("the cable was pulled")
        return real(job, *args, **options)

    monkeypatch.setattr(worker_module, "run_job", tune)
    run_worker(experiment, store)
    records = store.records()
    assert sorted(record.status for record in records.values()) == ["done"] * 4 + ["error", "failed"]
    failed = next(record for record in records.values() if record.status == "failed")
    assert "the loss became" in failed.error and failed.config["training"]["learning_rate"] == 1e30
    setting = best_setting(experiment, *list(experiment.cells())[1], records)
    assert setting is not None and setting.config.training.learning_rate == 0.01
    monkeypatch.setattr(worker_module, "run_job", real)
    assert store.clear_errors() == 1
    run_worker(experiment, store)
    assert sorted(record.status for record in store.records().values()) == ["done"] * 5 + ["failed"]


def test_execute_runs_that_fail_keep_their_epochs(
    experiment_of: ExperimentOf, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = experiment_of(("epochs = 1", "epochs = 3"))

    def stop(job: Job, callback: Any, **options: Any) -> Any:
        callback.on_epoch(real_epoch)
        raise TrainingError("the loss became nan")

    run = runnable_runs(experiment, {})[0]
    from vpt.training import EpochMetrics

    real_epoch = EpochMetrics(1, 0.5, 0.5, None, None, 0.1, 2.0)
    monkeypatch.setattr(worker_module, "run_job", stop)
    (record,) = execute_runs(experiment, [run], Store(folder / "out"))
    assert (record.status, len(record.history), record.cost["seconds"]) == ("failed", 1, 2.0)
    assert record.score is None


def test_execute_runs_with_changed_weights_gives_an_error(experiment_of: ExperimentOf, folder: Path) -> None:
    experiment = replace(experiment_of(), fingerprint="sha256:other")
    (record,) = execute_runs(experiment, runnable_runs(experiment, {})[:1], Store(folder / "out"))
    assert record.status == "error" and "have changed since the plan was read" in record.error
