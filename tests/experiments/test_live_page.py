"""The live page of a plan: whole at any time, throttled, and at rest when the runs are done."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from helpers.drawn_page import page_faults
from vpt.cli.bench import command
from vpt.errors import StorageError
from vpt.experiments.reports.live_page import ExperimentPage
from vpt.experiments.selection import resolved_runs
from vpt.experiments.store import Store
from vpt.training import Callback, EpochMetrics


def epoch(number: int, loss: float) -> EpochMetrics:
    return EpochMetrics(number, loss, 0.5, None, None, 0.1, 1.0)


def test_live_page_of_a_running_plan_shows_cells_curve_and_time_left(doubtful: Store, tmp_path: Path) -> None:
    records = doubtful.records()
    failed = next(record for record in records.values() if record.method == "VPT" and record.stage == "final")
    doubtful.write(replace(failed, status="error", scores={}, error="one\ntwo\nthree <b>\nOSError: disk full"))
    seconds = [0.0]
    page = ExperimentPage(Store(doubtful.folder), tmp_path / "page.html", pytest.fail, lambda: seconds[0])
    for run_id, losses in zip(list(records)[:2], ([12.6, 80.0, 555.0], [2.0]), strict=True):
        assert doubtful.locks.acquire(run_id)  # as two worker processes do
        metrics = doubtful.work_path(run_id).with_suffix(".run") / "metrics.jsonl"
        metrics.parent.mkdir(parents=True)
        metrics.write_text("".join(f'{{"train_loss": {loss}}}\n' for loss in losses))
    assert doubtful.locks.acquire(list(records)[2])  # which has not ended an epoch
    labels = [resolved_runs(doubtful.load_experiment(), records)[run_id].label for run_id in list(records)[:3]]
    page.on_progress(11, 12, 90.0)
    text = (tmp_path / "page.html").read_text()
    for needed in (
        '<meta http-equiv="refresh" content="10">',
        "12 of 12 runs",
        f"<p>{labels[0]}; epoch 3 of 1</p>",
        "training loss, 12.6 at first, 555\nnow; scale from 0 to 555",
        f"<p>{labels[1]}; epoch 1 of 1</p>",
        f"<p>{labels[2]}</p>",
        "<strong>diverged</strong>: Full on shade",
        "100.00 ± 0.00 · 2/2 runs",
        "<pre>two\nthree &lt;b&gt;\nOSError: disk full</pre>",  # the last three lines of the message
    ):
        assert needed in text
    assert "<script" not in text and "://" not in text
    page.close()
    text = (tmp_path / "page.html").read_text()
    assert "http-equiv" not in text and "<figure" not in text


def test_live_page_within_its_interval_is_not_written_again(doubtful: Store, tmp_path: Path) -> None:
    seconds, path = [0.0], tmp_path / "page.html"
    page = ExperimentPage(doubtful, path, pytest.fail, lambda: seconds[0])
    page.on_progress(1, 2, None)
    path.unlink()
    seconds[0] = 9.0
    page.on_epoch(epoch(1, 1.0))
    assert not path.exists()
    seconds[0] = 10.0
    page.on_epoch(epoch(2, 1.0))
    assert path.exists()


def test_live_page_on_a_disk_that_fails_stops_no_run(doubtful: Store, tmp_path: Path) -> None:
    (tmp_path / "page.html").mkdir()
    notes: list[str] = []
    page = ExperimentPage(doubtful, tmp_path / "page.html" / "x" / "y.html", notes.append)
    (tmp_path / "page.html" / "x").write_text("no folder")
    runs = resolved_runs(doubtful.load_experiment(), doubtful.records())
    page.on_run_end(next(iter(runs.values())), next(iter(doubtful.records().values())))
    page.close()
    assert len(notes) == 1 and "y.html could not be written" in notes[0]


def test_live_page_that_cannot_be_drawn_stops_no_run(doubtful: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vpt.experiments.reports.live_page.judge_cells", lambda results: 1 / 0)
    notes: list[str] = []
    page = ExperimentPage(doubtful, doubtful.folder / "page.html", notes.append)
    page.on_progress(1, 2, None)
    page.close()
    assert len(notes) == 1 and "division by zero; the work goes on without it" in notes[0]


@pytest.mark.parametrize("left", [KeyboardInterrupt, StorageError("disk full")])
def test_bench_run_that_is_left_early_closes_its_page(
    left: Any, doubtful: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(experiment: object, folder: Path, executor: object, callback: Callback) -> None:
        callback.on_progress(1, 2, None)
        assert "http-equiv" in (folder / "page.html").read_text()
        raise left

    monkeypatch.setattr("vpt.experiments.running.runner.run_experiment", leave)
    plan = str(doubtful.folder.parent / "plan.toml")
    result = CliRunner().invoke(command, ["run", plan, "--out", str(doubtful.folder), "--page"])
    assert result.exit_code
    assert "http-equiv" not in (doubtful.folder / "page.html").read_text()


def test_bench_run_of_worker_processes_shows_the_curve_of_a_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages: list[str] = []
    monkeypatch.setattr("vpt.training.live_page.REFRESH_SECONDS", 0.0)
    monkeypatch.setattr("vpt.training.live_page.write_atomic", lambda path, content: pages.append(content.decode()))
    monkeypatch.setattr("vpt.experiments.running.local_executor.POLL_INTERVAL", 0.1)
    plan = folder / "one.toml"
    plan.write_text(
        'name = "one"\nseeds = 1\ntasks = [{ name = "shade", data = "shade" }]\n'
        'methods = [{ name = "Full", spec = "full" }]\n[training]\nepochs = 100\nbatch_size = 8\n'
    )
    result = CliRunner().invoke(command, ["run", str(plan), "--out", str(folder / "out"), "--page"])
    assert result.exit_code == 0, result.output
    assert any(re.search(r"; epoch \d+ of 100</p>\n<figure><svg", page) for page in pages)
    assert "1 of 1 runs" in pages[-1] and "<svg" not in pages[-1]


@pytest.mark.parametrize("left", [None, 90.0])
def test_live_page_without_an_estimate_gives_no_time(left: float | None, doubtful: Store, tmp_path: Path) -> None:
    record = next(record for record in doubtful.records().values() if record.stage == "final")
    (doubtful.folder / "runs" / f"{record.id}.json").unlink()
    page = ExperimentPage(Store(doubtful.folder), tmp_path / "page.html", pytest.fail)
    page.on_progress(11, 12, left)
    text = (tmp_path / "page.html").read_text()
    assert "11 of 12 runs" in text and ("about 1 min 30 s left" in text) == (left is not None)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
def test_live_page_in_a_browser_is_readable(
    browser: Any, doubtful: Store, tmp_path: Path, scheme: str, width: int
) -> None:
    path, run_id = tmp_path / "page.html", next(iter(doubtful.records()))
    assert doubtful.locks.acquire(run_id)
    metrics = doubtful.work_path(run_id).with_suffix(".run") / "metrics.jsonl"
    metrics.parent.mkdir(parents=True)
    metrics.write_text('{"train_loss": 12.6}\n{"train_loss": 555.0}\n')
    ExperimentPage(doubtful, path, pytest.fail).on_progress(11, 12, 90.0)
    path.write_text(re.sub("<meta http-equiv.*", "", path.read_text()))  # or it is read again while it is looked at
    assert "<figure" in path.read_text() and page_faults(browser, path.as_uri(), scheme, width) == []
