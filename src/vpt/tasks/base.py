"""The protocol of a task: what a run asks of classification, segmentation, and any other task, and of its data."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from vpt.backbones import Backbone
from vpt.core import spec
from vpt.core.text import did_you_mean
from vpt.data.dataset import Dataset
from vpt.data.image_inputs import ImageInput
from vpt.errors import SpecError
from vpt.heads.dense import DenseHead
from vpt.model.attach import attach
from vpt.model.readout import Readout, parse_readout
from vpt.model.tuned_model import TunedModel
from vpt.tasks.evaluation import Evaluation, make_evaluation
from vpt.tasks.pictures import Picture
from vpt.tasks.prediction import Prediction
from vpt.training import Callback, EpochMetrics, Objective, Progress, Scores, TaskConfig, fit
from vpt.training.job import Job

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


class Task(ABC):
    """A task: its options, its data, its model and its metrics.

    Attributes:
        name: Name of the task.
        metrics: Metric name -> label for people; the first is the main metric.
        class_metric: Label of the metric of single classes.
        nothing: Text for a class that does not occur.
        counted: What a class is counted in, "images" or "pixels".
        config_class: Class of the training configuration.
        heads: Head name -> class of its options.
    """

    name: ClassVar[str]
    metrics: ClassVar[Mapping[str, str]]
    class_metric: ClassVar[str]
    nothing: ClassVar[str]
    counted: ClassVar[str] = "images"
    config_class: ClassVar[type[TaskConfig]]
    heads: ClassVar[Mapping[str, type[Readout] | type[DenseHead]]]

    def class_label(self, metric: str) -> str:
        """Return the label of the metric of single classes.

        Args:
            metric: Name of the main metric.

        Returns:
            The label.
        """
        return self.class_metric

    @abstractmethod
    def default_head(self, module: nn.Module) -> str:
        """Return the default head of a backbone.

        Args:
            module: The timm model.

        Returns:
            The text of the head.
        """

    def parse_head(self, text: str) -> Readout:
        """Return the readout of a head of this task.

        Args:
            text: Text of the head, such as "multi_block(blocks=last4)".

        Returns:
            The readout.

        Raises:
            SpecError: The text cannot be read, or the head is one of another task.
        """
        name = text.partition("(")[0].strip()
        if name not in self.heads:
            raise SpecError(f"{name!r} is no head of {self.name}; {did_you_mean(name, self.heads)}")
        return parse_readout(spec.parse(text, self.heads))

    def make_readout(self, head: str | None, backbone: Backbone) -> Readout:
        """Return the readout of a head, or the default of a backbone.

        Args:
            head: Text of the head, or None for the default.
            backbone: The backbone.

        Returns:
            The readout. The errors are those of `parse_head`.
        """
        return self.parse_head(self.default_head(backbone.module) if head is None else head)

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

    def attach(self, job: Job, data: PreparedData) -> TunedModel:
        """Return the model with its method and its head, on the CPU.

        Args:
            job: The job.
            data: The prepared data.

        Returns:
            The model.
        """
        backbone, names = data.backbone, data.classes
        head = self.make_readout(job.head, backbone)
        return attach(
            backbone, job.method, len(names), classes=names, head=head,
            activation_checkpointing=job.activation_checkpointing,
        )  # fmt: skip

    @abstractmethod
    def evaluate(
        self, model: TunedModel, data: str | Dataset, split: str, options: Mapping[str, Any], callback: Callback
    ) -> Evaluation:
        """Score a model on labeled images.

        Args:
            model: The model.
            data: A folder, the name of a built-in task, or a dataset in memory.
            split: Name of the split.
            options: Options by name, of the task and of the split of data without splits of their own.
            callback: Receiver of progress.

        Returns:
            The scores.
        """

    @abstractmethod
    def predict(
        self, model: TunedModel, images: Sequence[ImageInput], options: Mapping[str, Any], callback: Callback
    ) -> list[Prediction]:
        """Predict images.

        Args:
            model: The model.
            images: The images.
            options: Options of the task by name.
            callback: Receiver of progress.

        Returns:
            A prediction for each image.
        """

    def curve_xlabel(self, config: TaskConfig) -> str:
        """Return the label of the horizontal axis of training curves.

        Args:
            config: The training configuration.

        Returns:
            The label.
        """
        return "epoch"
