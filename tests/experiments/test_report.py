"""The report: every figure is in it, what is missing is said, and the page opens anywhere."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner

from vpt.backbones import DEFAULT
from vpt.cli.bench import command
from vpt.cli.console_table import to_console
from vpt.errors import SpecError
from vpt.experiments.experiment import Experiment
from vpt.experiments.reports.live_page import ExperimentPage
from vpt.experiments.reports.report import write_report
from vpt.experiments.reports.run_table import METRIC_COLUMNS, metric_rows, query, to_csv, to_parquet
from vpt.experiments.reports.status import read_status
from vpt.experiments.reports.table import Table, format_mean_std, format_percent
from vpt.experiments.reports.tables import build_tables, settings_table
from vpt.experiments.results import load_results
from vpt.experiments.running.worker import run_worker
from vpt.experiments.selection import resolved_runs, runnable_runs
from vpt.experiments.store import Record, Store
from vpt.plots import style
from vpt.plots.inline_svg import difference_bars, labeled_scatter, sparkline
from vpt.training.verdicts import KINDS

ExperimentOf = Callable[..., Experiment]
VOID_TAGS = {"meta"}


class Page(HTMLParser):
    """Checks that every tag is closed in its turn, and gathers text and addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.addresses: list[str] = []
        self.counts: dict[str, int] = {}
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.addresses += [str(value) for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"


@pytest.fixture
def broken(done: Store, tmp_path: Path) -> Store:
    """The comparison with one final run diverged, one in error and one not done."""
    shutil.copytree(done.folder, tmp_path / "out")
    store = Store(tmp_path / "out")
    full, prompts, other = (
        [r for r in store.records().values() if (r.task, r.method, r.stage) == (task, method, "final")]
        for task, method in (("shade", "Full"), ("shade", "VPT"), ("hue", "VPT"))
    )
    store.write(replace(full[0], status="failed", error="the loss became nan <in> epoch 1 | step 2"))
    store.write(replace(prompts[0], status="error", error="OSError: the disk_is full & 100 % of it"))
    (store.folder / "runs" / f"{other[0].id}.json").unlink()
    return Store(tmp_path / "out")


def test_write_report_of_finished_runs_contains_every_score(done: Store, tmp_path: Path) -> None:
    paths = {path.name: path.read_text() for path in write_report(done.folder, tmp_path)}
    page, found = Page(paths["report.html"]), load_results(done)
    for cell in found.cells.values():
        assert len(cell.scores) == 2
        figure = f"{format_percent(cell.mean)} ± {format_percent(cell.std)}"
        assert figure in page.text and figure in paths["report.md"] and figure in paths["tasks.csv"]
        assert figure.replace("±", r"$\pm$") in paths["tasks.tex"]
    for text in (page.text, paths["report.md"]):
        for method in found.methods:
            assert f"{found.parameters(method):.2f}x" in text
        for needed in ("Light", "Color", "Wilcoxon", "vpt(length=1)", "torch", "sha256:", "learning rate", "shade"):
            assert needed in text
        assert "What is missing" not in text
    assert page.counts["svg"] == 6  # VPT against Full, accuracy against parameters, and a curve for each cell
    assert "prefers-color-scheme: dark" in paths["report.html"] and "width=device-width" in paths["report.html"]
    assert not page.addresses and "script" not in page.counts and "://" not in paths["report.html"]
    assert found.parameters("Full") == pytest.approx(2, abs=0.01) and found.wins("Full") is None
    assert found.parameters("VPT") == pytest.approx(1, abs=0.01) and found.wins("VPT") in (0, 1, 2)


def test_write_report_of_missing_runs_lists_them_and_averages_none(broken: Store, tmp_path: Path) -> None:
    found = load_results(broken)
    assert {key: cell.mean is None for key, cell in found.cells.items()} == {
        ("shade", "Full"): True, ("shade", "VPT"): True, ("hue", "Full"): False, ("hue", "VPT"): True,
    }  # fmt: skip
    main, per_task, *_, missing = build_tables(found)
    assert main.rows[0][2:] == ("–", format_percent(found.cells["hue", "Full"].mean), "–")
    assert main.rows[1][2:] == ("–", "–", "–")
    assert "(1 of 2)" in per_task.rows[0][2]
    assert [row[3] for row in missing.rows] == ["failed", "error", "missing"]
    paths = {path.name: path.read_text() for path in write_report(broken.folder, tmp_path / "report")}
    page = Page(paths["report.html"])
    assert "the loss became nan <in> epoch 1" in page.text and "1 runs: not done yet" in page.text
    assert "nan <in> epoch 1 \\| step 2" in paths["report.md"]
    assert r"disk\_is full \& 100 \% of it" in paths["failures.tex"]


def test_write_report_again_leaves_no_table_of_an_earlier_one(broken: Store, done: Store, tmp_path: Path) -> None:
    out = tmp_path / "report"
    write_report(broken.folder, out)
    assert (out / "failures.csv").exists()
    (out / "notes.csv").touch()
    written = write_report(done.folder, out)
    assert {path.name for path in out.iterdir()} == {path.name for path in written} | {"notes.csv"}


def test_cost_table_has_no_share_above_all_and_says_whose_memory_it_is(done: Store, tmp_path: Path) -> None:
    shutil.copytree(done.folder, tmp_path / "runs")
    for path in (tmp_path / "runs" / "runs").glob("[!.]*.json"):
        values = json.loads(path.read_text())
        values["parameters"]["trainable"] = 3 * values["parameters"]["total"]  # as earlier ensembles counted
        path.write_text(json.dumps(values))
    paths = {path.name: path for path in write_report(tmp_path / "runs", tmp_path / "report")}
    cost = paths["report.md"].read_text().partition("## Cost")[2].partition("## ")[0]
    assert set(re.findall(r"[\d.,]+ %", cost)) == {"100.00 %"}
    assert "Peak memory: the highest of any final run, of the GPU where one trained, else of the process." in cost


def test_settings_table_has_the_epochs_of_each_task(done: Store) -> None:
    results = load_results(done)
    (key, cell), *_ = results.cells.items()
    longer = {**results.cells, key: replace(cell, task=replace(cell.task, epochs=7))}
    before, after = (
        [row[7] for row in settings_table(found).rows] for found in (results, replace(results, cells=longer))
    )
    assert after == ["7", *before[1:]] and before[0] != "7"


def test_to_csv_of_a_store_has_a_row_for_each_run_and_metric(done: Store, broken: Store) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(done.folder))))
    records = done.records()
    pairs = [(row["run_id"], row["metric"]) for row in rows]
    assert {run for run, _ in pairs} == records.keys() and len(set(pairs)) == len(pairs)
    assert sum(metric == "top1" for _, metric in pairs) == len(records)
    for row in rows:
        record = records[row["run_id"]]
        if row["metric"] == "top1":
            assert float(row["value"]) == record.score
        assert float(row["seconds"]) == record.cost["seconds"]
        assert (row["task"], row["stage"], row["eval_split"]) == (record.task, record.stage, record.scores["split"])
    statuses = {row["run_id"]: row["status"] for row in csv.DictReader(io.StringIO(to_csv(broken.folder)))}
    assert sorted(statuses.values()) == [*["done"] * 9, "error", "failed"]


