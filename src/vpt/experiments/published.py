"""Published scores, for comparison where task, split and backbone are the same."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from vpt.datasets.catalog import TASKS
from vpt.experiments.design import MethodRow, Task
from vpt.experiments.experiment import Experiment
from vpt.methods.base import Method
from vpt.methods.registry import parse_method
from vpt.methods.vpt import VPT

_FILE = Path(__file__).with_suffix(".toml")
_IMAGE_SIZE = 224  # px, of all that is published there


@dataclass(frozen=True)
class PublishedRow:
    """A published row.

    Attributes:
        name: Name of the method in the publication.
        spec: Text of the method.
        top1: Task -> accuracy between 0 and 1.
    """

    name: str
    spec: str
    top1: dict[str, float]


@dataclass(frozen=True)
class Published:
    """A publication.

    Attributes:
        source: Its citation.
        backbone: timm's name of the backbone that it used.
        rows: Its rows.
    """

    source: str
    backbone: str
    rows: tuple[PublishedRow, ...]

    def comparable_scores(self, experiment: Experiment, method_row: MethodRow) -> dict[str, float]:
        """Return the published top-1 of a method by task, for the tasks that are those of the publication.

        Args:
            experiment: The experiment.
            method_row: Row of the method.

        Returns:
            The published top-1 of a method by task, for the tasks that are those of the publication.
        """
        differs = experiment.backbone != self.backbone or experiment.weights or experiment.protocol.train_fraction != 1
        if differs or experiment.protocol.image_size not in (None, _IMAGE_SIZE):
            return {}
        if method_row.job_options or method_row.ensemble_of:
            return {}
        methods = {_without_searched_fields(setting.spec) for setting in method_row.all_settings}
        top1 = next((row.top1 for row in self.rows if methods == {_without_searched_fields(row.spec)}), {})
        return {task.name: top1[task.name] for task in experiment.tasks if task.name in top1 and _is_same_task(task)}


@cache
def load_published() -> Published:
    """Return the publication in the file beside this module."""
    values = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    for row in values["rows"]:
        row["top1"] = {task: round(value / 100, 6) for task, value in row["top1"].items()}
    return Published(**{**values, "rows": tuple(PublishedRow(**row) for row in values["rows"])})


def _without_searched_fields(spec: str) -> Method:
    """Return a method without the fields that the paper searched on each task."""
    method = parse_method(spec)
    return replace(method, length=VPT.length, dropout=VPT.dropout) if isinstance(method, VPT) else method


def _is_same_task(task: Task) -> bool:
    """Return whether a task is the benchmark's: as many classes, as many images in each split, no other copy."""
    benchmark_task = TASKS.get(task.name)
    if benchmark_task is None or task.classes != benchmark_task.classes:
        return False
    if benchmark_task.remark and any(benchmark_task.remark in note for note in task.notes):
        return False
    return all(size is None or task.images[split] == size for split, size in benchmark_task.sizes.items())
