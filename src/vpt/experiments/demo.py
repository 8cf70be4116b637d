"""The paper's comparison in small: four methods on a built-in task, several seeds, one table and one picture."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

from vpt.methods.registry import parse_method
from vpt.plots import figures
from vpt.training import Recipe
from vpt.training.job import Job, Result, SeriesListener
from vpt.tuning import tune

TASK = "numerals"
SEEDS = 3
FIRST_SEED = 100  # the settings below were found on seeds 0 to 3


@dataclass(frozen=True)
class Entry:
    """One row of the demo: a method with settings of its own (docs/embedded.md tells how they were found)."""

    method: str
    optimizer: str
    learning_rate: float
    epochs: int
    batch_size: int


ENTRIES: tuple[Entry, ...] = (
    Entry("linear", "sgd", 0.5, 100, 16),
    Entry("vpt(length=4, depth=shallow)", "adamw", 0.05, 30, 16),
    Entry("vpt(length=4)", "adamw", 0.05, 30, 16),
    Entry("full", "adamw", 0.012, 30, 16),
)


@dataclass(frozen=True)
class Row:
    """The runs of one method, one per seed."""

    method: str
    runs: tuple[Result, ...]

    @property
    def mean(self) -> float:
        """Mean top-1, between 0 and 1."""
        return statistics.mean(run.top1 for run in self.runs)

    @property
    def spread(self) -> float:
        """Standard deviation of top-1 over seeds; 0 for a single one."""
        return statistics.stdev(run.top1 for run in self.runs) if len(self.runs) > 1 else 0.0


def demo(
    folder: Path,
    *,
    task: str = TASK,
    seeds: int = SEEDS,
    listener: SeriesListener | None = None,
    overwrite: bool = False,
) -> list[Row]:
    """Tune each method on `task` with `seeds` seeds; everything is kept in `folder`, and done only once.

    Leaves comparison.png in `folder`, where matplotlib is installed.
    """
    listener = listener or SeriesListener()
    rows = []
    for index, entry in enumerate(ENTRIES):
        name = str(parse_method(entry.method))
        runs = []
        for number, seed in enumerate(range(FIRST_SEED, FIRST_SEED + seeds), start=1):
            listener.run(index * seeds + number, len(ENTRIES) * seeds, name, seed)
            recipe = Recipe.of(
                parse_method(entry.method),
                optimizer=entry.optimizer,
                learning_rate=entry.learning_rate,
                epochs=entry.epochs,
                batch_size=entry.batch_size,
                seed=seed,
            )
            plain = "".join(c if c.isalnum() else "_" for c in name).strip("_")
            job = Job(data=task, out=folder / f"{task}-{plain}-{seed}.safetensors", recipe=recipe, method=entry.method,
                      train_on="trainval")  # fmt: skip
            runs.append(tune(job, listener, overwrite=overwrite))
        rows.append(Row(name, tuple(runs)))
    figures.comparison(folder / "comparison.png", {row.method: [r.top1 for r in row.runs] for row in rows}, task)
    return rows
