"""The demo: a shipped plan, its table and its picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from vpt.cli.demo import command
from vpt.experiments.planning.file import find_plan_file, load_experiment
from vpt.experiments.selection import runnable_runs
from vpt.experiments.significance import paired_t_interval

SHORT = """
name = "demo"
seeds = 3
first_seed = 100
split_seed = "run"
train_fraction = 0.1
tasks = [{ name = "numerals" }]
methods = [{ spec = "linear" }, { spec = "vpt(length=1)", learning_rate = 0.05 }]
[training]
epochs = 1
batch_size = 32
"""


@pytest.fixture
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shorter plan in place of the shipped one."""
    path = tmp_path / "demo.toml"
    path.write_text(SHORT)
    monkeypatch.setattr("vpt.experiments.demo.find_plan_file", lambda name: path)
    return tmp_path / "out"


def call(*arguments: object, workers: int = 1) -> str:
    given = ["--workers", str(workers), *map(str, arguments)]
    result = CliRunner().invoke(command, given, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_demo_plan_of_the_package_has_documented_methods_and_draws() -> None:
    experiment = load_experiment(find_plan_file("demo"))
    assert [row.name for row in experiment.methods] == ["prompts", "linear probe", "ridge probe", "full fine-tuning"]
    jobs = [experiment.make_job(run, Path("out")) for run in runnable_runs(experiment, {})]
    assert [job.config.training.seed for job in jobs] == [100, 101, 102] * 4
    assert {(job.data, job.train_on, job.test) for job in jobs} == {("numerals", "trainval", True)}
    assert [job.split_options["seed"] for job in jobs[:3]] == [100, 101, 102]
    figures = {
        (training.optimizer, training.learning_rate, job.config.num_epochs, training.batch_size)
        for job, training in ((job, job.config.training) for job in jobs)
        if not job.method.startswith("linear") or job.options.ridge is None
    }
    assert {(job.options.ridge, job.head) for job in jobs if job.options.ridge} == {("auto", "multi_block")}
    assert figures == {("adamw", 0.05, 15, 16), ("sgd", 0.05, 100, 16), ("adamw", 0.012, 15, 16)}


def test_demo_with_two_draws_prints_table_and_reuses_finished_runs(short: Path) -> None:
    text = call("--out", short, "--draws", 2)
    for part in (
        "numerals: ",
        "test images, 2 draws, backbone",
        "top-1 ± sd",
        "linear",
        "vpt(length=1)",
        "█",
        "comparison.png",
        "vpt bench report",
        "vpt(length=1) - linear: ",
        "95 % interval",
    ):
        assert part in text
    with Image.open(short / "comparison.png") as picture:
        assert min(picture.size) > 100
    before = {path: path.stat().st_mtime_ns for path in (short / "runs").iterdir()}
    values = json.loads(call("--out", short, "--draws", 2, "--json"))
    assert {path: path.stat().st_mtime_ns for path in (short / "runs").iterdir()} == before and len(before) == 4
    assert 0 < values["seconds"] < 600 and values["workers"] == 1
    assert (values["task"], values["draws"]) == ("numerals", 2) and "torch" in values["environment"]["versions"]
    for row in values["rows"]:
        assert row["mean"] == pytest.approx(sum(row["top1"]) / 2) and row["std"] is not None
        assert 0 < row["trainable_parameters"] < row["file_bytes"]
    (one,) = values["comparisons"]
    linear, prompts = values["rows"]
    assert (one["method"], one["baseline"]) == ("vpt(length=1)", "linear")
    assert one["difference"] == pytest.approx(prompts["mean"] - linear["mean"])
    assert one["interval"][0] <= one["difference"] <= one["interval"][1]


def test_demo_with_one_draw_prints_no_spread_and_no_interval(short: Path) -> None:
    text = call("--out", short, "--draws", 1)
    assert "±" not in text and "interval" not in text and "top-1" in text
    assert {row["std"] for row in json.loads(call("--out", short, "--draws", 1, "--json"))["rows"]} == {None}


def test_demo_with_two_workers_has_the_results_of_one(short: Path) -> None:
    two = json.loads(call("--out", short / "two", "--draws", 1, "--json", workers=2))
    one = json.loads(call("--out", short / "one", "--draws", 1, "--json"))
    for row, other in zip(two["rows"], one["rows"], strict=True):
        assert row["top1"] == pytest.approx(other["top1"], abs=0.01)  # another number of threads rounds differently


def test_demo_lines_of_the_readme_equal_the_record() -> None:
    root = Path(__file__).parents[2]
    record = json.loads((root / "benchmarks" / "results" / "demo.json").read_text(encoding="utf-8"))
    readme, page = ((root / name).read_text(encoding="utf-8") for name in ("README.md", "docs/embedded-backbone.md"))
    prompts, *others = record["rows"]
    for other in others:
        ours, theirs = prompts["top1"][:3], other["top1"][:3]  # those of a demo without options
        low, high = paired_t_interval(ours, theirs) or (0.0, 0.0)
        difference, *bounds = (f"{100 * value:+.1f}" for value in ((sum(ours) - sum(theirs)) / 3, low, high))
        line = f"{prompts['method']} - {other['method']}: {difference} points, 95 % interval {bounds[0]} to {bounds[1]}"
        assert f"{line}, paired over draws\n" in readme
    for row in record["rows"]:
        assert row["mean"] == pytest.approx(sum(row["top1"]) / record["draws"])
        assert f"| {100 * row['mean']:.1f} ± {100 * row['std']:.1f} |" in page
