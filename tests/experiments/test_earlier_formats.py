"""Folders of benchmark runs that version 0.1.0 wrote: today's plan finds its runs there, and nothing is left to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from vpt.experiments.experiment import Experiment
from vpt.experiments.planning.file import load_experiment
from vpt.experiments.reports.report import write_report
from vpt.experiments.reports.status import read_status
from vpt.experiments.running.local_executor import InlineExecutor
from vpt.experiments.running.runner import run_experiment
from vpt.experiments.selection import remaining_runs, resolved_runs
from vpt.experiments.store import RECORD_FORMAT, Store
from vpt.training import Callback

SAMPLES = Path(__file__).parents[1] / "compatibility" / "samples" / "bench"
SHALLOW = {"name": "VPT-shallow", "spec": "vpt(length=2, depth=shallow)"}
COMPARISONS = [("plan.toml", "plan", 12), ("squares.toml", "squares-plan", 6)]


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    """A copy of the samples."""
    return Path(shutil.copytree(SAMPLES, tmp_path / "bench"))


@pytest.mark.parametrize(("plan", "folder", "count"), COMPARISONS)
def test_plan_of_0_1_0_finds_every_run_done(bench: Path, plan: str, folder: str, count: int) -> None:
    experiment, store = load_experiment(bench / plan).with_all_decaying(), Store(bench / folder)
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


def test_folder_of_0_1_0_goes_on_with_weight_decay_for_all_tensors(bench: Path) -> None:
    """A new seed trains as the two before it, and says so; another folder trains by today's rule."""
    changes = {"seeds": 3, "tasks": [{"name": "numerals"}], "methods": [SHALLOW], "baseline": None}
    plan = load_experiment(bench / "plan.toml", **changes)
    notes: list[str] = []

    class Notes(Callback):
        def on_note(self, text: str) -> None:
            notes.append(text)

    def decays(folder: Path) -> list[str]:
        run_experiment(plan, folder, InlineExecutor(), Notes())
        saved, records = Store(folder).load_experiment(), Store(folder).records()
        (setting,) = saved.methods[0].settings
        assert not remaining_runs(saved, records)
        added = [record for record in records.values() if record.provenance["ended"] > "2026-11-28T01"]
        assert len(added) == (1 if folder.name == "plan" else 3)
        return [setting.config.training.decay, *(record.config["training"].get("decay", "all") for record in added)]

    for count in (1, 2):  # also once today's version has written the plan to the folder
        assert decays(bench / "plan") == ["all", "all"]
        assert len(notes) == count and "decay all tensors" in notes[-1]
    assert decays(bench / "new") == ["matrices"] * 4
    assert len(notes) == 2


def test_plan_with_a_row_that_decays_all_tensors_runs_again_as_it_is(
    experiment_of: Callable[..., Experiment], folder: Path
) -> None:
    """Its runs are those that version 0.1.0 would have had for the other row."""
    rows = '{ name = "All", spec = "linear", decay = "all" }, ', '{ name = "Matrices", spec = "linear" }'
    replaced = '{ name = "Full", spec = "full" }, { name = "VPT", spec = "vpt(length=1)", learning_rate = [0.1, 0.01] }'
    plan, part = (experiment_of((replaced, text)) for text in ("".join(rows), rows[1]))
    records = [run_experiment(each, folder / "out", InlineExecutor()) for each in (plan, plan, part)]
    assert records[0] == records[1] and len(records[0]) == 8
    assert len(records[2]) == 4 and records[2].items() < records[0].items()
    assert Store(folder / "out").load_experiment().methods == part.methods


def test_record_of_0_1_0_that_is_an_error_is_cleared(bench: Path) -> None:
    path = next((bench / "plan" / "runs").iterdir())
    path.write_text(path.read_text().replace('"status": "done"', '"status": "error"'))
    store = Store(bench / "plan")
    assert store.clear_errors() == 1 and not path.exists() and len(store.records()) == 11
