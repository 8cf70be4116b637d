"""The task of a class for every pixel."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from vpt.backbones import load_backbone
from vpt.data.dataset import Dataset
from vpt.data.image_inputs import ImageInput
from vpt.data.segmentation_folder import SegmentationDataset, load_segmentation_dataset
from vpt.errors import SpecError
from vpt.heads.dense import HEADS, DenseHead
from vpt.model.attach import attach
from vpt.model.readout import Readout
from vpt.model.tuned_model import TunedModel
from vpt.tasks.base import Evaluation, Prediction, PreparedData, Task
from vpt.tasks.segmentation.config import SegmentationConfig, SegmentationOptions
from vpt.tasks.segmentation.evaluation import score_pairs
from vpt.tasks.segmentation.objective import SegmentationObjective
from vpt.tasks.segmentation.prediction import evaluate_masks, predict_masks
from vpt.tasks.segmentation.scores import PixelScores
from vpt.tasks.segmentation.sliding_window import InferenceConfig
from vpt.training import Callback, TaskConfig
from vpt.training.job import Job


@dataclass(frozen=True)
class SegmentationData(PreparedData):
    """Prepared data of segmentation.

    Attributes:
        dataset: Images and masks.
    """

    dataset: SegmentationDataset

    def digest(self) -> str:  # noqa: D102
        return self.dataset.digest


class SegmentationTask(Task):
    """A class for every pixel, scored by mean intersection over union."""

    name: ClassVar[str] = "segmentation"
    metrics: ClassVar[Mapping[str, str]] = {"miou": "mIoU", "pixel_accuracy": "pixels"}
    class_metric: ClassVar[str] = "IoU"
    nothing: ClassVar[str] = "no pixel"
    config_class: ClassVar[type[TaskConfig]] = SegmentationConfig
    heads: ClassVar[Mapping[str, type[Readout] | type[DenseHead]]] = HEADS

    def default_head(self, module: nn.Module) -> str:
        """Return the default dense head of a backbone.

        Args:
            module: The timm model.

        Returns:
            "fpn" if its feature maps have, by timm's `feature_info`, several resolutions, and "setr_pup" otherwise.
        """
        resolutions = {stage["reduction"] for stage in getattr(module, "feature_info", [])}
        return "fpn" if len(resolutions) > 1 else "setr_pup"

    def prepare(self, job: Job, callback: Callback) -> SegmentationData:  # noqa: D102
        _, options = _settings(job)
        backbone = load_backbone(job.backbone, weights=job.weights, image_size=job.image_size)
        dataset = load_segmentation_dataset(
            _folder(job.data),
            options.labels,
            ignore_index=options.ignore_index,
            reduce_zero_label=options.reduce_zero_label,
            **job.split_options,
            include_test=job.test,
            train_on=job.train_on,
            val_as_test=options.val_as_test,
            progress=lambda done, total: callback.on_data_progress("images and masks", done, total),
        )
        images = {split: len(pairs) for split, pairs in dataset.splits.items()}
        notes = [*backbone.notes, *dataset.notes]
        return SegmentationData(backbone, dataset.name, dataset.classes, images, notes, dataset)

    def attach(self, job: Job, data: PreparedData) -> TunedModel:  # noqa: D102
        _, options = _settings(job)
        return attach(
            data.backbone,
            job.method,
            len(data.classes),
            classes=data.classes,
            head=self.make_readout(job.head, data.backbone),
            activation_checkpointing=options.activation_checkpointing,
        )

    def objective(  # noqa: D102
        self, model: TunedModel, data: PreparedData, job: Job, callback: Callback, *, resumed: bool
    ) -> SegmentationObjective:
        assert isinstance(data, SegmentationData)
        return SegmentationObjective(model, data.dataset, _settings(job)[0])

    def score(self, model: TunedModel, data: PreparedData, job: Job, callback: Callback) -> Evaluation:  # noqa: D102
        assert isinstance(data, SegmentationData)
        split, dataset = data.eval_split, data.dataset

        def on_image(done: int, total: int) -> None:
            callback.on_data_progress(f"scoring {split}", done, total)

        pairs = dataset.splits[split]
        loss, scores = score_pairs(model, pairs, dataset.lookup_table, InferenceConfig(), on_image)
        return _evaluation(split, len(pairs), scores, data.classes, loss)

    def evaluate(  # noqa: D102
        self,
        model: TunedModel,
        data: str | Dataset,
        split: str,
        split_options: Mapping[str, Any],
        options: Mapping[str, Any],
        callback: Callback,
    ) -> Evaluation:
        load_options = {name: value for name, value in options.items() if name not in ("scales", "flip")}
        dataset = load_segmentation_dataset(_folder(data), classes=model.classes, **load_options, **split_options)
        scores = evaluate_masks(
            model,
            dataset,
            split,
            _inference(options),
            on_image=lambda done, total: callback.on_data_progress(split, done, total),
        )
        return _evaluation(split, len(dataset.splits[split]), scores, dataset.classes)

    def predict(  # noqa: D102
        self, model: TunedModel, images: Sequence[ImageInput], options: Mapping[str, Any], callback: Callback
    ) -> list[Prediction]:
        return predict_masks(
            model,
            images,
            options.get("out"),
            _inference(options),
            on_image=lambda done, total: callback.on_data_progress("images", done, total),
        )

    def curve_options(self, config: TaskConfig) -> dict[str, Any]:  # noqa: D102
        assert isinstance(config, SegmentationConfig)
        return {
            "xlabel": f"evaluation interval of {config.eval_every} iterations",
            "metric": "score",
            "labels": ("pixel accuracy, train", "mIoU, val"),
        }


def _settings(job: Job) -> tuple[SegmentationConfig, SegmentationOptions]:
    assert isinstance(job.config, SegmentationConfig) and isinstance(job.options, SegmentationOptions)
    return job.config, job.options


def _folder(data: str | Dataset) -> str:
    if isinstance(data, Dataset):
        raise SpecError(f"{data} is in memory, and segmentation reads folders of images and masks; give a folder")
    return data


def _inference(options: Mapping[str, Any]) -> InferenceConfig:
    return InferenceConfig(**{name: options[name] for name in ("scales", "flip") if name in options})


def _evaluation(
    split: str, images: int, scores: PixelScores, classes: Sequence[str], loss: float | None = None
) -> Evaluation:
    """Scores by name; None (not NaN, which JSON lacks) for a class that neither occurs nor is predicted."""
    per_class = {
        name: None if math.isnan(value) else float(value) for name, value in zip(classes, scores.per_class, strict=True)
    }
    metrics = {"miou": scores.miou, "pixel_accuracy": scores.pixel_accuracy}
    return Evaluation(split, images, metrics, per_class, scores.confusion, loss)
