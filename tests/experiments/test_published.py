"""Published figures stand beside ours only where task, split and backbone are the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vpt.datasets.catalog import TASKS
from vpt.experiments.design import MethodRow
from vpt.experiments.experiment import Experiment
from vpt.experiments.published import load_published
from vpt.experiments.results import load_results
from vpt.experiments.significance import wins
from vpt.experiments.store import Store
from vpt.experiments.tables import published_table
from vpt.methods import parse_method

CUB = {"name": "cub", "classes": 200, "images": {"train": 5394, "val": 600, "test": 5794}}


@pytest.fixture
def experiment(done: Store) -> Experiment:
    """The small comparison, as if its first task were CUB on the paper's backbone."""
    first, second = done.load_experiment().tasks
    return replace(
        done.load_experiment(),
        backbone="vit_base_patch16_224.orig_in21k",
        tasks=(replace(first, **CUB), replace(second, name="elsewhere")),  # type: ignore[arg-type]
    )


def method_row(experiment: Experiment, *specs: str) -> MethodRow:
    one = experiment.methods[0].settings[0]
    return MethodRow("ours", tuple(replace(one, spec=parse_method(spec).spec(full=True)) for spec in specs))


@pytest.mark.parametrize(
    ("specs", "top1"),
    [
        (("full",), 0.873),
        (("linear",), 0.853),
        (("vpt(length=50)",), 0.885),
        (("vpt(length=1)", "vpt(length=100, dropout=0)"), 0.885),
        (("vpt(depth=shallow)",), 0.867),
    ],
)
def test_comparable_scores_of_published_method_ignore_prompt_length(
    experiment: Experiment, specs: tuple[str, ...], top1: float
) -> None:
    assert load_published().comparable_scores(experiment, method_row(experiment, *specs)) == {"cub": top1}


@pytest.mark.parametrize("spec", ["bias", "vpt(location=add)", 'vpt(output="image_mean")', "vpt + bias"])
def test_comparable_scores_of_unpublished_method_are_empty(experiment: Experiment, spec: str) -> None:
    assert load_published().comparable_scores(experiment, method_row(experiment, spec)) == {}
    assert load_published().comparable_scores(experiment, method_row(experiment, "full", spec)) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": "vit_base_patch16_224.augreg_in21k"},
        {"weights": "ViT-B_16.npz"},
        {"classes": 201},
        {"images": {"train": 5394, "val": 600, "test": 5793}},
        {"train_fraction": 0.5},
    ],
)
def test_comparable_scores_with_other_backbone_or_data_are_empty(
    experiment: Experiment, change: dict[str, Any]
) -> None:
    fields = {name: value for name, value in change.items() if name in ("backbone", "weights")}
    of_task = {name: value for name, value in change.items() if name in ("classes", "images")}
    of_protocol = {name: value for name, value in change.items() if name == "train_fraction"}
    other = replace(
        experiment,
        tasks=(replace(experiment.tasks[0], **of_task),),
        protocol=replace(experiment.protocol, **of_protocol),
        **fields,
    )
    assert load_published().comparable_scores(other, method_row(other, "full")) == {}


def test_comparable_scores_of_differing_copy_are_empty(experiment: Experiment) -> None:
    known = TASKS["sun397"]
    sizes = {part: size or 7 for part, size in known.sizes.items()}
    task = replace(experiment.tasks[0], name="sun397", classes=known.classes, images=sizes)
    for notes, expected in (((), {"sun397": 0.388}), ((f"sun397: {known.remark}",), {})):
        other = replace(experiment, tasks=(replace(task, notes=notes),))
        assert load_published().comparable_scores(other, method_row(other, "full")) == expected


def test_published_table_of_comparable_task_has_published_columns(experiment: Experiment, done: Store) -> None:
    found = load_results(done)
    names = dict(zip((task.name for task in found.experiment.tasks), experiment.tasks, strict=True))
    cells = {(names[task].name, method): cell for (task, method), cell in found.cells.items()}
    table = published_table(replace(found, experiment=experiment, cells=cells))
    assert table.header == ("task", "Full", "Full, published", "VPT", "VPT, published")
    ((task, ours, theirs, *_),) = table.rows
    assert (task, theirs) == ("cub", "87.30") and "±" in ours and "ECCV 2022" in table.note
    assert published_table(found).rows == ()


def test_published_scores_of_vpt_deep_win_on_20_of_24_tasks() -> None:
    rows = {row.name: row.top1 for row in load_published().rows}
    assert {len(top1) for top1 in rows.values()} == {24}
    assert wins(rows["VPT-deep"], rows["Full"]) == 20


def test_published_scores_of_each_task_equal_the_tables_of_the_paper(shared: Path) -> None:
    tables = json.loads((shared / "paper" / "tables.json").read_text())
    for row in load_published().rows:
        for group in ("vtab", "fgvc"):
            values = tables[f"{group}_per_task"][row.name.lower()]["values"]
            expected = dict(zip(tables[f"{group}_tasks"], values, strict=True))
            assert {task: pytest.approx(100 * row.top1[task]) for task in expected} == expected
