"""The protocol of a task: what a run asks of classification, segmentation, and any other task."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from vpt.backbones import Backbone
from vpt.core import spec
from vpt.core.prediction import Prediction
from vpt.core.text import did_you_mean
from vpt.data.dataset import Dataset
from vpt.data.images.inputs import ImageInput
from vpt.errors import SpecError
from vpt.heads.dense import DenseHead
from vpt.methods.base import Method
from vpt.model.attach import attach
from vpt.model.readout import Readout, parse_readout
from vpt.model.tuned_model import TunedModel
from vpt.tasks.evaluation import Evaluation
from vpt.tasks.prepared_data import PreparedData
from vpt.training import Callback, TaskConfig
from vpt.training.job import Job


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

    def configure(
        self, data: str | Path | Dataset, method: Method, training: Mapping[str, Any], options: Mapping[str, Any]
    ) -> tuple[TaskConfig, dict[str, Any]]:
        """Return the training configuration of a run, and its other options.

        Plans of experiments, whose rows may have options that they do not need, do without.

        Args:
            data: The data of the run.
            method: The method.
            training: Options of training that a user gives, by name.
            options: Other options that a user gives, by name.

        Returns:
            The configuration and the other options, with defaults that depend on the method, on the data or on one
            another.

        Raises:
            SpecError: An option is out of range, or has no effect beside the others.
        """
        return self.config_class.for_method(method, **training), dict(options)

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
