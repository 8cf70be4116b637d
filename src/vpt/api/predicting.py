"""The calls that predict and score."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Unpack, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vpt.api.models import Data, Device, Model, PredictOptions, SplitName, open_model, scored_data, show_progress
from vpt.data.folder_walk import is_table_name
from vpt.data.image_inputs import ImageInput
from vpt.errors import SpecError
from vpt.model.tuned_model import TunedModel
from vpt.tasks.base import Task
from vpt.tasks.classification.prediction import find_images
from vpt.tasks.classification.prediction_file import PredictionFile
from vpt.tasks.classification.prediction_file import predict_to_file as classify_to_file
from vpt.tasks.evaluation import Evaluation
from vpt.tasks.prediction import Prediction
from vpt.tasks.registry import TASKS
from vpt.training import Callback


@overload
def predict(model: Model, source: bytes | Image.Image, **options: Unpack[PredictOptions]) -> Prediction: ...
@overload
def predict(
    model: Model, source: str | Path | NDArray[Any] | Tensor, **options: Unpack[PredictOptions]
) -> Prediction | Any: ...  # a list for folders and for four dimensions, which types do not show
@overload
def predict(
    model: Model, source: list[Any] | tuple[Any, ...], **options: Unpack[PredictOptions]
) -> list[Prediction]: ...
def predict(
    model: Model,
    source: ImageInput | Sequence[ImageInput],
    *,
    top: int | None = None,
    skip_corrupt: bool | None = None,
    scales: Sequence[float] | None = None,
    flip: bool | None = None,
    out: str | Path | None = None,
    backbone: str | None = None,
    weights: str | Path | None = None,
    device: Device = "auto",
    progress: bool = False,
    callback: Callback | None = None,
) -> Prediction | list[Prediction] | Any:
    """Predict the class, the labels or the number of images or, in segmentation, the classes of their pixels.

    To predict many times, load the model once: `model = vpt.load("photos.safetensors")`.

    Args:
        model: The tuned file, or a model that `vpt.load` or `vpt.attach` returned.
        source: One image or several. An image is a path, the bytes of an image file, a Pillow image, or an array or
            tensor of shape (height, width), (height, width, channels) or (channels, height, width), uint8 in 0..255 or
            float in 0..1. Several are a folder (all images below it, sorted), a sequence of images and folders, or an
            array or tensor with four dimensions.
        top: Number of classes in `Prediction.top`, in classification. Default: 3.
        skip_corrupt: True leaves unreadable images out, in classification. Default: False.
        scales: Scales of the image whose probabilities are averaged, in segmentation. Default: (1.0,).
        flip: True averages with the mirrored image, in segmentation. Default: False.
        out: Folder for masks (NAME.mask.png) and overlays (NAME.overlay.png), in segmentation. Default: none are
            written.
        backbone: Name of the backbone. Default: the one that the file names.
        weights: File with local weights of the backbone. Default: timm's download.
        device: "auto" for the GPU if there is one, "cpu", "cuda" or "mps". A given model stays where it is with "auto".
            Default: "auto".
        progress: True shows progress in a terminal or a notebook. Default: False.
        callback: Receiver of events. Default: none.

    Returns:
        The prediction of one image, or a list with the prediction of each of several.

    Raises:
        SpecError: An option is out of range, or belongs to the other task.
        DataError: Images cannot be used; the message names all of them.
        TunedFileError: The tuned file is damaged, or made for another backbone.
        BackboneError: The backbone cannot be loaded.
    """
    images, is_single = _images(source)
    tuned = open_model(model, backbone, weights, device)
    of_classes = {"top": top, "skip_corrupt": skip_corrupt}
    of_masks = {"scales": scales, "flip": flip, "out": out}
    task, options = _task_and_options(tuned, classification=of_classes, segmentation=of_masks)
    if top is not None and top < 1:
        raise SpecError(f"top is {top}; it must be at least 1")
    if task.name == "classification":
        options.setdefault("top", 3)
    with show_progress(progress, callback) as receiver:
        predictions = task.predict(tuned, images, options, receiver)
    return predictions[0] if is_single else predictions


def predict_to_file(
    model: Model,
    source: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    probabilities: bool = False,
    skip_corrupt: bool = False,
    overwrite: bool = False,
    backbone: str | None = None,
    weights: str | Path | None = None,
    device: Device = "auto",
    progress: bool = False,
    callback: Callback | None = None,
) -> PredictionFile:
    """Classify any number of images and write a table with a row for each: path, label, probability.

    An interrupted call is resumed by the same call: rows that it has computed are kept.

    Args:
        model: The tuned file, or a model that `vpt.load` or `vpt.attach` returned.
        source: Images and folders of images. Rows have the order of the arguments, and of the paths in a folder.
        out: The table, .csv, .jsonl or .parquet. It appears at the end, whole.
        probabilities: True adds a column "p_CLASS" with the probability of each class. Default: False.
        skip_corrupt: True leaves unreadable images out. Default: False.
        overwrite: True replaces a table, and begins anew. Default: False.
        backbone: Name of the backbone. Default: the one that the file names.
        weights: File with local weights of the backbone. Default: timm's download.
        device: "auto" for the GPU if there is one, "cpu", "cuda" or "mps". A given model stays where it is with "auto".
            Default: "auto".
        progress: True shows progress in a terminal or a notebook. Default: False.
        callback: Receiver of events. Default: none.

    Returns:
        The table, with its number of rows.

    Raises:
        SpecError: The table exists, or its suffix is unknown.
        DataError: Images cannot be used, or are not those of the interrupted call.
        UnsupportedError: The model segments.
        TunedFileError: The tuned file is damaged, or made for another backbone.
        BackboneError: The backbone cannot be loaded.
    """
    paths = [source] if isinstance(source, str | Path) else source
    tuned, images = open_model(model, backbone, weights, device), find_images([Path(path) for path in paths])
    options = {"probabilities": probabilities, "skip_corrupt": skip_corrupt, "overwrite": overwrite}
    with show_progress(progress, callback) as receiver:
        return classify_to_file(tuned, images, Path(out), receiver, **options)


def evaluate(
    model: Model,
    data: Data,
    *,
    split: SplitName = "test",
    classes: Sequence[str] | None = None,
    seed: int | None = None,
    skip_corrupt: bool | None = None,
    scales: Sequence[float] | None = None,
    flip: bool | None = None,
    labels: str | None = None,
    ignore_index: int | None = None,
    reduce_zero_label: bool | None = None,
    images: str | None = None,
    masks: str | None = None,
    mask_suffix: str | None = None,
    mask_orientation: Literal["auto", "upright", "stored"] | None = None,
    split_names: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    label_kind: Literal["single_label", "multi_label", "regression"] | None = None,
    split_column: str | None = None,
    group_column: str | None = None,
    backbone: str | None = None,
    weights: str | Path | None = None,
    device: Device = "auto",
    progress: bool = False,
    callback: Callback | None = None,
) -> Evaluation:
    """Measure a tuned file on labeled images.

    Args:
        model: The tuned file, or a model that `vpt.load` or `vpt.attach` returned.
        data: As for `tune`. A folder without the split is measured whole; if it holds images that the file was trained
            on, it is split as in training instead, so that no training image is measured. Data in memory are measured
            whole, unless they are a mapping of split names to data.
        split: "train", "val" or "test". Default: "test".
        classes: Names of the classes of data in memory. Default: those of the data, or those of the model.
        seed: Seed of missing splits. Default: the one that the file names; 0 for a model.
        skip_corrupt: True leaves unreadable images out, in classification. Default: False.
        scales: Scales of the image whose probabilities are averaged, in segmentation. Default: (1.0,).
        flip: True averages with the mirrored image, in segmentation. Default: False.
        labels: Scheme of the mask ids, in segmentation: "ade20k", "cityscapes", "voc", "camvid", "plain", "auto", ids
            such as "0,255", or "colors". Default: "auto", by layout.
        ignore_index: Another id in masks that stands for no class, in segmentation. Default: none.
        reduce_zero_label: True if id 0 stands for no class and id 1 for the first, in segmentation. Default: False.
        images: Name of the folder of images, in segmentation. Default: recognized.
        masks: Name of the folder of masks, in segmentation. Default: recognized.
        mask_suffix: End of the name of a mask after that of its image, in segmentation. Default: recognized.
        mask_orientation: Masks of images that EXIF data turn, in segmentation: drawn on the "upright" image or on its
            pixels as "stored". Default: "auto", what the sizes prove.
        split_names: Names of the folders of splits, such as "train=Training,test=Testing", or "none". Default:
            recognized.
        image_column: Column of the paths of images, in tables of labels. Default: that of the training, else
            recognized.
        label_column: Column of the labels. Default: that of the training, else recognized.
        label_kind: Kind of the labels of tables. Default: that of the training.
        split_column: Column of train, val and test. Default: that of the training, else recognized.
        group_column: Column of groups of images that splits keep whole. Default: that of the training, else "group".
        backbone: Name of the backbone. Default: the one that the file names.
        weights: File with local weights of the backbone. Default: timm's download.
        device: "auto" for the GPU if there is one, "cpu", "cuda" or "mps". A given model stays where it is with "auto".
            Default: "auto".
        progress: True shows progress in a terminal or a notebook. Default: False.
        callback: Receiver of events. Default: none.

    Returns:
        The scores, between 0 and 1: `metrics["top1"]`, `metrics["map"]` of several labels, `metrics["r2"]` of numbers
        (and `metrics["mae"]` in their unit), or `metrics["miou"]` in segmentation.

    Raises:
        SpecError: An option belongs to the other task.
        DataError: Images cannot be used, the split is empty, or it has a class that the model does not know.
        TunedFileError: The tuned file is damaged, or made for another backbone.
        BackboneError: The backbone cannot be loaded.
    """
    tuned = open_model(model, backbone, weights, device)
    of_masks = {
        "scales": scales, "flip": flip, "labels": labels, "ignore_index": ignore_index,
        "reduce_zero_label": reduce_zero_label, "images": images, "masks": masks, "mask_suffix": mask_suffix,
        "mask_orientation": mask_orientation,
    }  # fmt: skip
    of_classes = {
        "skip_corrupt": skip_corrupt, "image_column": image_column, "label_column": label_column,
        "label_kind": label_kind, "split_column": split_column, "group_column": group_column,
    }  # fmt: skip
    task, options = _task_and_options(tuned, classification=of_classes, segmentation=of_masks)
    source, split_options = scored_data(model, tuned, data, split, classes)
    given = {"seed": seed, "split_names": split_names}
    split_options |= {name: value for name, value in given.items() if value is not None}
    with show_progress(progress, callback) as receiver:
        return task.evaluate(tuned, source, split, split_options | options, receiver)


def _task_and_options(model: TunedModel, **options: dict[str, Any]) -> tuple[Task, dict[str, Any]]:
    """Return the task of a model, and its options that are given. Raises SpecError for options of another task."""
    task = TASKS["segmentation" if model.is_dense else "classification"]
    given = {name: {key: value for key, value in known.items() if value is not None} for name, known in options.items()}
    for other, values in given.items():
        if other != task.name and values:
            raise SpecError(f"{', '.join(values)}: for {other}, and the model is for {task.name}; leave it out")
    return task, given[task.name]


def _images(source: Any) -> tuple[list[ImageInput], bool]:
    """Return the images of a source, and True if it is a single image."""
    if isinstance(source, str | Path):
        return list(find_images([Path(source)])), not (Path(source).is_dir() or is_table_name(Path(source).name))
    if isinstance(source, bytes | Image.Image):
        return [source], True
    if isinstance(source, np.ndarray | Tensor):
        return (list(source), False) if source.ndim == 4 else ([source], True)
    images: list[ImageInput] = []
    for image in source:
        images += find_images([Path(image)]) if isinstance(image, str | Path) else [image]
    return images, False
