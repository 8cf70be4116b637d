"""Folders of benchmark runs that version 0.1.0 wrote: today's plan finds its runs there, and nothing is left to do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from vpt.experiments.plan_file import load_experiment
from vpt.experiments.report import write_report
from vpt.experiments.results import read_status
from vpt.experiments.search import remaining_runs, resolved_runs
from vpt.experiments.store import RECORD_FORMAT, Store

SAMPLES = Path(__file__).parents[1] / "compatibility" / "samples" / "bench"
COMPARISONS = [("plan.toml", "plan", 12), ("squares.toml", "squares-plan", 6)]


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    """A copy of the samples."""
    return Path(shutil.copytree(SAMPLES, tmp_path / "bench"))


@pytest.mark.parametrize(("plan", "folder", "count"), COMPARISONS)
def test_plan_of_0_1_0_finds_every_run_done(bench: Path, plan: str, folder: str, count: int) -> None:
    experiment, store = load_experiment(bench / plan), Store(bench / folder)
    records = store.records()
    assert not remaining_runs(experiment, records)
    assert resolved_runs(experiment, records).keys() == records.keys() and len(records) == count
    for run in resolved_runs(experiment, records).values():
        record = records[run.id]
        assert record.config == run.config and record.stage == run.stage and record.format == RECORD_FORMAT
        assert store.has_record(run.id) and store.tuned_path(run.id).exists() == (run.stage == "final")
        assert record.score is not None and record.parameters["trainable"] < record.parameters["total"]


@pytest.mark.parametrize(("plan", "folder", "count"), COMPARISONS)
def test_folder_of_0_1_0_is_reported(bench: Path, plan: str, folder: str, count: int) -> None:
    status = read_status(bench / folder)
    assert (status.done, status.total) == (count, count)
    assert "What is missing" not in write_report(bench / folder, bench / "report")[1].read_text()


def test_record_of_0_1_0_that_is_an_error_is_cleared(bench: Path) -> None:
    path = next((bench / "plan" / "runs").iterdir())
    path.write_text(path.read_text().replace('"status": "done"', '"status": "error"'))
    store = Store(bench / "plan")
    assert store.clear_errors() == 1 and not path.exists() and len(store.records()) == 11
