"""The protocol: choosing on val, ties, one look at the test set, failures as records."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vpt.errors import TrainingError
from vpt.experiments import worker as work_module
from vpt.experiments.experiment import Plan, Run
from vpt.experiments.search import chosen, left, ready
from vpt.experiments.store import Record, Store
from vpt.experiments.worker import execute, work
from vpt.training.job import Job

PlanOf = Callable[..., Plan]
_opened: list[str] = []
_listening = False


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _listening and event == "open" and isinstance(arguments[0], str):
        _opened.append(arguments[0])


sys.addaudithook(_hear)  # hears every file that Python opens; it cannot be taken off, but it can be deaf


def made_up(run: Run, top1: float | None) -> Record:
    """A record of a run that was not done."""
    scores = {} if top1 is None else {"top1": top1, "part": "val"}
    status = "failed" if top1 is None else "done"
    return Record(run.id, status, run.task.name, run.method, run.stage, dict(run.config), scores=scores)


def test_every_cell_is_chosen_then_trained_on_train_and_val_and_scored_on_test(done: Store) -> None:
    plan, records = done.plan(), done.records()
    assert len(records) == 12 and not left(plan, records)
    by_stage = {stage: [r for r in records.values() if r.stage == stage] for stage in ("choose", "final")}
    assert {record.scores["part"] for record in by_stage["choose"]} == {"val"}
    assert {record.scores["part"] for record in by_stage["final"]} == {"test"}
    for record in by_stage["choose"]:
        assert record.score == record.history[-1]["val_top1"]  # of the last epoch
    assert {record.history[-1]["val_top1"] for record in by_stage["final"]} == {None}
    assert sorted(r.config["recipe"]["seed"] for r in by_stage["final"]) == [0] * 4 + [1] * 4
    assert {path.stem for path in (done.folder / "tuned").iterdir()} == {r.id for r in by_stage["final"]}
    assert not list((done.folder / "work").iterdir()) and not list((done.folder / "claims").iterdir())
    record = by_stage["final"][0]
    assert record.cost.keys() == {"seconds", "wall_seconds", "peak_memory_bytes", "file_bytes"}
    assert "torch" in record.provenance["versions"] and record.cost["peak_memory_bytes"] >= 0
    for task, entry in plan.cells():
        candidate = chosen(plan, task, entry, records)
        assert candidate is not None
        for run in plan.final(task, entry, candidate):
            assert records[run.id].config["recipe"]["learning_rate"] == candidate.recipe.learning_rate


def test_no_test_image_is_opened_while_choosing(plan_of: PlanOf, folder: Path) -> None:
    global _listening
    plan = plan_of()
    store = Store(folder / "out")
    for image in folder.glob("*/test/*/*.png"):
        image.write_bytes(bytes(image.stat().st_size))  # of the same size, and no picture any more
    runs = [run for run in ready(plan, {}) if run.stage == "choose"]
    _listening = True
    try:
        for run in runs:
            (record,) = execute(plan, [run], store)
            assert (record.status, record.scores.get("part")) == ("done", "val"), record.error
    finally:
        _listening = False
    opened = {Path(name).parts[-3] for name in _opened if name.endswith(".png")}
    assert opened == {"train", "val"}  # so the ear is good, and heard no test
    final = next(run for run in ready(plan, {}) if run.stage == "final")
    (record,) = execute(plan, [final], store)
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
def test_the_choice(top1: list[float | None], expected: tuple[float, float], plan_of: PlanOf) -> None:
    plan = plan_of(("[0.1, 0.01]", "[1.0, 0.5], weight_decay = [0.0, 0.1]"))
    plan = replace(plan, entries=(plan.entries[1],))
    if expected == (0.5, 0.1):  # the order is the plan's, and no other
        first = plan.entries[0].candidates
        plan = replace(plan, entries=(replace(plan.entries[0], candidates=(first[0], first[1], first[3], first[2])),))
    task, entry = next(plan.cells())
    runs = plan.choosing(task, entry)
    records = {run.id: made_up(run, value) for run, value in zip(runs, top1, strict=True)}
    candidate = chosen(plan, task, entry, records)
    assert candidate is not None
    assert (candidate.recipe.learning_rate, candidate.recipe.weight_decay) == expected


def test_nothing_is_chosen_from_a_part_or_from_failures_alone(plan_of: PlanOf) -> None:
    plan = plan_of()
    task, entry = list(plan.cells())[1]
    first, second = plan.choosing(task, entry)
    assert chosen(plan, task, entry, {first.id: made_up(first, 0.9)}) is None
    failed = {run.id: made_up(run, None) for run in (first, second)}
    assert chosen(plan, task, entry, failed) is None
    assert len(left(plan, {})) - len(left(plan, failed)) == 4  # no final run waits for them any more
    error = {**failed, first.id: replace(made_up(first, None), status="error"), second.id: made_up(second, 0.5)}
    assert chosen(plan, task, entry, error) is None


def test_divergence_is_a_record_and_other_errors_are_tried_again(
    plan_of: PlanOf, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(("0.1, 0.01", "1e30, 0.01"))
    plan = replace(plan, tasks=plan.tasks[:1])
    store, real = Store(folder / "out"), work_module.tune

    def tune(job: Job, *args: Any, **options: Any) -> Any:
        if job.method.startswith("full") and job.recipe.seed == 1:
            raise OSError("the cable was pulled")
        return real(job, *args, **options)

    monkeypatch.setattr(work_module, "tune", tune)
    work(plan, store)
    records = store.records()
    assert sorted(record.status for record in records.values()) == ["done"] * 4 + ["error", "failed"]
    failed = next(record for record in records.values() if record.status == "failed")
    assert "the loss became" in failed.error and failed.config["recipe"]["learning_rate"] == 1e30
    candidate = chosen(plan, *list(plan.cells())[1], records)
    assert candidate is not None and candidate.recipe.learning_rate == 0.01
    monkeypatch.setattr(work_module, "tune", real)
    assert store.forget_errors() == 1
    work(plan, store)
    assert sorted(record.status for record in store.records().values()) == ["done"] * 5 + ["failed"]


def test_a_failing_run_keeps_its_epochs(plan_of: PlanOf, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(("epochs = 1", "epochs = 3"))

    def stop(job: Job, listener: Any, **options: Any) -> Any:
        listener.epoch(real_epoch)
        raise TrainingError("the loss became nan")

    run = ready(plan, {})[0]
    from vpt.training import Epoch

    real_epoch = Epoch(1, 0.5, 0.5, None, None, 0.1, 2.0)
    monkeypatch.setattr(work_module, "tune", stop)
    (record,) = execute(plan, [run], Store(folder / "out"))
    assert (record.status, len(record.history), record.cost["seconds"]) == ("failed", 1, 2.0)
    assert record.score is None


def test_other_weights_than_planned_are_an_error(plan_of: PlanOf, folder: Path) -> None:
    plan = replace(plan_of(), fingerprint="sha256:other")
    (record,) = execute(plan, ready(plan, {})[:1], Store(folder / "out"))
    assert record.status == "error" and "have changed since the plan was read" in record.error
