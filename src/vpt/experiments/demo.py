"""The paper's comparison in small: four methods on a built-in task, several seeds, one table and one picture."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

from vpt.methods.registry import parse_method
from vpt.plots import figures
from vpt.tasks.classification.config import ClassificationConfig
from vpt.training import Callback
from vpt.training.job import Job, RunResult
from vpt.tuning import run_job

TASK = "numerals"
SEEDS = 3
FIRST_SEED = 100  # the settings below were found on seeds 0 to 3


@dataclass(frozen=True)
class MethodSettings:
    """One row of the demo: a method with settings of its own (docs/embedded.md tells how they were found)."""

    method: str
    optimizer: str
    learning_rate: float
    epochs: int
    batch_size: int


METHODS: tuple[MethodSettings, ...] = (
    MethodSettings("linear", "sgd", 0.5, 100, 16),
    MethodSettings("vpt(length=4, depth=shallow)", "adamw", 0.05, 30, 16),
    MethodSettings("vpt(length=4)", "adamw", 0.05, 30, 16),
    MethodSettings("full", "adamw", 0.012, 30, 16),
)


@dataclass(frozen=True)
class DemoRow:
    """The runs of one method, one per seed."""

    method: str
    runs: tuple[RunResult, ...]

    @property
    def mean(self) -> float:
        """Mean top-1, between 0 and 1."""
        return statistics.mean(run.score for run in self.runs)

    @property
    def std(self) -> float:
        """Standard deviation of top-1 over seeds; 0 for a single one."""
        return statistics.stdev(run.score for run in self.runs) if len(self.runs) > 1 else 0.0


def run_demo(
    folder: Path,
    *,
    task: str = TASK,
    seeds: int = SEEDS,
    callback: Callback | None = None,
    overwrite: bool = False,
) -> list[DemoRow]:
    """Tune each method on `task` with `seeds` seeds; everything is kept in `folder`, and done only once.

    Leaves comparison.png in `folder`, where matplotlib is installed.
    """
    callback = callback or Callback()
    rows = []
    for index, settings in enumerate(METHODS):
        name = str(parse_method(settings.method))
        runs = []
        for run_number, seed in enumerate(range(FIRST_SEED, FIRST_SEED + seeds), start=1):
            callback.on_run_start(index * seeds + run_number, len(METHODS) * seeds, name, seed)
            config = ClassificationConfig.for_method(
                parse_method(settings.method),
                optimizer=settings.optimizer,
                learning_rate=settings.learning_rate,
                epochs=settings.epochs,
                batch_size=settings.batch_size,
                seed=seed,
            )
            slug = "".join(c if c.isalnum() else "_" for c in name).strip("_")
            job = Job.create(task, folder / f"{task}-{slug}-{seed}.safetensors", config, method=settings.method,
                      train_on="trainval")  # fmt: skip
            runs.append(run_job(job, callback, overwrite=overwrite))
        rows.append(DemoRow(name, tuple(runs)))
    figures.method_comparison(
        folder / "comparison.png", {row.method: [r.score for r in row.runs] for row in rows}, task
    )
    return rows
