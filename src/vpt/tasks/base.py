"""The protocol of a task: what a run asks of classification, segmentation, and any other task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from vpt.backbones import Backbone
from vpt.model.tuned_model import TunedModel
from vpt.training import Callback, Objective, TaskConfig
from vpt.training.job import Job


@dataclass(frozen=True)
class PreparedData(ABC):
    """The backbone and the data of a run. Tasks add the images in their own form.

    Attributes:
        backbone: The backbone, with the preprocessing of the job.
        name: Name of the data.
        classes: Names of the classes.
        images: Number of images of each split.
        notes: Messages that the user should read.
    """

    backbone: Backbone
    name: str
    classes: tuple[str, ...]
    images: dict[str, int]
    notes: list[str]

    @property
    def eval_split(self) -> str:
        """The split that is scored: test, or val where there is no test, or train where there is neither."""
        return next(split for split in ("test", "val", "train") if split in self.images)

    @abstractmethod
    def digest(self) -> str:
        """Return a digest of all images and labels."""


@dataclass(frozen=True)
class Evaluation:
    """Scores of a model on one split.

    Attributes:
        split: Name of the split.
        images: Number of images.
        metrics: Metrics by name, the main one first, between 0 and 1.
        per_class: Recall or IoU by class name; None for a class that does not occur.
        confusion: Counts (true, predicted) of images or pixels, (classes, classes).
        loss: Mean loss, or None where it is not computed.
    """

    split: str
    images: int
    metrics: dict[str, float]
    per_class: dict[str, float | None]
    confusion: Any
    loss: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the confusion matrix as JSON values."""
        loss = {} if self.loss is None else {"loss": self.loss}
        counts = {"split": self.split, "images": self.images}
        return {**counts, **self.metrics, **loss, "per_class": self.per_class}


class TaskPrediction(Protocol):
    """The prediction for one image."""

    def to_dict(self) -> dict[str, Any]:
        """Return the prediction as JSON values."""

    def describe(self) -> str:
        """Return the prediction as one line."""


class Task(ABC):
    """A task: its data, its model, its objective and its metrics.

    Attributes:
        name: Name of the task.
        metrics: Metric name -> label for people; the first is the main metric.
        class_metric: Label of the metric of single classes.
        nothing: Text for a class that does not occur.
        config_class: Class of the training configuration.
    """

    name: ClassVar[str]
    metrics: ClassVar[Mapping[str, str]]
    class_metric: ClassVar[str]
    nothing: ClassVar[str]
    config_class: ClassVar[type[TaskConfig]]

    @abstractmethod
    def prepare(self, job: Job, callback: Callback) -> PreparedData:
        """Load the backbone and the data.

        Args:
            job: The job.
            callback: Receiver of progress.

        Returns:
            The prepared data.

        Raises:
            DataError: Images or labels cannot be used; the message names all of them.
        """

    @abstractmethod
    def attach(self, job: Job, data: PreparedData) -> TunedModel:
        """Return the model with its method and its head, on the CPU.

        Args:
            job: The job.
            data: The prepared data.

        Returns:
            The model.
        """

    @abstractmethod
    def objective(
        self, model: TunedModel, data: PreparedData, job: Job, callback: Callback, *, resumed: bool
    ) -> Objective:
        """Return the objective, and initialize what depends on training images.

        Args:
            model: The model, on its device.
            data: The prepared data.
            job: The job.
            callback: Receiver of notes.
            resumed: True if a checkpoint replaces the initial weights.

        Returns:
            The objective.
        """

    @abstractmethod
    def score(self, model: TunedModel, data: PreparedData, job: Job, callback: Callback) -> Evaluation:
        """Score the model on `data.eval_split`.

        Args:
            model: The trained model.
            data: The prepared data.
            job: The job.
            callback: Receiver of progress.

        Returns:
            The scores.
        """

    @abstractmethod
    def evaluate(
        self,
        model: TunedModel,
        data: str,
        split: str,
        split_options: Mapping[str, Any],
        options: Mapping[str, Any],
        callback: Callback,
    ) -> Evaluation:
        """Score a model on labeled images.

        Args:
            model: The model.
            data: A folder, or the name of a built-in task.
            split: Name of the split.
            split_options: Options of the split of data without splits of their own.
            options: Options of the task by name.
            callback: Receiver of progress.

        Returns:
            The scores.
        """

    @abstractmethod
    def predict(
        self, model: TunedModel, images: Sequence[Path], options: Mapping[str, Any], callback: Callback
    ) -> Sequence[TaskPrediction]:
        """Predict image files.

        Args:
            model: The model.
            images: The image files.
            options: Options of the task by name.
            callback: Receiver of progress.

        Returns:
            A prediction for each image.
        """

    def curve_options(self, config: TaskConfig) -> dict[str, Any]:
        """Return labels for the plot of training curves.

        Args:
            config: The training configuration.

        Returns:
            Arguments of `vpt.plots.figures.training_curves`.
        """
        return {}
