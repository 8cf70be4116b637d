"""A clock that moves with the work that a search reports, so that budgets are tested without waiting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import vpt
from helpers.json_answers import closed_validator
from vpt.search import SearchRequest, run_search
from vpt.training import Callback, EpochMetrics

CLASSES = ("dark", "gray", "light")


class SimulatedClock(Callback):
    """Seconds that pass with each image that is read or scored, and with each training step."""

    def __init__(self, image: float, step: float) -> None:
        self.now = 0.0
        self.image, self.step = image, step
        self.notes: list[str] = []
        self.steps = 0

    def __call__(self) -> float:
        return self.now

    def on_note(self, text: str) -> None:
        self.notes.append(text)

    def on_data_progress(self, split: str, done: int, total: int) -> None:
        if done == total:
            self.now += self.image * total

    def on_step(self, epoch: int, step: int, loss: float, lr: float) -> None:
        self.now += self.step
        self.steps += 1


class Interrupted(SimulatedClock):
    """Such a clock that interrupts training at the end of an epoch."""

    def __init__(self, image: float, step: float, epochs: int) -> None:
        super().__init__(image, step)
        self.epochs = epochs

    def on_epoch(self, record: EpochMetrics) -> None:
        self.epochs -= 1
        if not self.epochs:
            raise KeyboardInterrupt


def write_images(folder: Path, n: int, seed: int = 0) -> None:
    """Write noisy squares whose light tells the class, not without faults."""
    rng = np.random.default_rng(seed)
    for index in range(n):
        label = index % len(CLASSES)
        light = 60 + 50 * label + rng.normal(0, 22)
        pixels = (rng.normal(0, 25, (48, 48, 3)) + light).clip(0, 255).astype(np.uint8)
        (folder / CLASSES[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / CLASSES[label] / f"{index:03}.png")


def run(
    data: Any, out: Path, *, image: float = 0.01, step: float = 1.0, minutes: float = 1.0, overwrite: bool = False,
    clock: SimulatedClock | None = None, **options: Any,
) -> tuple[vpt.RunResult, SimulatedClock]:  # fmt: skip
    """Search by a simulated clock."""
    clock = clock or SimulatedClock(image, step)
    request = SearchRequest.create(data, out, device=torch.device("cpu"), minutes=minutes, **options)
    result = run_search(request, clock, overwrite=overwrite, device="cpu", clock=clock)
    closed_validator("run", "search").validate(json.loads(json.dumps(result.search)))
    return result, clock
