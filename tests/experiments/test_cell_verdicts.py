"""Verdicts on cells: in status, report, CSV and JSON, and before all else."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
from click.testing import CliRunner

from vpt.cli.bench import command
from vpt.errors import DataError, SpecError, StorageError
from vpt.experiments.experiment import Experiment
from vpt.experiments.grid_extension import extend_grid
from vpt.experiments.reports.cell_verdicts import judge_cells, summarize
from vpt.experiments.reports.report import write_report
from vpt.experiments.reports.run_table import query, to_csv
from vpt.experiments.reports.status import read_status
from vpt.experiments.results import load_results
from vpt.experiments.store import Record, Store


def test_judge_cells_names_a_diverged_run_and_an_edge(doubtful: Store) -> None:
    found = judge_cells(load_results(doubtful))
    assert [(one.kind, one.task, one.method) for one in found] == [
        ("diverged", "shade", "Full"),
        ("edge of the grid", "hue", "VPT"),
    ]
    assert found[0].evidence == "2 of 2 runs: training loss rose from 12.6 to 555"
    assert found[1].evidence == "best learning_rate is 0.1, the largest of 0.01, 0.1"
    assert found[1].remedy == f"vpt bench extend {os.path.relpath(doubtful.folder)} VPT learning_rate=1"
    assert summarize(found)[0] == ("diverged", "Full on shade (2 of 2 runs: training loss rose from 12.6 to 555)")


def test_write_report_has_both_verdicts_in_its_first_thousand_characters(
    doubtful: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # commands name folders as seen from here
    paths = {path.name: path.read_text() for path in write_report(doubtful.folder, tmp_path / "report")}
    visible = [
        re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", "", part)))
        for part in re.split(r"</?section>", paths["report.html"].partition("<body>")[2])
    ]
    text = " ".join(visible)[:1000]
    for needed in (
        "diverged: Full on shade",
        "from 12.6 to 555",
        "edge of the grid: VPT on hue",
        "0.1, the largest of 0.01, 0.1",
    ):
        assert needed in text and needed in paths["report.md"].replace("**", "")[:1000]
    for title in ("Comparison", "Every task", "Against Full, task by task"):
        table = next(part for part in visible if part.strip().startswith(title))
        assert "† Diverged: Full on shade" in table
    rows = list(csv.reader(io.StringIO(paths["tasks.csv"])))
    assert [[cell.endswith(" †") for cell in row[2:]] for row in rows[1:]] == [[True, False], [False, True]]
    assert all(str(tmp_path) not in text for text in paths.values())  # which are published
    assert "vpt bench extend" in paths["verdicts.csv"] and "12.6 to 555" in paths["verdicts.tex"]


def test_read_status_of_a_risen_loss_counts_it_as_diverged(doubtful: Store) -> None:
    status = read_status(doubtful.folder)
    assert (status.done, status.failed, status.diverged) == (12, 0, 2)
    lines = status.text(200).splitlines()
    assert lines[0] == "small: 12 of 12 runs done, 2 diverged, 0 in error, 0 running"
    assert lines[1].startswith("Full on shade  diverged: 2 of 2 runs") and lines[2].startswith("VPT on hue  edge of")


@pytest.mark.parametrize("width", [80, 40])
def test_status_text_is_not_wider_than_its_terminal(width: int, doubtful: Store) -> None:
    text = read_status(doubtful.folder).text(width)
    commands = [line for line in text.splitlines() if line.startswith("    vpt bench extend ")]
    assert [line.strip() for line in commands] == [judge_cells(load_results(doubtful))[1].remedy]  # to be copied whole
    assert max(len(line) for line in text.splitlines() if line not in commands) <= width
    assert "".join(text.split()) == "".join(read_status(doubtful.folder).text(10_000).split())


def test_status_text_at_80_columns_is_golden(doubtful: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(doubtful.folder.parent)
    assert read_status(Path("out")).text(80) == (
        "small: 12 of 12 runs done, 2 diverged, 0 in error, 0 running\n"
        "Full on shade  diverged: 2 of 2 runs: training loss rose from 12.6 to 555; lower\n"
        "    the learning rate\n"
        "VPT on hue  edge of the grid: best learning_rate is 0.1, the largest of 0.01,\n"
        "    0.1\n"
        "    vpt bench extend out VPT learning_rate=1\n"
        "  shade  Full  2/2\n"
        "  shade  VPT   4/4\n"
        "  hue    Full  2/2\n"
        "  hue    VPT   4/4\n"
    )


def test_tables_of_runs_have_the_verdict_of_each_run(doubtful: Store) -> None:
    rows = [row for row in csv.DictReader(io.StringIO(to_csv(doubtful.folder))) if row["metric"] == "top1"]
    found = {(row["task"], row["method"], row["stage"], row["verdict"]) for row in rows if row["verdict"]}
    assert found == {
        ("shade", "Full", "final", "diverged: training loss rose from 12.6 to 555"),
        ("hue", "VPT", "final", "edge of the grid: best learning_rate is 0.1, the largest of 0.01, 0.1"),
        ("hue", "VPT", "search", "at chance: top-1 50.0 % on val, 95 % interval 45.1 to 54.9 of 400 images; "
                                 "chance is 50.0 %"),
    }  # fmt: skip
    sql = "SELECT count(*) FROM runs WHERE verdict LIKE 'diverged%'"
    assert query(doubtful.folder, sql)[1] == [(2,)]


def test_commands_give_the_verdicts_as_json(doubtful: Store, tmp_path: Path) -> None:
    for arguments in (["status"], ["report", "--out", str(tmp_path / "report")]):
        result = CliRunner().invoke(command, [arguments[0], str(doubtful.folder), *arguments[1:], "--json"])
        verdicts = json.loads(result.stdout)["verdicts"]
        assert [(one["kind"], one["method"]) for one in verdicts] == [("diverged", "Full"), ("edge of the grid", "VPT")]


def test_extend_of_an_edge_runs_what_is_missing_and_keeps_the_rest(doubtful: Store) -> None:
    before = doubtful.records().keys()
    arguments = ["extend", str(doubtful.folder), "VPT", "learning_rate=1", "--json"]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert json.loads(result.stdout)["done"] == 14
    after = Store(doubtful.folder)
    row = after.load_experiment().row("VPT")
    assert sorted(setting.config.training.learning_rate for setting in row.settings) == [0.01, 0.1, 1.0]
    assert before <= after.records().keys()
    new = [record for name, record in after.records().items() if name not in before]
    assert [record.config["training"]["learning_rate"] for record in new if record.stage == "search"] == [1.0, 1.0]


def test_extend_grid_of_a_method_option_combines_it_with_the_nearest(doubtful: Store) -> None:
    experiment = replace(doubtful.load_experiment(), protocol_name="paper")
    longer = extend_grid(experiment, "VPT", {"length": 5})
    assert len(longer.row("VPT").settings) == 4 and "length=5" in longer.row("VPT").settings[-1].spec
    assert [(one.key, one.protocol, one.plan) for one in longer.departures] == [("methods.VPT.length", [1], [1, 5])]
    assert extend_grid(longer, "VPT", {"length": 5}) == longer
    longest = extend_grid(longer, "VPT", {"length": 9})
    assert [(one.key, one.protocol, one.plan) for one in longest.departures] == [("methods.VPT.length", [1], [1, 5, 9])]
    with pytest.raises(SpecError, match="has no number 'lenght'; did you mean 'length'"):
        extend_grid(experiment, "VPT", {"lenght": 5})
    with pytest.raises(SpecError, match="there is no grid of 'VTP' to extend; did you mean 'VPT'"):
        extend_grid(experiment, "VTP", {"length": 5})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("length=inf", "length is inf; give a finite number"),
        ("length=nan", "length is nan; give a finite number"),
        ("learning_rate=inf", "learning_rate is inf; give a finite number"),
        ("length=50.4", "length is 50.4, and vpt("),
    ],
)
def test_extend_by_an_impossible_number_is_refused(text: str, message: str, doubtful: Store) -> None:
    plan = (doubtful.folder / "plan.json").read_bytes()
    result = CliRunner().invoke(command, ["extend", str(doubtful.folder), "VPT", text])
    assert isinstance(result.exception, SpecError) and message in str(result.exception)
    assert (doubtful.folder / "plan.json").read_bytes() == plan


def test_extend_by_two_values_of_one_key_tries_both(doubtful: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Experiment] = []

    def keep(experiment: Experiment, *_: object) -> dict[str, Record]:
        given.append(experiment)
        return {}

    monkeypatch.setattr("vpt.experiments.running.runner.run_experiment", keep)
    arguments = ["extend", str(doubtful.folder), "VPT", "learning_rate=1", "learning_rate=2.5"]
    assert CliRunner().invoke(command, arguments, catch_exceptions=False).exit_code == 0
    rates = [setting.config.training.learning_rate for setting in given[0].row("VPT").settings]
    assert sorted(rates) == [0.01, 0.1, 1.0, 2.5]


def test_extend_of_no_number_is_a_usage_error(doubtful: Store) -> None:
    result = CliRunner().invoke(command, ["extend", str(doubtful.folder), "VPT", "learning_rate"])
    assert result.exit_code == 2 and "is no KEY=VALUE with a number; write learning_rate=2.5" in result.output


def test_extend_of_a_method_whose_runs_have_splits_of_their_own_is_refused(
    experiment_of: Callable[..., Experiment], tmp_path: Path
) -> None:
    store = Store(tmp_path / "out")
    store.save_experiment(experiment_of(("seeds = 2", 'seeds = 2\nsplit_seed = "run"'), ("[0.1, 0.01]", "0.1")))
    plan = (store.folder / "plan.json").read_bytes()
    result = CliRunner().invoke(command, ["extend", str(store.folder), "VPT", "learning_rate=1"])
    assert isinstance(result.exception, SpecError)
    assert "the method 'VPT' has several settings, and with split_seed" in str(result.exception)
    assert (store.folder / "plan.json").read_bytes() == plan


@pytest.mark.parametrize(
    ("split", "message"), [("val", "no val images to choose settings on"), ("test", "no test images to be scored on")]
)
def test_extend_grid_without_images_to_choose_or_score_is_refused(
    experiment_of: Callable[..., Experiment], split: str, message: str
) -> None:
    experiment = experiment_of(("[0.1, 0.01]", "0.1"), ("seeds = 2", 'seeds = 2\ntrain_on = "train"'))
    shade, hue = experiment.tasks
    experiment = replace(experiment, tasks=(shade, replace(hue, images={**hue.images, split: 0})))
    assert extend_grid(experiment, "VPT", {"learning_rate": 0.1}) == experiment
    with pytest.raises(DataError, match=f"the task 'hue' has {message}"):
        extend_grid(experiment, "VPT", {"learning_rate": 1})


@pytest.mark.parametrize("words", [["run", "PLAN", "--out", "FOLDER"], ["extend", "FOLDER", "VPT", "learning_rate=1"]])
def test_commands_whose_runs_ended_in_error_fail_after_their_summary(
    words: list[str], doubtful: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = list(doubtful.records().values())[-1]
    places = {"PLAN": str(doubtful.folder.parent / "plan.toml"), "FOLDER": str(doubtful.folder)}
    monkeypatch.setattr("vpt.experiments.running.runner.run_experiment", lambda *_: Store(doubtful.folder).records())
    arguments = [*(places.get(word, word) for word in words), "--json"]
    doubtful.write(replace(last, status="failed", scores={}, error="the loss became nan"))
    assert CliRunner().invoke(command, arguments).exit_code == 0
    doubtful.write(replace(last, status="error", scores={}, error="StorageError: the disk is full"))
    result = CliRunner().invoke(command, arguments)
    assert json.loads(result.stdout)["errors"] == 1
    assert isinstance(result.exception, StorageError) and str(result.exception).startswith("the disk is full\n1 run ")
