"""A small comparison: two tasks of 24 tiny images each, two methods, one epoch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vpt.experiments.experiment import Experiment
from vpt.experiments.planning.file import load_experiment
from vpt.experiments.running.worker import run_worker
from vpt.experiments.selection import runnable_runs
from vpt.experiments.store import Record, Store

PLAN = """
name = "small"
seeds = 2
tasks = [{ name = "shade", data = "shade", group = "Light" }, { name = "hue", data = "hue", group = "Color" }]
methods = [{ name = "Full", spec = "full" }, { name = "VPT", spec = "vpt(length=1)", learning_rate = [0.1, 0.01] }]
[training]
epochs = 1
batch_size = 8
"""

GOOD = {"top1": 1.0, "mean_per_class": 1.0, "per_class": {"a": 1.0, "b": 1.0}}
ROSE = [{"train_loss": loss, "train_metric": 0.5, "val_metric": None} for loss in (12.6, 80.0, 555.0)]


def make_tasks(root: Path) -> Path:
    """Both tasks as class folders, and the plan."""
    for number, name in enumerate(("shade", "hue")):
        rng = np.random.default_rng(number)
        for part, count in (("train", 6), ("val", 2), ("test", 4)):
            for label in ("a", "b"):
                directory = root / name / part / label
                directory.mkdir(parents=True)
                for i in range(count):
                    pixels = rng.integers(0, 130, (12, 12, 3), dtype=np.uint8)
                    pixels[..., : 3 if name == "shade" else 1] += 120 * (label == "b")
                    Image.fromarray(pixels).save(directory / f"{i}.png")
    (root / "plan.toml").write_text(PLAN)
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with both tasks, as class folders, and the plan."""
    return make_tasks(tmp_path)


@pytest.fixture
def experiment_of(folder: Path) -> Callable[..., Experiment]:
    """The plan, with some of its text replaced."""

    def read(*changes: tuple[str, str]) -> Experiment:
        text = PLAN
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = folder / "changed.toml"
        path.write_text(text)
        return load_experiment(path)

    return read


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The folder of that comparison, once it is done; to be read only."""
    folder = make_tasks(tmp_path_factory.mktemp("small"))
    experiment = load_experiment(folder / "plan.toml")
    store = Store(folder / "out")
    store.save_experiment(experiment)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the workers of these tests have it: another number may round differently
    run_worker(experiment, store)
    torch.set_num_threads(threads)
    return store


@pytest.fixture
def without_times() -> Callable[[Path], dict[str, Any]]:
    """Reads a record, less its times and provenance."""

    def read(path: Path) -> dict[str, Any]:
        record = json.loads(path.read_text())
        history = [{**epoch, "seconds": 0} for epoch in record["history"]]
        return {**record, "history": history, "cost": record["cost"].get("file_bytes"), "provenance": None}

    return read


@pytest.fixture
def doubtful(experiment_of: Callable[..., Experiment], tmp_path: Path) -> Store:
    """A comparison where Full diverged on shade, and VPT is best at the highest rate on hue; all else is well."""
    experiment, store = experiment_of(), Store(tmp_path / "out")
    store.save_experiment(experiment)
    for _ in ("search", "final"):
        for run in runnable_runs(experiment, store.records()):
            worse = run.task.name == "hue" and run.stage == "search" and run.setting.config.training.learning_rate < 0.1
            rose = (run.task.name, run.method) == ("shade", "Full")
            store.write(
                Record.of_run(
                    run,
                    "done",
                    scores={"split": "val" if run.stage == "search" else "test", **GOOD, "top1": 0.5 if worse else 1.0},
                    history=ROSE if rose else [],
                    images={"train": 400, "val": 400, "test": 400},
                    parameters={"total": 1000, "trainable": 10},
                    cost={"seconds": 1.0, "wall_seconds": 1.0, "peak_memory_bytes": 10, "file_bytes": 10},
                )
            )
    return store
