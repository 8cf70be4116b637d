"""Prediction and evaluation of classification models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from vpt.data.dataset import Dataset, Split
from vpt.data.image_files import IMAGE_SUFFIXES
from vpt.data.image_folder import is_run_directory
from vpt.data.image_inputs import ImageInput
from vpt.data.images import DecodedImages, decode_to_tempdir
from vpt.errors import DataError, SpecError
from vpt.model.ensemble import Ensemble
from vpt.model.tuned_model import TunedModel
from vpt.tasks.base import Prediction
from vpt.training import DeviceDataset, Examples, Scores, predict_logits, score_logits


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Find image files.

    Args:
        paths: Image files and folders.

    Returns:
        The files, and all images below the folders, sorted.

    Raises:
        DataError: A path does not exist, or a folder holds no image.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            files = sorted(
                file
                for file in path.rglob("*")
                if file.suffix.casefold() in IMAGE_SUFFIXES
                and file.is_file()
                and not any(map(is_run_directory, file.parents))
            )
            if not files:
                raise DataError(f"there is no image below {path}; known endings: {', '.join(sorted(IMAGE_SUFFIXES))}")
            found += files
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"{path} does not exist; give an image or a folder of images")
    return found


def predict(
    model: TunedModel,
    images: Sequence[ImageInput],
    *,
    top: int = 5,
    skip_corrupt: bool = False,
    on_image: Callable[[int, int], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> list[Prediction]:
    """Classify images. A DataError names every image that cannot be read.

    Args:
        model: The model.
        images: The images.
        top: Number of classes to name. Default: 5.
        skip_corrupt: True leaves unreadable images out. Default: False.
        on_image: Function that receives the number of finished images and of all images. Default: none.
        on_note: Function that receives notes about images. Default: none.

    Returns:
        A prediction for each image, in order. Classes without names are named by their number.
    """
    model.require_classifier("vpt.tasks.classification.prediction.predict")
    split = Split(tuple(images), np.zeros(len(images), dtype=np.int64))
    preprocessing, device = model.backbone.preprocessing, next(model.parameters()).device
    with decode_to_tempdir(split, preprocessing, progress=on_image, skip_corrupt=skip_corrupt) as pixels:
        _report_notes(pixels, on_note)
        probabilities = predict_logits(
            model, DeviceDataset(Examples(pixels.images, pixels.labels), preprocessing, device)
        ).softmax(1)
    best = probabilities.topk(min(top, probabilities.shape[1]))
    names = model.classes or tuple(str(index) for index in range(probabilities.shape[1]))
    return [
        Prediction(split.names[k], tuple((names[i], float(p)) for i, p in zip(row.tolist(), ps.tolist(), strict=True)))
        for k, row, ps in zip(pixels.indices, best.indices, best.values, strict=True)
    ]


def evaluate(
    model: TunedModel,
    data: Dataset,
    split: str = "test",
    *,
    skip_corrupt: bool = False,
    on_image: Callable[[int, int], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Scores:
    """Score a model on one split of a dataset. Classes are matched by name.

    A DataError is raised if the split is empty or holds a class that the model does not know.

    Args:
        model: The model.
        data: The dataset.
        split: Name of the split. Default: "test".
        skip_corrupt: True leaves unreadable images out. Default: False.
        on_image: Function that receives the number of finished images and of all images. Default: none.
        on_note: Function that receives notes about images. Default: none.

    Returns:
        The scores.
    """
    with _split_dataset(model, data, split, skip_corrupt, on_image, on_note) as dataset:
        return score_logits(predict_logits(model, dataset), dataset.labels)


def evaluate_ensemble(
    models: Sequence[TunedModel], data: Dataset, split: str = "test", *, skip_corrupt: bool = False
) -> Scores:
    """Score an ensemble by the mean of its probabilities (paper, appendix, ensembling).

    Prompts of one kind share a forward pass; other models run one after the other. Errors are also those of `evaluate`.

    Args:
        models: The models.
        data: The dataset.
        split: Name of the split. Default: "test".
        skip_corrupt: True leaves unreadable images out. Default: False.

    Returns:
        The scores.

    Raises:
        SpecError: The models do not know the same classes.
    """
    if len({(model.num_classes, model.classes) for model in models}) > 1:
        raise SpecError("the models do not know the same classes, so their answers have no mean")
    with _split_dataset(models[0], data, split, skip_corrupt) as dataset:
        try:
            logits = predict_logits(Ensemble(models), dataset)
        except SpecError:  # no prompt sets of one kind
            logits = torch.stack([predict_logits(model, dataset).log_softmax(-1) for model in models]).logsumexp(0)
        return score_logits(logits, dataset.labels)


@contextmanager
def _split_dataset(
    model: TunedModel,
    data: Dataset,
    split: str,
    skip_corrupt: bool,
    on_image: Callable[[int, int], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Iterator[DeviceDataset]:
    """Return one split of a dataset, with the labels of the model."""
    model.require_classifier("vpt.tasks.classification.prediction.evaluate")
    selected = data.splits[split]
    if not len(selected):
        nonempty = [name for name, other in data.splits.items() if len(other)]
        raise DataError(f"{data.name} has no {split} images; it has {', '.join(nonempty)}")
    if model.classes is not None:
        used = [data.classes[label] for label in np.unique(selected.labels)]
        unknown = sorted(set(used) - set(model.classes))
        if unknown:
            raise DataError(
                f"{data.name} holds classes the model was not tuned for: {', '.join(unknown[:10])}; it knows "
                f"{', '.join(model.classes[:10])}{' ...' if len(model.classes) > 10 else ''}"
            )
        label_of = {name: index for index, name in enumerate(model.classes)}
        model_labels = np.array([label_of.get(name, -1) for name in data.classes])
        selected = Split(selected.images, model_labels[selected.labels], selected.names)
    preprocessing, device = model.backbone.preprocessing, next(model.parameters()).device
    with decode_to_tempdir(selected, preprocessing, progress=on_image, skip_corrupt=skip_corrupt) as pixels:
        _report_notes(pixels, on_note)
        yield DeviceDataset(Examples(pixels.images, pixels.labels), preprocessing, device)


def _report_notes(pixels: DecodedImages, on_note: Callable[[str], None] | None) -> None:
    for note in (*pixels.notes, *(f"left out {name}" for name in pixels.dropped)):
        if on_note is not None:
            on_note(note)
