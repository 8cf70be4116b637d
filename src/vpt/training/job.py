"""A job and what comes of it: the words that `tune`, the demo and the command line share."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from vpt.backbones import DEFAULT
from vpt.methods.registry import parse_method
from vpt.training import TrainingConfig


@dataclass(frozen=True)
class Job:
    """What to do.

    data: a folder of class folders, a folder with VTAB list files, or a built-in task.
    train_on: "train" keeps val apart and watches it; "trainval" trains on both, as the last step of VTAB-1k.
    train_fraction: share of each class of those images that trains (the paper's data scale); val and test stay whole.
    split_seed: of the cuts into train, val and test and of a built-in task's images; None takes the configuration's seed.
    test: False leaves the test split out before any of its images is opened, as choosing settings demands.
    resize: "squash" (VTAB-1k) or "crop" the image to the backbone's square input. interpolation: nearest, bilinear
    (VTAB-1k), bicubic or lanczos; None is what the backbone was made for.
    save_dtype: dtype of the tensors in the tuned file. skip_corrupt: leave unreadable images out instead of refusing.
    cache: a folder that keeps decoded images, and features of the frozen backbone, for other jobs on the same images.
    """

    data: str
    out: Path
    config: TrainingConfig
    method: str = "vpt"
    backbone: str = DEFAULT
    weights: Path | None = None
    image_size: int | None = None
    train_on: Literal["train", "trainval"] = "train"
    val_fraction: float = 0.2
    test_fraction: float = 0.2
    train_fraction: float = 1.0
    split_seed: int | None = None
    test: bool = True
    resize: Literal["squash", "crop"] = "squash"
    interpolation: str | None = None
    save_dtype: Literal["fp32", "fp16"] = "fp32"
    skip_corrupt: bool = False
    cache: Path | None = None

    @property
    def run_dir(self) -> Path:
        """The run folder, beside the tuned file."""
        return self.out.with_suffix(".run")

    @property
    def split_options(self) -> dict[str, Any]:
        """How data without splits of their own are cut into train, val and test: arguments of `load_dataset`."""
        seed = self.config.seed if self.split_seed is None else self.split_seed
        return {"seed": seed, "val_fraction": self.val_fraction, "test_fraction": self.test_fraction}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: all that decides the result."""
        return json.loads(json.dumps({**asdict(self), "method": str(parse_method(self.method))}, default=str))  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What came of a job of any kind. seconds: wall time of all its sittings, training only.

    eval_split: test, or val where there is no test, and train where there is neither. per_class: a figure between 0 and
    1; None for a class that does not occur there. file_bytes: the tuned file.
    peak_memory_bytes: of the process, or of the GPU where one trained. notes: what the user should know.
    """

    data: str
    method: str
    backbone: str
    eval_split: str
    per_class: dict[str, float | None]
    images: dict[str, int]
    total_parameters: int
    trainable_parameters: int
    file: str
    file_bytes: int
    seconds: float
    peak_memory_bytes: int
    notes: list[str]
    history: list[dict[str, Any]]
    job: dict[str, Any]
    environment: dict[str, Any]
    status: Literal["done"] = "done"

    @property
    def trainable_fraction(self) -> float:
        """Trainable parameters as a fraction of all."""
        return self.trainable_parameters / self.total_parameters


@dataclass(frozen=True, kw_only=True)
class ClassificationResult(RunResult):
    """What came of a classification. top1, mean_per_class, per_class (recall): between 0 and 1."""

    top1: float
    mean_per_class: float
