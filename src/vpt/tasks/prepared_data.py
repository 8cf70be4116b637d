"""The protocol of the data of a run: what a run asks of the images and labels of any task."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpt.backbones import Backbone
from vpt.model.tuned_model import TunedModel
from vpt.tasks.evaluation import Evaluation, make_evaluation
from vpt.tasks.pictures import Picture
from vpt.training import Callback, EpochMetrics, Objective, Progress, Scores, TaskConfig, fit

NUM_EXAMPLES = 3  # images of a class


@dataclass(frozen=True)
class PreparedData(ABC):
    """The backbone and the data of a run. Tasks add the images in their own form, and how a model learns from them.

    Attributes:
        backbone: The backbone, with the preprocessing of the job.
        name: Name of the data.
        classes: Names of the classes.
        images: Number of images of each split.
        notes: Messages that the user should read.
        trained_on: Marks of the training images, see `vpt.data.training_marks`; empty for data in memory.
    """

    backbone: Backbone
    name: str
    classes: tuple[str, ...]
    images: dict[str, int]
    notes: list[str]
    trained_on: list[str]

    @property
    def reading(self) -> dict[str, Any]:
        """What was recognized in the data that other commands need to read labels as training did."""
        return {}

    @property
    def eval_split(self) -> str:
        """The split that is scored: test, or val where there is no test, or train where there is neither."""
        return next(split for split in ("test", "val", "train") if split in self.images)

    @abstractmethod
    def digest(self) -> str:
        """Return a digest of all images and labels."""

    def examples(self) -> dict[str, list[NDArray[np.uint8]]]:
        """Return up to three training images (height, width, 3) of each class, for up to 20 classes."""
        return {}

    @abstractmethod
    def objective(self, model: TunedModel, callback: Callback, *, resumed: bool) -> Objective:
        """Return the objective, and initialize what depends on training images.

        Args:
            model: The model, on its device.
            callback: Receiver of notes.
            resumed: True if a checkpoint replaces the initial weights.

        Returns:
            The objective.
        """

    def train(
        self, model: TunedModel, config: TaskConfig, callback: Callback, checkpoint: Path | None = None
    ) -> tuple[TunedModel, list[EpochMetrics]]:
        """Train a model.

        Args:
            model: The model, on its device.
            config: Training configuration.
            callback: Receiver of progress.
            checkpoint: File that is written after each epoch, and resumed from if it exists. Default: no checkpoint.

        Returns:
            The trained model, which is the one that was given unless the task adds to its head, and the metrics of each
            epoch. The errors are those of `vpt.training.fit`.
        """
        if config.training.needs_val and self.eval_split == "val":
            callback.on_note("without a test split, the score is of val, which also decides on the weights: optimistic")
        resumed = checkpoint is not None and checkpoint.exists()
        objective = self.objective(model, callback, resumed=resumed)
        return model, fit(model, objective, config, checkpoint=checkpoint, callback=callback)

    @abstractmethod
    def score_split(self, model: TunedModel, split: str, on_image: Progress) -> Scores:
        """Return the scores of a model on a split.

        Args:
            model: The model.
            split: Name of the split.
            on_image: Function that receives the number of scored images and of all images.

        Returns:
            The scores.
        """

    def score(self, model: TunedModel, callback: Callback) -> Evaluation:
        """Score a model on `eval_split`.

        Args:
            model: The model.
            callback: Receiver of progress.

        Returns:
            The scores.
        """
        split = self.eval_split
        scores = self.score_split(model, split, partial(callback.on_data_progress, f"scoring {split}"))
        evaluation = make_evaluation(split, self.images[split], scores, self.classes)
        return replace(evaluation, pictures=partial(self.pictures, model, scores, split))

    def pictures(self, model: TunedModel, scores: Scores, split: str) -> list[Picture]:
        """Return pictures of what a model predicts.

        Args:
            model: The model.
            scores: Its scores on the split.
            split: Name of the split.

        Returns:
            The pictures; none unless the task has some.
        """
        return []

    def measure_init(self, model: TunedModel) -> dict[str, Any] | None:
        """Measure the classes of the tuned file that training went on from, before and after it.

        Args:
            model: The trained model.

        Returns:
            JSON values, or None if training began anew.
        """
        return None
