"""Figures of others beside ours, only where task, split and backbone are the same, and marked as published."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from vpt.datasets.catalog import TASKS
from vpt.experiments.experiment import Experiment, MethodRow, Task
from vpt.methods.base import Method
from vpt.methods.registry import parse_method
from vpt.methods.vpt import VPT

_FILE = Path(__file__).with_suffix(".toml")
_IMAGE_SIZE = 224  # px, of all that is published there


@dataclass(frozen=True)
class PublishedRow:
    """A published row. top1: task -> accuracy between 0 and 1."""

    name: str
    spec: str
    top1: dict[str, float]


@dataclass(frozen=True)
class Published:
    """A publication. backbone: timm's name of the one it used."""

    source: str
    backbone: str
    rows: tuple[PublishedRow, ...]

    def comparable_scores(self, experiment: Experiment, method_row: MethodRow) -> dict[str, float]:
        """Task -> published top-1 of the method of `method_row`, for the tasks of `experiment` that are the publication's own."""
        if (
            experiment.backbone != self.backbone
            or experiment.weights is not None
            or experiment.protocol.train_fraction != 1
        ):
            return {}
        if experiment.protocol.image_size not in (None, _IMAGE_SIZE):
            return {}
        methods = {_without_searched_fields(parse_method(setting.spec)) for setting in method_row.settings}
        row = next((row for row in self.rows if methods == {_without_searched_fields(parse_method(row.spec))}), None)
        return (
            {}
            if row is None
            else {t.name: row.top1[t.name] for t in experiment.tasks if t.name in row.top1 and _is_same_task(t)}
        )


@cache
def load_published() -> Published:
    """What the file beside this module holds."""
    values = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    rows = (
        PublishedRow(row["name"], row["spec"], {task: round(value / 100, 6) for task, value in row["top1"].items()})
        for row in values["rows"]
    )
    return Published(values["source"], values["backbone"], tuple(rows))


def _without_searched_fields(method: Method) -> Method:
    """The method without what the paper chose task by task."""
    return replace(method, length=VPT.length, dropout=VPT.dropout) if isinstance(method, VPT) else method


def _is_same_task(task: Task) -> bool:
    """Whether a task of a plan is the benchmark's: as many classes, as many images in each part, no other copy."""
    benchmark_task = TASKS.get(task.name)
    if benchmark_task is None or task.classes != benchmark_task.classes:
        return False
    if benchmark_task.remark and any(benchmark_task.remark in note for note in task.notes):
        return False
    return all(size is None or task.images[split] == size for split, size in benchmark_task.sizes.items())
