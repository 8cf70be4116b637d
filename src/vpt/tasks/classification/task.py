"""The task of labels for whole images: one class, several, or a number."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from vpt.backbones import Backbone, load_backbone
from vpt.core.prediction import Prediction
from vpt.data.dataset import Dataset
from vpt.data.decoding.cache import decode_cached
from vpt.data.decoding.value_checks import value_range_notes
from vpt.data.find_images import find_images
from vpt.data.images.inputs import ImageInput
from vpt.data.loading import load_dataset, load_scored_dataset, refuse_columns
from vpt.data.overview import overview_of_classes
from vpt.data.tables.columns import TableColumns
from vpt.data.tables.listings import kind_of_source
from vpt.data.training_marks import make_marks
from vpt.errors import SpecError
from vpt.heads.dense import DenseHead
from vpt.methods.base import Method
from vpt.methods.registry import parse_method
from vpt.model import tuned_file
from vpt.model.load import load
from vpt.model.named_backbone import backbone_for
from vpt.model.readout import MultiBlock, Pooled, Readout
from vpt.model.tuned_model import TunedModel
from vpt.tasks.base import Task
from vpt.tasks.classification.calibration import notes_on_scores
from vpt.tasks.classification.config import (
    ClassificationConfig,
    ClassificationOptions,
    default_steps,
    refuse_ineffective_crop,
)
from vpt.tasks.classification.continuation import class_names, join_classes, start_from
from vpt.tasks.classification.decoded_splits import decode_splits, select_splits
from vpt.tasks.classification.label_checks import check_options_of_labels, joins_by_default
from vpt.tasks.classification.prediction import confidences, evaluate, picture_mistakes, predict
from vpt.tasks.classification.prepared_data import ClassificationData
from vpt.tasks.classification.rejection import check_rejection, measure_rejection
from vpt.tasks.classification.ridge_head import trains_first, wide_model
from vpt.tasks.evaluation import Evaluation, make_evaluation
from vpt.tasks.prepared_data import PreparedData
from vpt.training import Callback, TaskConfig, distributed
from vpt.training.job import Job
from vpt.training.streaming import choose_loading, stream_splits

_SCORING = ("skip_corrupt", "loading", "workers")  # options of scoring, beside those that select images


class ClassificationTask(Task):
    """Labels of whole images: one class, scored by top-1 accuracy; several, by mean average precision; or a number."""

    name: ClassVar[str] = "classification"
    metrics: ClassVar[Mapping[str, str]] = {
        "top1": "top-1", "mean_per_class": "mean per class",
        "map": "mAP", "macro_f1": "macro F1",
        "r2": "R²", "mae": "MAE", "balanced_accuracy": "balanced accuracy",
        "label_accuracy": "right labels",
    }  # fmt: skip
    class_metric: ClassVar[str] = "top-1"
    nothing: ClassVar[str] = "no image"
    config_class: ClassVar[type[TaskConfig]] = ClassificationConfig
    heads: ClassVar[Mapping[str, type[Readout] | type[DenseHead]]] = {"linear": Pooled, MultiBlock.name: MultiBlock}

    def class_label(self, metric: str) -> str:  # noqa: D102
        return "AP" if metric == "map" else self.class_metric

    def default_head(self, module: nn.Module) -> str:  # noqa: D102
        return "linear"

    def configure(  # noqa: D102
        self, data: str | Path | Dataset, method: Method, training: Mapping[str, Any], options: Mapping[str, Any]
    ) -> tuple[TaskConfig, dict[str, Any]]:
        refuse_ineffective_crop(options)
        columns = TableColumns.of(options)
        if isinstance(data, Dataset):
            refuse_columns(data, columns, data)
        training = default_steps(method, training, fresh_head="init" not in options)
        config = ClassificationConfig.for_method(method, label_kind=kind_of_source(data, columns), **training)
        return config, {"ridge": "default", **options}

    def prepare(self, job: Job, callback: Callback) -> ClassificationData:  # noqa: D102
        config, options = job.config, job.options
        assert isinstance(config, ClassificationConfig) and isinstance(options, ClassificationOptions)
        # Images that do not fit into memory lie here while the job runs; a killed one has left its own behind.
        spill_dir = job.run_dir / f"pixels-{distributed.rank()}"
        shutil.rmtree(spill_dir, ignore_errors=True)
        backbone = self.load_backbone(job)
        preprocessing = backbone.preprocessing
        dataset = load_dataset(job.data, include_test=job.test, **job.split_options)
        if options.init is not None and dataset.label_kind == "single_label":
            dataset = join_classes(dataset, class_names(options.init))
        check_options_of_labels(dataset, config, options, job.method)
        splits = select_splits(dataset, job.train_on, options, config.training.seed)
        if options.calibrate and "val" not in splits:
            raise SpecError(
                "calibrate is True, and there are no val images to calibrate on; give some, or leave it out"
            )
        decoded_bytes = 3 * preprocessing.size**2 * sum(map(len, splits.values()))
        streams, words = choose_loading(options.loading, decoded_bytes, options.cache, options.workers)
        first, *lines = replace(overview_of_classes(dataset), notes=()).lines()  # notes are given one by one
        callback.on_data([f"{first}; {words}", *lines])
        value_notes = value_range_notes(splits["train"].images, preprocessing.value_range)
        if streams:
            decoded, decode_notes = stream_splits(
                splits, preprocessing, config.augment, workers=options.workers, folder=spill_dir,
                skip_corrupt=options.skip_corrupt, callback=callback,
            )  # fmt: skip
        else:
            decode = partial(
                decode_cached, cache_dir=options.cache, spill_dir=spill_dir, skip_corrupt=options.skip_corrupt
            )
            decoded, decode_notes = decode_splits(splits, preprocessing, config.augment, decode, callback)
        notes = [*backbone.notes, *dataset.notes, *value_notes, *decode_notes]
        if dataset.ignored:
            examples = ", ".join(dataset.ignored[:5])
            notes.append(f"{len(dataset.ignored)} entries of the folder were not used: {examples}")
        sizes = {split: len(examples) for split, examples in decoded.items()}
        marks = make_marks(splits["train"].images)
        return ClassificationData(
            backbone, dataset.name, dataset.classes, sizes, notes, marks, decoded, config, options.cache,
            self.make_readout(job.head, backbone), options.penalty,
            job.head is None and joins_by_default(dataset, config, options), options.init, options.calibrate,
        )  # fmt: skip

    def attach(self, job: Job, data: PreparedData) -> TunedModel:  # noqa: D102
        assert isinstance(data, ClassificationData)
        joins = trains_first(parse_method(job.method), data.ridge)
        # The ridge head alone reads several blocks.
        model = super().attach(replace(job, head=None) if joins and isinstance(data.readout, MultiBlock) else job, data)
        model.label_kind = data.labels.kind
        if joins:
            wide_model(model, data.readout)  # refuses what cannot be joined before anything is trained
        if data.init is not None:
            start_from(model, data.init)
        return model

    def load_backbone(self, job: Job) -> Backbone:
        """Load the backbone of a job, with the preprocessing of its options.

        Args:
            job: The job.

        Returns:
            The backbone.
        """
        options = job.options
        assert isinstance(options, ClassificationOptions)
        if options.init is not None:  # whose images were prepared in one way
            header = tuned_file.read_header(options.init)
            backbone = backbone_for(options.init, header, job.backbone, job.weights)
            # A file that does not fit is refused before its method takes memory and images are decoded.
            return load(options.init, backbone).backbone
        backbone = load_backbone(job.backbone, weights=job.weights, image_size=job.image_size)
        preprocessing = job.preprocess(backbone.preprocessing)
        fraction = preprocessing.crop_fraction if options.crop_fraction is None else options.crop_fraction
        preprocessing = replace(
            preprocessing,
            resize=options.resize,
            crop_fraction=fraction,
            interpolation=options.interpolation or preprocessing.interpolation,
        )
        return replace(backbone, preprocessing=preprocessing)

    def evaluate(  # noqa: D102
        self, model: TunedModel, data: str | Dataset, split: str, options: Mapping[str, Any], callback: Callback
    ) -> Evaluation:
        rejection = {name: options.get(name) for name in ("min_confidence", "foreign", "false_accept")}
        check_rejection(model.label_kind, **rejection)
        min_confidence, folder = rejection["min_confidence"], rejection["foreign"]
        foreign = None if folder is None else find_images([Path(folder)], callback.on_note)
        split_options = {name: value for name, value in options.items() if name not in {*_SCORING, *rejection}}
        split_options.setdefault("label_kind", model.label_kind.name)
        dataset = load_scored_dataset(data, split, on_note=callback.on_note, **split_options)
        scoring = {name: options[name] for name in _SCORING if name in options}
        scores = evaluate(model, dataset, split, callback, **scoring)
        evaluation = make_evaluation(split, scores.num_images, scores, model.classes or dataset.classes)
        pictures = partial(picture_mistakes, model, dataset.splits[split], scores, tuple(evaluation.per_class))
        notes = tuple(notes_on_scores(model.label_kind, split))
        evaluation = replace(evaluation, notes=notes, pictures=pictures)
        if min_confidence is None and foreign is None:
            return evaluation
        others = None if foreign is None else confidences(model, foreign, callback)
        found = measure_rejection(scores, min_confidence, others, options.get("false_accept", 0.05))
        return replace(evaluation, rejection=found)

    def predict(  # noqa: D102
        self, model: TunedModel, images: Sequence[ImageInput], options: Mapping[str, Any], callback: Callback
    ) -> list[Prediction]:
        return predict(model, images, callback, **options)