def test_read_status_of_a_store_counts_its_runs(done: Store, broken: Store) -> None:
    whole, part = read_status(done.folder), read_status(broken.folder)
    assert (whole.done, whole.total, whole.running, whole.error_messages) == (12, 12, 0, ())
    assert (part.done, part.failed, part.errors, part.total) == (9, 1, 1, 12)
    assert "small: 9 of 12 runs done, 1 diverged, 1 in error, 0 running" in part.text()
    assert "hue    VPT   3/4" in part.text() and "the disk_is full" in part.text()


def test_labeled_scatter_of_close_points_separates_the_labels() -> None:
    text = labeled_scatter("crowded", {f"m{i}": (1000.0, 70 + i / 100) for i in range(8)})
    heights = [float(part.split(' y="')[1].split('"')[0]) for part in text.split("<text") if ">m" in part]
    assert len(heights) == 8 and all(b - a >= 11.9 for a, b in pairwise(sorted(heights)))


def test_bench_commands_on_finished_runs_print_results(done: Store, folder: Path, tmp_path: Path) -> None:
    def call(*arguments: object) -> str:
        result = CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    planned = call("plan", folder / "plan.toml")
    assert "runs      12" in planned and "VPT: 2 settings, about" in planned and "disk      about" in planned
    assert '"runs": 12' in call("plan", folder / "plan.toml", "--json")
    assert "12 of 12 runs done" in call("status", done.folder)
    assert '"done": 12' in call("status", done.folder, "--json")
    assert call("export", done.folder).count("\n") == 1 + 12 * 2  # runs with two metrics
    call("export", done.folder, "--csv", tmp_path / "runs.csv")
    assert (tmp_path / "runs.csv").read_text() == to_csv(done.folder)
    assert "final" in call("query", done.folder, "SELECT DISTINCT stage FROM runs")
    assert "report.html" in call("report", done.folder, "--out", tmp_path / "there")
    files = json.loads(call("report", done.folder, "--out", tmp_path / "there", "--json"))["files"]
    assert sorted(files) == sorted(map(str, (tmp_path / "there").iterdir()))
    sql = "SELECT stage, count(*) FROM runs GROUP BY stage"
    assert json.loads(call("query", done.folder, sql, "--json")) == {
        "columns": ["stage", "count(*)"],
        "rows": [["final", 8], ["search", 4]],
    }
    sql = "SELECT 9e999, -9e999, NULL, x'00ff'"  # JSON has neither infinity nor bytes
    assert json.loads(call("query", done.folder, sql, "--json"))["rows"] == [[None, None, None, "00ff"]]
    for name in command.commands:
        assert f"\n  vpt bench {name} " in call(name, "--help")


