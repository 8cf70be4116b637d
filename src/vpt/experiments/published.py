"""Figures of others beside ours, only where task, split and backbone are the same, and marked as published."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from vpt.datasets.catalog import TASKS
from vpt.experiments.experiment import Entry, Plan, Task
from vpt.methods.base import Method
from vpt.methods.registry import parse_method
from vpt.methods.vpt import VPT

_FILE = Path(__file__).with_suffix(".toml")
_SIZE = 224  # px, of all that is published there


@dataclass(frozen=True)
class Row:
    """A published row. top1: task -> accuracy between 0 and 1."""

    name: str
    spec: str
    top1: dict[str, float]


@dataclass(frozen=True)
class Published:
    """A publication. backbone: timm's name of the one it used."""

    source: str
    backbone: str
    rows: tuple[Row, ...]

    def beside(self, plan: Plan, entry: Entry) -> dict[str, float]:
        """Task -> published top-1 of the method of `entry`, for the tasks of `plan` that are the publication's own."""
        if plan.backbone != self.backbone or plan.weights is not None or plan.protocol.train_fraction != 1:
            return {}
        if plan.protocol.image_size not in (None, _SIZE):
            return {}
        methods = {_settled(parse_method(candidate.spec)) for candidate in entry.candidates}
        row = next((row for row in self.rows if methods == {_settled(parse_method(row.spec))}), None)
        return {} if row is None else {t.name: row.top1[t.name] for t in plan.tasks if t.name in row.top1 and _same(t)}


@cache
def published() -> Published:
    """What the file beside this module holds."""
    values = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    rows = (
        Row(row["name"], row["spec"], {task: round(value / 100, 6) for task, value in row["top1"].items()})
        for row in values["rows"]
    )
    return Published(values["source"], values["backbone"], tuple(rows))


def _settled(method: Method) -> Method:
    """The method without what the paper chose task by task."""
    return replace(method, length=VPT.length, dropout=VPT.dropout) if isinstance(method, VPT) else method


def _same(task: Task) -> bool:
    """Whether a task of a plan is the benchmark's: as many classes, as many images in each part, no other copy."""
    known = TASKS.get(task.name)
    if known is None or task.classes != known.classes:
        return False
    if known.remark and any(known.remark in note for note in task.notes):
        return False
    return all(size is None or task.images[part] == size for part, size in known.sizes.items())
