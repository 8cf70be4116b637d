"""Published figures stand beside ours only under their protocol, where task and recipe are the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vpt.datasets.catalog import TASKS
from vpt.experiments.experiment import Experiment
from vpt.experiments.reports.published import describe_published, published_scores
from vpt.experiments.reports.tables import departures_table, main_table, published_table
from vpt.experiments.results import ExperimentResults, load_results
from vpt.experiments.significance import wins
from vpt.experiments.store import Store
from vpt.protocols import Departure, load_protocol

CUB = {"name": "cub", "classes": 200, "images": {"train": 5394, "val": 600, "test": 5794}}


@pytest.fixture
def experiment(done: Store) -> Experiment:
    """The small comparison, as if it had the protocol of the paper, and its first task were CUB."""
    first, second = done.load_experiment().tasks
    methods = tuple(replace(row, name=row.name.replace("VPT", "VPT-deep")) for row in done.load_experiment().methods)
    return replace(
        done.load_experiment(),
        protocol_name="paper",
        tasks=(replace(first, **CUB), replace(second, name="elsewhere")),  # type: ignore[arg-type]
        methods=methods,
    )


def results_of(experiment: Experiment, done: Store) -> ExperimentResults:
    """The results of the small comparison under the names of this one."""
    found = load_results(done)
    tasks = dict(zip((task.name for task in found.experiment.tasks), experiment.tasks, strict=True))
    methods = dict(zip(found.methods, (row.name for row in experiment.methods), strict=True))
    cells = {
        (tasks[task].name, methods[method]): replace(cell, task=tasks[task], method=methods[method])
        for (task, method), cell in found.cells.items()
    }
    return replace(found, experiment=experiment, cells=cells)


def test_published_scores_of_rows_of_the_protocol_are_found(experiment: Experiment) -> None:
    found = {name: published_scores(experiment, name) for name in ("Full", "Linear", "VPT-deep", "VPT-shallow")}
    assert found == {
        "Full": {"cub": 0.873}, "Linear": {"cub": 0.853}, "VPT-deep": {"cub": 0.885}, "VPT-shallow": {"cub": 0.867},
    }  # fmt: skip
    assert published_scores(experiment, "Bias") == published_scores(experiment, "vpt") == {}


def test_published_scores_without_a_protocol_are_empty(experiment: Experiment) -> None:
    assert published_scores(replace(experiment, protocol_name=None), "Full") == {}
    assert describe_published(replace(experiment, protocol_name=None)) == ""


@pytest.mark.parametrize(
    ("key", "withheld"),
    [
        ("training.epochs", {"Full", "VPT-deep"}),
        ("interpolation", {"Full", "VPT-deep"}),
        ("backbone", {"Full", "VPT-deep"}),
        ("methods.Full.optimizer", {"Full"}),
        ("methods.VPT-deep", {"VPT-deep"}),
        ("tasks.cub", {"Full", "VPT-deep"}),
        ("tasks.elsewhere", set()),
        ("seeds", set()),
    ],
)
def test_published_scores_with_a_departure_are_withheld(experiment: Experiment, key: str, withheld: set[str]) -> None:
    other = replace(experiment, departures=(Departure(key, None, 2),))
    assert {name for name in ("Full", "VPT-deep") if not published_scores(other, name)} == withheld


@pytest.mark.parametrize("change", [{"classes": 201}, {"images": {"train": 5394, "val": 600, "test": 5793}}])
def test_published_scores_with_other_data_are_empty(experiment: Experiment, change: dict[str, Any]) -> None:
    other = replace(experiment, tasks=(replace(experiment.tasks[0], **change),))
    assert published_scores(other, "Full") == {}


def test_published_scores_of_differing_copy_are_empty(experiment: Experiment) -> None:
    known = TASKS["sun397"]
    sizes = {part: size or 7 for part, size in known.sizes.items()}
    task = replace(experiment.tasks[0], name="sun397", classes=known.classes, images=sizes)
    for notes, expected in (((), {"sun397": 0.388}), ((f"sun397: {known.remark}",), {})):
        other = replace(experiment, tasks=(replace(task, notes=notes),))
        assert published_scores(other, "Full") == expected


def test_published_table_of_comparable_task_has_published_columns(experiment: Experiment, done: Store) -> None:
    table = published_table(results_of(experiment, done))
    assert table.header == ("task", "Full", "Full, published", "VPT-deep", "VPT-deep, published")
    ((task, ours, theirs, *_),) = table.rows
    assert (task, theirs) == ("cub", "87.30") and "±" in ours
    for flag in (
        "ECCV 2022",
        "checkpoint: ViT-B_16.npz",
        "mean: of tasks",
        "seeds: 5",
        "last epoch",
        "run by the auth",
    ):
        assert flag in table.note
    assert published_table(load_results(done)).rows == ()


def test_report_tables_of_a_departure_name_it_and_withhold_the_figures(experiment: Experiment, done: Store) -> None:
    """Two epochs instead of a hundred: no published figure stands beside them."""
    departures = (Departure("training.epochs", 100, 2), Departure("methods.Full.batch_size", 128, 8))
    results = results_of(replace(experiment, departures=departures), done)
    assert published_table(results).rows == ()
    assert departures_table(results).rows == (
        ("training.epochs", "100", "2", "Full, VPT-deep"), ("methods.Full.batch_size", "128", "8", "Full"),
    )  # fmt: skip
    assert "Protocol: paper, except that training.epochs is 2, not 100; methods.Full" in main_table(results).note
    assert departures_table(load_results(done)).rows == () and "Protocol" not in main_table(load_results(done)).note


def test_published_scores_of_vpt_deep_win_on_20_of_24_tasks() -> None:
    published = load_protocol("paper")["published"]
    rows = {name: dict(zip(published["tasks"], top1, strict=True)) for name, top1 in published["top1"].items()}
    assert wins(rows["VPT-deep"], rows["Full"]) == 20


def test_published_scores_of_each_task_equal_the_tables_of_the_paper(shared: Path) -> None:
    tables = json.loads((shared / "paper" / "tables.json").read_text())
    published = load_protocol("paper")["published"]
    for name, top1 in published["top1"].items():
        values = tables["vtab_per_task"][name.lower()]["values"] + tables["fgvc_per_task"][name.lower()]["values"]
        assert (published["tasks"], top1) == (tables["vtab_tasks"] + tables["fgvc_tasks"], values)


@pytest.mark.parametrize(("count", "expected"), [(5, ["–", "–"]), (6, ["–", "0.016"])])
def test_test_over_tasks_needs_six_of_them(done: Store, count: int, expected: list[str]) -> None:
    """VPT is better than Full on all of them: of six, p is 1 / 64."""
    found = load_results(done)
    task = found.experiment.tasks[0]
    tasks = tuple(replace(task, name=str(number)) for number in range(count))
    cells = {}
    for number, own in enumerate(tasks):
        for method, score in zip(found.methods, (0.5, 0.6 + 0.01 * number), strict=True):
            cell = found.cells[task.name, method]
            records = tuple(replace(one, scores={**one.scores, "top1": score}) for one in cell.final_records)
            cells[own.name, method] = replace(cell, task=own, final_records=records)
    experiment = replace(found.experiment, tasks=tasks, baseline=found.methods[0])
    table = main_table(replace(found, experiment=experiment, cells=cells))
    assert table.header[-1] == "p over tasks" and [row[-1] for row in table.rows] == expected
