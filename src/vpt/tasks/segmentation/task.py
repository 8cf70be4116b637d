"""The task of a class for every pixel."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from vpt.backbones import Backbone, load_backbone
from vpt.core.prediction import Prediction
from vpt.data.dataset import Dataset
from vpt.data.images.files import capture_warnings
from vpt.data.images.inputs import ImageInput
from vpt.data.masks.dataset import SegmentationDataset, load_segmentation_dataset
from vpt.data.masks.files import load_pair
from vpt.data.masks.layouts import ImageMaskPairs
from vpt.data.masks.pairs import PairNames
from vpt.data.overview import overview_of_masks
from vpt.data.training_marks import make_marks
from vpt.errors import SpecError
from vpt.heads.dense import HEADS, DenseHead
from vpt.methods.base import Method
from vpt.methods.linear import Linear
from vpt.model.readout import Readout
from vpt.model.tuned_model import TunedModel
from vpt.plots.figures import MAX_NAMED_CLASSES
from vpt.tasks.base import Task
from vpt.tasks.evaluation import Evaluation, make_evaluation
from vpt.tasks.pictures import Picture
from vpt.tasks.prepared_data import NUM_EXAMPLES, PreparedData
from vpt.tasks.segmentation.config import SegmentationConfig, refuse_ineffective_weights
from vpt.tasks.segmentation.discriminant import check_head, check_options, solve_head
from vpt.tasks.segmentation.objective import SegmentationObjective
from vpt.tasks.segmentation.pair_reader import PairReader
from vpt.tasks.segmentation.prediction import choose_colors, predict_masks, score_split, show_masks
from vpt.tasks.segmentation.sliding_window import InferenceConfig
from vpt.tasks.segmentation.streaming import choose_crop_loading
from vpt.training import Callback, EpochMetrics, Objective, Progress, Scores, TaskConfig
from vpt.training.job import Job

_EXAMPLE_SIDE = 160  # pixels
_INFERENCE_OPTIONS = ("scales", "flip")
_NAME_OPTIONS = ("images", "masks", "mask_suffix")


@dataclass(frozen=True)
class SegmentationData(PreparedData):
    """Prepared data of segmentation.

    Attributes:
        dataset: Images and masks.
        config: Training configuration.
        streams: True reads training images and masks whenever they are used, False decodes them once.
        workers: Number of processes that decode a stream, or None for the default.
        reader: Reader of the images and masks, which all trainings on these data share.
        colors: Color of each class, see `choose_colors`.
        lda: Option of `SegmentationOptions`.
    """

    dataset: SegmentationDataset
    config: SegmentationConfig
    streams: bool
    workers: int | None
    reader: PairReader
    colors: tuple[str, ...] | None
    lda: int | Literal["all"] | None = None

    @cached_property
    def labeled(self) -> ImageMaskPairs:
        """The training images with a class in their mask."""
        train = self.dataset.splits["train"]
        return train.select([i for i, name in enumerate(train.names) if self.dataset.classes_of(name)])

    @property
    def reading(self) -> dict[str, Any]:  # noqa: D102
        return {"labels": self.dataset.labels}

    def digest(self) -> str:  # noqa: D102
        return self.dataset.digest

    def examples(self) -> dict[str, list[NDArray[np.uint8]]]:
        """Return training images, of which pixels of other classes are pale."""
        data, train, found = self.dataset, self.dataset.splits["train"], dict[str, list[NDArray[np.uint8]]]()
        for k, name in enumerate(self.classes[:MAX_NAMED_CLASSES]):
            having = [i for i, pair in enumerate(train.names) if k in data.classes_of(pair)][:NUM_EXAMPLES]
            for i in having:
                with capture_warnings():
                    pixels, mask = load_pair(train, i, data.lookup_table, data.mask_format, data.value_range)
                pale = 255 - (255 - pixels.transpose(1, 2, 0)) // 4
                step = max(1, max(mask.shape) // _EXAMPLE_SIDE)
                shown = np.where((mask == k)[..., None], pixels.transpose(1, 2, 0), pale)
                found.setdefault(name, []).append(shown[::step, ::step])
        return found

    def train(  # noqa: D102
        self, model: TunedModel, config: TaskConfig, callback: Callback, checkpoint: Path | None = None
    ) -> tuple[TunedModel, list[EpochMetrics]]:
        if self.lda is None:
            return super().train(model, config, callback, checkpoint)
        history: list[EpochMetrics] = []
        if model.method == Linear():
            model.class_colors = self.colors
        else:
            model, history = super().train(model, config, callback, checkpoint)
        bf16 = config.training.use_bf16(next(model.parameters()).device)
        count, progress = None if self.lda == "all" else self.lda, partial(callback.on_data_progress, "features")
        note = solve_head(model, self.reader, self.labeled, count, bf16=bf16, on_image=progress)
        callback.on_note(f"{note}; the curves are those of the head that was trained before" if history else note)
        return model, history

    def objective(self, model: TunedModel, callback: Callback, *, resumed: bool) -> Objective:  # noqa: D102
        model.class_colors = self.colors
        return SegmentationObjective(
            model, self.dataset, self.config, streams=self.streams, workers=self.workers, reader=self.reader
        )

    def score_split(self, model: TunedModel, split: str, on_image: Progress) -> Scores:  # noqa: D102
        return score_split(model, self.dataset, split, InferenceConfig(), on_image)

    def pictures(self, model: TunedModel, scores: Scores, split: str) -> list[Picture]:
        """Return images with their true and their predicted masks."""
        return show_masks(model, self.dataset, split, InferenceConfig())


class SegmentationTask(Task):
    """A class for every pixel, scored by mean intersection over union."""

    name: ClassVar[str] = "segmentation"
    metrics: ClassVar[Mapping[str, str]] = {"miou": "mIoU", "pixel_accuracy": "pixels"}
    class_metric: ClassVar[str] = "IoU"
    nothing: ClassVar[str] = "no pixel"
    counted: ClassVar[str] = "pixels"
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

    def configure(  # noqa: D102
        self, data: str | Path | Dataset, method: Method, training: Mapping[str, Any], options: Mapping[str, Any]
    ) -> tuple[TaskConfig, dict[str, Any]]:
        refuse_ineffective_weights(training)
        return super().configure(data, method, training, options)

    def load_backbone(self, job: Job) -> Backbone:
        """Return the backbone of a job, with its preprocessing.

        Args:
            job: The job.

        Returns:
            The backbone.
        """
        backbone = load_backbone(job.backbone, weights=job.weights, image_size=job.image_size)
        return replace(backbone, preprocessing=job.preprocess(backbone.preprocessing))

    def prepare(self, job: Job, callback: Callback) -> SegmentationData:  # noqa: D102
        assert isinstance(job.config, SegmentationConfig)
        options = asdict(job.options)
        loading, workers, lda = (options.pop(name) for name in ("loading", "workers", "lda"))
        backbone = self.load_backbone(job)
        if lda is not None:
            check_head(self.make_readout(job.head, backbone))
            check_options(job)
        options |= {**job.split_options, "include_test": job.test, "train_on": job.train_on}
        options["value_range"] = backbone.preprocessing.value_range
        progress = partial(callback.on_data_progress, "images and masks")
        dataset = load_segmentation_dataset(_folder(job.data), **options, progress=progress)
        streams, words = choose_crop_loading(dataset, loading, workers)
        first, *lines = replace(overview_of_masks(dataset), notes=()).lines()  # notes are given one by one
        callback.on_data([f"{first}; {words}", *lines])
        images = {split: len(pairs) for split, pairs in dataset.splits.items()}
        notes = [*backbone.notes, *dataset.notes, *(f"left out {fault}" for fault in dataset.dropped)]
        marks = make_marks(dataset.splits["train"].images)
        return SegmentationData(
            backbone, dataset.name, dataset.classes, images, notes, marks, dataset, job.config, streams, workers,
            PairReader(dataset, () if streams else ["train"]), choose_colors(dataset), lda,
        )  # fmt: skip

    def evaluate(  # noqa: D102
        self, model: TunedModel, data: str | Dataset, split: str, options: Mapping[str, Any], callback: Callback
    ) -> Evaluation:
        folder, left_out = _folder(data), set(_INFERENCE_OPTIONS)
        of_training = {name: model.split_options.get(name) for name in _NAME_OPTIONS if name in options}
        recorded = {name: value for name, value in of_training.items() if options[name] == value}
        if Path(folder).is_dir() and not PairNames(**recorded).are_in(Path(folder)):  # other data need not have them
            left_out |= recorded.keys()
        load_options = {name: value for name, value in options.items() if name not in left_out}
        dataset = load_segmentation_dataset(
            folder,
            classes=model.classes,
            scored_split=split,
            value_range=model.backbone.preprocessing.value_range,
            on_note=callback.on_note,
            **load_options,
        )
        for note in (*dataset.notes, *(f"left out {fault}" for fault in dataset.dropped)):
            callback.on_note(note)
        progress = partial(callback.on_data_progress, split)
        inference = _inference(options)
        scores = score_split(model, dataset, split, inference, progress)
        evaluation = make_evaluation(split, len(dataset.splits[split]), scores, dataset.classes)
        return replace(evaluation, pictures=partial(show_masks, model, dataset, split, inference))

    def predict(  # noqa: D102
        self, model: TunedModel, images: Sequence[ImageInput], options: Mapping[str, Any], callback: Callback
    ) -> list[Prediction]:
        progress = partial(callback.on_data_progress, "images")
        skip_corrupt = options.get("skip_corrupt", False)
        return predict_masks(
            model, images, options.get("out"), _inference(options), progress, skip_corrupt=skip_corrupt,
            on_note=callback.on_note,
        )  # fmt: skip

    def curve_xlabel(self, config: TaskConfig) -> str:  # noqa: D102
        assert isinstance(config, SegmentationConfig)
        return f"evaluation interval of {config.eval_every} iterations"


def _folder(data: str | Dataset) -> str:
    if isinstance(data, Dataset):
        raise SpecError(f"{data} is in memory, and segmentation reads folders of images and masks; give a folder")
    return data


def _inference(options: Mapping[str, Any]) -> InferenceConfig:
    return InferenceConfig(**{name: options[name] for name in _INFERENCE_OPTIONS if name in options})