def test_query_of_runs_in_sql_returns_rows(done: Store) -> None:
    names, rows = query(done.folder, "SELECT task, count(*), avg(top1) FROM runs WHERE stage = 'final' GROUP BY task")
    expected = {
        task: [record.score for record in done.records().values() if (record.task, record.stage) == (task, "final")]
        for task in ("hue", "shade")
    }
    assert names == ["task", "count(*)", "avg(top1)"]
    assert rows == [(task, 4, pytest.approx(sum(values) / 4)) for task, values in expected.items()]
    with pytest.raises(SpecError, match=r"no such column: topp1; .*the table is runs, its columns are id, task"):
        query(done.folder, "SELECT topp1 FROM runs")
    with pytest.raises(SpecError, match="one statement"):
        query(done.folder, "SELECT 1; DROP TABLE runs")


def test_metric_rows_of_each_run_name_all_that_made_them(done: Store) -> None:
    rows, records = list(metric_rows(done.folder)), done.records()
    assert [(row["run_id"], row["metric"]) for row in rows] == [
        (row["run_id"], metric) for row in rows[::2] for metric in ("top1", "mean_per_class")
    ]
    assert {row["run_id"] for row in rows} == records.keys()
    for row in rows:
        assert list(row) == list(METRIC_COLUMNS)
        assert row["verdict"] is None or row["verdict"].startswith(KINDS)
        record = records[row["run_id"]]
        assert row["value"] == record.scores[row["metric"]]
        assert row["fingerprint"].startswith("sha256:") and row["seed"] == record.config["training"]["seed"]
        assert (row["backbone"], row["image_size"], row["device"]) == (
            DEFAULT,
            48,
            "cpu" if not row["gpus"] else "cuda",
        )
        assert row["timm"] == record.provenance["versions"]["timm"] and row["python"]
    assert query(done.folder, "SELECT count(*), count(DISTINCT run_id) FROM metrics")[1] == [(24, 12)]


@pytest.mark.parametrize(
    "sql", ["DELETE FROM runs", "UPDATE runs SET top1 = 1", "ATTACH 'x.db' AS x", "PRAGMA query_only = 0", "BEGIN", ""]
)
def test_query_that_is_no_select_is_refused(sql: str, done: Store) -> None:
    with pytest.raises(SpecError, match="write one SELECT statement"):
        query(done.folder, sql)
    result = CliRunner().invoke(command, ["query", str(done.folder), sql])
    assert result.exit_code != 0 and not result.output


def test_to_parquet_of_a_store_equals_the_csv_rows(done: Store) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason='Parquet is an extra: pip install ".[parquet]"')
    table = parquet.read_table(io.BytesIO(to_parquet(done.folder)))
    assert table.column_names == list(METRIC_COLUMNS)
    rows = list(csv.DictReader(io.StringIO(to_csv(done.folder))))
    texts = [{name: "" if value is None else str(value) for name, value in row.items()} for row in table.to_pylist()]
    assert texts == rows and len(rows) == 24


def test_report_curves_of_final_runs_show_each_loss(done: Store, tmp_path: Path) -> None:
    page = write_report(done.folder, tmp_path)[0].read_text()
    charts = page.partition("<h2>Curves</h2>")[2].partition("</section>")[0]
    assert charts.count("<svg") == 4 and charts.count("<use ") == 8  # 2 tasks x 2 methods, 2 seeds of one epoch each
    assert 'aria-label="shade, VPT: training loss"' in charts


