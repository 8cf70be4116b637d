"""Prediction and evaluation of classification models."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vpt.core.prediction import Prediction
from vpt.data.dataset import Dataset, Split
from vpt.data.decoding.arrays import DecodedImages, decode, decode_to_tempdir
from vpt.data.images.inputs import ImageInput
from vpt.errors import DataError, SpecError
from vpt.model.ensemble import Ensemble
from vpt.model.tuned_model import TunedModel
from vpt.tasks.classification.labels import label_task
from vpt.tasks.classification.rejection import check_rejection
from vpt.tasks.classification.streamed_logits import stream_logits
from vpt.tasks.pictures import Picture, confident_mistakes
from vpt.training import Callback, DeviceDataset, Examples, Scores, predict_logits, score_logits
from vpt.training.streaming import choose_loading


def predict(
    model: TunedModel,
    images: Sequence[ImageInput],
    callback: Callback,
    *,
    top: int = 5,
    skip_corrupt: bool = False,
    min_confidence: float | None = None,
) -> list[Prediction]:
    """Classify images. A DataError names every image that cannot be read.

    Args:
        model: The model.
        images: The images.
        callback: Receiver of progress and of notes about images.
        top: Number of classes in `Prediction.top`. Default: 5.
        skip_corrupt: True leaves unreadable images out. Default: False.
        min_confidence: Least probability of the most likely class; under it the label is "none of these". Default: 0.

    Returns:
        A prediction for each image, in order. Classes without names are named by their number.
    """
    model.require_classifier("vpt.tasks.classification.prediction.predict")
    check_rejection(model.label_kind, min_confidence)
    split = Split(tuple(images), np.zeros(len(images), dtype=np.int64))
    with _decode(model, split, "images", callback, skip_corrupt) as (pixels, dataset):
        predicted = model.label_kind.activate(predict_logits(model, dataset))
    labels, names = label_task(model.label_kind), model.classes or tuple(map(str, range(model.num_classes)))
    found = [labels.predict(split.names[k], row, names, top) for k, row in zip(pixels.indices, predicted, strict=True)]
    if min_confidence is None:
        return found
    return [replace(one, rejected=one.probability < min_confidence) for one in found]


def evaluate(
    model: TunedModel,
    data: Dataset,
    split: str,
    callback: Callback,
    *,
    skip_corrupt: bool = False,
    loading: str = "auto",
    workers: int | None = None,
) -> Scores:
    """Score a model on one split of a dataset. Classes are matched by name.

    A DataError is raised if the split is empty or holds a class that the model does not know.

    Args:
        model: The model.
        data: The dataset.
        split: Name of the split.
        callback: Receiver of progress and of notes about images.
        skip_corrupt: True leaves unreadable images out. Default: False.
        loading: "cache" decodes the images before the model runs, "stream" while it runs; "auto" streams above 4 GiB.
        workers: Number of processes that decode a stream. Default: one for each core, at most 8.

    Returns:
        The scores.
    """
    images, labels = _select_split(model, data, split), label_task(model.label_kind)
    if choose_loading(loading, 3 * model.backbone.preprocessing.size**2 * len(images), None, workers)[0]:
        options: dict[str, Any] = {"workers": workers, "skip_corrupt": skip_corrupt}
        logits, images = stream_logits(model, images, split, callback, **options)
        return labels.score(logits, torch.from_numpy(images.labels), images.groups)
    with _decode(model, images, split, callback, skip_corrupt) as (_, dataset):
        logits = predict_logits(model, dataset)
        return labels.score(logits, dataset.labels, dataset.examples.groups)


def picture_mistakes(model: TunedModel, images: Split, scores: Scores, classes: Sequence[str]) -> list[Picture]:
    """Return the most confident mistakes, decoded anew.

    Args:
        model: The model.
        images: The images that were scored.
        scores: Their scores.
        classes: Names of the classes.

    Returns:
        The pictures; none where unreadable images were left out, as the scores do not say which.
    """

    def image_of(index: int) -> NDArray[np.uint8]:
        decoded = decode(images.select(np.array([index])), model.backbone.preprocessing)
        return np.asarray(decoded.images[0].transpose(1, 2, 0))

    return confident_mistakes(scores, classes, image_of) if scores.num_images == len(images) else []


def confidences(model: TunedModel, images: Sequence[ImageInput], callback: Callback) -> NDArray[np.float64]:
    """Return the probability of the predicted class of images without labels. Unreadable ones are left out.

    Args:
        model: A model of single labels.
        images: The images.
        callback: Receiver of progress and of notes about images.

    Returns:
        Probabilities (n,).
    """
    split = Split(tuple(images), np.zeros(len(images), dtype=np.int64))
    with _decode(model, split, "foreign images", callback, skip_corrupt=True) as (_, dataset):
        return model.label_kind.activate(predict_logits(model, dataset)).amax(1).double().numpy()


def evaluate_ensemble(
    models: Sequence[TunedModel], data: Dataset, split: str = "test", *, skip_corrupt: bool = False
) -> Scores:
    """Score an ensemble by the mean of its probabilities (paper, appendix, ensembling).

    Models of one method share a forward pass; others run one after the other. Errors are also those of `evaluate`.

    Args:
        models: The models.
        data: The dataset.
        split: Name of the split. Default: "test".
        skip_corrupt: True leaves unreadable images out. Default: False.

    Returns:
        The scores.

    Raises:
        SpecError: The models do not know the same classes, or read images in different ways.
    """
    if len({(model.num_classes, model.classes) for model in models}) > 1:
        raise SpecError("the models do not know the same classes, so their predictions have no mean")
    if len({model.backbone.preprocessing for model in models}) > 1:
        raise SpecError(
            "the models read images in different ways (size, mean, std or resize), and an ensemble reads each once; "
            "load them with one preprocessing"
        )
    if models[0].label_kind.name != "single_label":
        raise SpecError(f"the models predict {models[0].label_kind.name}, and an ensemble one class for each image")
    images = _select_split(models[0], data, split)
    with _decode(models[0], images, split, Callback(), skip_corrupt) as (_, dataset):
        try:
            logits = predict_logits(Ensemble(models), dataset)
        except SpecError:  # not of one kind
            scaled = (model.label_kind.scale(predict_logits(model, dataset)) for model in models)
            logits = torch.stack([each.log_softmax(-1) for each in scaled]).logsumexp(0)
        return score_logits(logits, dataset.labels, dataset.examples.groups)


def _select_split(model: TunedModel, data: Dataset, name: str) -> Split:
    """Return one split of a dataset, with the labels of the model."""
    model.require_classifier("vpt.tasks.classification.prediction.evaluate")
    split = data.splits[name]
    if not len(split):
        nonempty = [name for name, other in data.splits.items() if len(other)]
        raise DataError(f"{data.name} has no {name} images; it has {', '.join(nonempty)}")
    if data.label_kind != model.label_kind.name:
        raise DataError(
            f"the labels of {data.name} are {data.label_kind}, and the model predicts {model.label_kind.name}; give "
            "such labels"
        )
    if model.classes is None or data.label_kind == "regression":
        return split
    present = np.flatnonzero(split.class_counts(len(data.classes)))
    unknown = sorted({data.classes[k] for k in present} - set(model.classes))
    if unknown:
        raise DataError(
            f"{data.name} holds classes the model was not tuned for: {', '.join(unknown[:10])}; it knows "
            f"{', '.join(model.classes[:10])}{' ...' if len(model.classes) > 10 else ''}"
        )
    label_of = {name: index for index, name in enumerate(model.classes)}
    model_labels = np.array([label_of.get(name, -1) for name in data.classes])
    return replace(split, labels=_translate(split.labels, model_labels, len(model.classes)))


def _translate(labels: NDArray[Any], model_labels: NDArray[np.int64], num_classes: int) -> NDArray[Any]:
    """Return labels by the classes of a model; -1 stands for a class that no image has."""
    if labels.ndim == 1:
        return np.asarray(model_labels[labels])
    translated = np.zeros((len(labels), num_classes), np.float32)
    translated[:, model_labels[model_labels >= 0]] = labels[:, model_labels >= 0]
    return translated


@contextmanager
def _decode(
    model: TunedModel, split: Split, name: str, callback: Callback, skip_corrupt: bool
) -> Iterator[tuple[DecodedImages, DeviceDataset]]:
    """Yield the decoded images of a split, also as inputs of the model."""
    progress = partial(callback.on_data_progress, name)
    options = {"progress": progress, "skip_corrupt": skip_corrupt}
    with decode_to_tempdir(split, model.backbone.preprocessing, **options) as pixels:
        for note in pixels.all_notes:
            callback.on_note(note)
        yield pixels, DeviceDataset.for_model(model, Examples(pixels.images, pixels.labels, groups=pixels.groups))
