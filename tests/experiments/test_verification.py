"""Runs that are done again: a faithful record is confirmed, another one is not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from vpt.cli.bench import command
from vpt.experiments.experiment import Experiment, Run
from vpt.experiments.running.verification import verify
from vpt.experiments.selection import runnable_runs
from vpt.experiments.store import Record, Store
from vpt.training import Callback


class Counted(Callback):
    """The label of each run that was done, and the estimates."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.left: list[float | None] = []

    def on_run_end(self, run: Run, record: Record) -> None:
        self.ended.append(run.id)

    def on_progress(self, done: int, total: int, eta_seconds: float | None) -> None:
        self.left.append(eta_seconds)


@pytest.fixture
def store(done: Store, tmp_path: Path) -> Store:
    """A copy of the small comparison that is done."""
    return Store(Path(shutil.copytree(done.folder, tmp_path / "out")))


def test_verify_of_faithful_records_confirms_the_chosen_ones(store: Store) -> None:
    before = {path: path.read_bytes() for path in store.folder.rglob("*") if path.is_file()}
    callback = Counted()
    found = verify(store.folder, 0.25, 1, callback)
    assert found.confirmed and found.total == len(store.records()) == 12
    assert [run.id for run in found.runs] == callback.ended and len(set(callback.ended)) == 3
    assert all(run.stored == run.again == store.records()[run.id].score for run in found.runs)
    assert len(callback.left) == 3 and callback.left[-1] == 0 and None not in callback.left
    assert {path: path.read_bytes() for path in store.folder.rglob("*") if path.is_file()} == before


def test_verify_command_of_an_altered_record_ends_with_one(store: Store) -> None:
    for record in store.records().values():
        store.write(replace(record, scores={**record.scores, "top1": 0.125 if record.stage == "final" else 0.0625}))
    result = CliRunner().invoke(command, ["verify", str(store.folder), "--sample", "1%", "--json"])
    assert result.exit_code == 1
    (run,) = json.loads(result.stdout)["runs"]
    assert run["status"] == "outside" and run["spread"] == 0 and run["stored"] < 0.2 < run["again"]


@pytest.mark.parametrize(
    ("stored", "again", "status"),
    [(0.52, 0.5, "within"), (0.53, 0.5, "outside"), (None, 0.5, "outside"), (None, None, "within")],
)
def test_verified_run_is_compared_with_the_spread_over_seeds(
    store: Store, monkeypatch: pytest.MonkeyPatch, stored: float | None, again: float | None, status: str
) -> None:
    def with_score(record: Record, score: float | None) -> Record:
        scores = {} if score is None else {**record.scores, "top1": score}
        return replace(record, status="failed" if score is None else "done", scores=scores)

    records = list(store.records().values())
    (first, *_) = chosen = [record for record in records if (record.task, record.method) == ("hue", "Full")]
    for record in records:
        if record not in chosen:
            store.remove_records([record.id])
    if stored is not None:  # two seeds, whose standard deviation is 0.0283
        for record, score in zip(chosen, (stored, stored - 0.04), strict=True):
            store.write(with_score(record, score))
    else:
        store.write(with_score(first, None))
        store.remove_records([chosen[1].id])
    monkeypatch.setattr(
        "vpt.experiments.running.verification.execute_runs",
        lambda experiment, runs, scratch, callback: [with_score(replace(first, id=runs[0].id), again)],
    )
    found = [run for run in verify(store.folder, 1.0, 0, Callback()).runs if run.id == first.id]
    assert [run.status for run in found] == [status]


def test_verify_repeats_heads_at_once_and_with_the_stored_threads(
    experiment_of: Callable[..., Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, repeated = Store(tmp_path / "out"), list[tuple[int, int]]()
    experiment = experiment_of(
        ('{ name = "Full", spec = "full" }, ', ""),
        ('name = "VPT", spec = "vpt(length=1)"', 'name = "P", spec = "linear"'),
    )
    store.save_experiment(experiment)
    cost, threads = {"seconds": 1.0, "wall_seconds": 1.0}, torch.get_num_threads() + 1
    for run in runnable_runs(experiment, {}):
        scores = {"split": "val", "top1": 1.0, "mean_per_class": 1.0, "per_class": {"a": 1.0, "b": 1.0}}
        store.write(Record.of_run(run, "done", scores=scores, cost=cost, provenance={"threads": threads}))
    stored = store.records()

    def repeat(experiment: Experiment, runs: Sequence[Run], scratch: Store, callback: Callback) -> list[Record]:
        repeated.append((len(runs), torch.get_num_threads()))
        return [stored[run.id] for run in runs]

    monkeypatch.setattr("vpt.experiments.running.verification.execute_runs", repeat)
    callback = Counted()
    assert len(verify(store.folder, 1.0, 0, callback).runs) == len(callback.ended) == 4  # two rates of each task
    assert repeated == [(2, threads)] * 2 and torch.get_num_threads() == threads - 1
    assert callback.left[-1] == 0 and callback.left == sorted(callback.left, reverse=True)


def test_verify_of_a_run_that_ends_in_an_error_names_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise OSError("no such disk")

    monkeypatch.setattr("vpt.experiments.running.worker.run_job", fail)
    found = verify(store.folder, 0.01, 0, Callback())
    assert not found.confirmed and found.runs[0].status == "error"
    assert str(found.runs[0]).endswith("stored, and now OSError: no such disk")


@pytest.mark.parametrize("sample", ["5", "0%", "101%", "half"])
def test_verify_of_no_percentage_is_refused(sample: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["verify", str(tmp_path), "--sample", sample])
    assert result.exit_code == 2 and f"'{sample}' is no percentage" in result.output