def test_sparkline_of_extreme_values_spans_the_scale() -> None:
    drawn = sparkline("title", [[2.0, 0.0], [1.0]], 0.0, 2.0)
    left, right, top, bottom = 0.03 * 90, 0.97 * 90, 0.08 * 30.24, 0.92 * 30.24
    assert f"M {left:g} {top:g} \nL {right:g} {bottom:g}" in drawn
    assert f'x="{left:g}" y="{(top + bottom) / 2:g}"' in drawn  # a curve of one epoch is a dot


def test_charts_of_each_kind_use_the_colors_of_the_page() -> None:
    for drawn in (
        sparkline("a & b", [[1.0, 0.5]], 0.0, 1.0),
        labeled_scatter("a & b", {"<x>": (10.0, 50.0), "y": (1e6, 60.0)}),
        difference_bars("a & b", {"a task with a very long name": 1.0, "other": -0.5}, 1.0),
    ):
        assert drawn.startswith("<svg ") and drawn.endswith("</svg>") and 'aria-label="a &amp; b"' in drawn
        assert set(re.findall("#[0-9a-f]{6}", drawn)) <= {style.BLUE, style.VERMILLION, style.SKY}
        assert "<x>" not in drawn and "://" not in drawn and "#0" not in drawn.replace('"#', "").replace(style.BLUE, "")
    assert "a task with a ve…" in drawn and style.BLUE in drawn and style.VERMILLION in drawn and "+1.00" in drawn


def test_format_mean_std_without_std_omits_it() -> None:
    assert (format_mean_std(0.5, None), format_mean_std(0.5, 0.0), format_mean_std(None, 0.1)) == (
        "50.00",
        "50.00 ± 0.00",
        "–",
    )


def test_to_console_of_markup_shows_it_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    Console(width=80).print(to_console(Table("x", "[red]t", ("method", "top-1"), (("[bold]m[/bold]", "1"),))))
    assert "[bold]m[/bold]" in (text := capsys.readouterr().out) and "[red]t" in text


def test_report_of_a_plan_scored_on_val_says_so(
    experiment_of: Callable[..., Experiment], folder: Path, tmp_path: Path
) -> None:
    shutil.rmtree(folder / "hue" / "test")
    one = ("[0.1, 0.01]", "0.1"), ("seeds = 2", 'seeds = 1\ntest_fraction = 0.0\ntrain_on = "train"')
    store, experiment = Store(tmp_path / "out"), experiment_of(*one)
    for tasks, split in (
        (experiment.tasks[1:], "val"),
        (experiment.tasks, "test, or val where a task has no test images,"),
    ):
        store.save_experiment(replace(experiment, tasks=tasks))
        run_worker(replace(experiment, tasks=tasks), store)
        texts = {path.name: path.read_text() for path in write_report(store.folder, tmp_path / "report")}
        assert f"Top-1 on {split} in %, means over tasks" in texts["report.md"]
        assert f"Top-1 on {split} in %, n = 4" in texts["paper.md"]


def test_tables_of_runs_have_runs_that_two_rows_share_for_both(
    experiment_of: Callable[..., Experiment], tmp_path: Path
) -> None:
    again = ('{ name = "Full"', '{ name = "Again", spec = "full" }, { name = "Full"')
    experiment, store = experiment_of(again), Store(tmp_path / "out")
    store.save_experiment(experiment)
    for run in runnable_runs(experiment, {}):
        store.write(Record.of_run(run, "done", scores={"split": "test", "top1": 0.5}))
    counts = "SELECT method, count(*), count(DISTINCT {}) FROM {} WHERE stage = 'final' GROUP BY method"
    for columns in (("id", "runs"), ("run_id", "metrics")):
        assert query(store.folder, counts.format(*columns))[1] == [("Again", 4, 4), ("Full", 4, 4)]
    assert query(store.folder, "SELECT count(DISTINCT id) FROM runs WHERE stage = 'final'")[1] == [(4,)]


def test_status_and_live_page_of_a_dead_process_count_no_run_of_it(doubtful: Store, tmp_path: Path) -> None:
    dead, alive = list(doubtful.records())[:2]
    for run_id in (dead, alive):
        assert doubtful.locks.acquire(run_id)
    lock = doubtful.folder / "locks" / f"{dead}.0"
    lock.write_text("another-machine 1 token")
    os.utime(lock, (0, 0))
    assert read_status(doubtful.folder).running == 1
    ExperimentPage(doubtful, tmp_path / "page.html", pytest.fail).on_progress(11, 12, 90.0)
    runs = resolved_runs(doubtful.load_experiment(), doubtful.records())
    page = (tmp_path / "page.html").read_text()
    assert f"<p>{runs[alive].label}" in page and f"<p>{runs[dead].label}" not in page
