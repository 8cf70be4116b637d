"""The calls that predict."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import TextIOBase
from pathlib import Path
from typing import Any, BinaryIO, Unpack, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vpt.api.models import Device, Model, PredictOptions, open_model, show_progress, task_and_options
from vpt.api.outputs import require_other_files
from vpt.core.prediction import Prediction
from vpt.core.ray_cluster import cluster_address
from vpt.data.find_images import find_images
from vpt.data.folders.walk import is_table_name
from vpt.data.images.inputs import ImageInput, StoredImage
from vpt.errors import SpecError
from vpt.tasks.classification.prediction_file import ClassifyChunks, PredictionFile, classify_here
from vpt.tasks.classification.prediction_file import predict_to_file as classify_to_file
from vpt.tasks.classification.ray_prediction import classify_on_ray
from vpt.training import Callback

_FORMS = (
    "give a path, the bytes of an image file, a file that is open for reading bytes, a Pillow image, an array, a "
    "tensor, or a list of these"
)


@overload
def predict(
    model: Model, source: bytes | bytearray | memoryview | BinaryIO | Image.Image, **options: Unpack[PredictOptions]
) -> Prediction: ...
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
    source: ImageInput | bytearray | memoryview | BinaryIO | Sequence[ImageInput | BinaryIO],
    *,
    top: int | None = None,
    min_confidence: float | None = None,
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
        source: One image or several. An image is a path, the bytes of an image file, a file that is open for reading
            bytes, a Pillow image, or an array or tensor of shape (height, width), (height, width, channels) or
            (channels, height, width), uint8 in 0..255 or float in 0..1. Several are a folder (all images below it,
            sorted), a sequence of images and folders, or an array or tensor with four dimensions.
        top: Number of classes in `Prediction.top`, in classification. Default: 3.
        min_confidence: Least probability of the most likely class, in classification; under it the label is
            "none of these". Default: 0.
        skip_corrupt: True leaves unreadable images out. Default: False.
        scales: Scales of the image whose probabilities are averaged, in segmentation. Default: (1.0,).
        flip: True averages with the mirrored image, in segmentation. Default: False.
        out: Folder for masks (NAME.mask.png) and overlays (NAME.overlay.png), in segmentation. `Prediction.mask` reads
            a written mask; without files, masks stay in memory. Default: none are written.
        backbone: Name of the backbone. Default: the one that the file names.
        weights: File with local weights of the backbone. Default: timm's download.
        device: "auto" for the GPU if there is one, "cpu", "cuda" or "mps". A given model stays where it is with "auto".
            Default: "auto".
        progress: True shows progress in a terminal or a notebook. Default: False.
        callback: Receiver of events. Default: none.

    Returns:
        The prediction of one image, or a list with the prediction of each of several.

    Raises:
        SpecError: An option is out of range, or belongs to the other task, or the images have no such form.
        DataError: Images cannot be used; the message names all of them.
        TunedFileError: The tuned file is damaged, or made for another backbone.
        BackboneError: The backbone cannot be loaded.
    """
    notes: list[str] = []
    images, is_single = _images(source, notes.append)
    tuned = open_model(model, backbone, weights, device)
    of_classes, of_masks = {"top": top, "min_confidence": min_confidence}, {"scales": scales, "flip": flip, "out": out}
    task, options = task_and_options(tuned, classification=of_classes, segmentation=of_masks)
    options |= {} if skip_corrupt is None else {"skip_corrupt": skip_corrupt}
    if top is not None and top < 1:
        raise SpecError(f"top is {top}; it must be at least 1")
    if task.name == "classification":
        options.setdefault("top", 3)
    if not len(images):
        return []
    with show_progress(progress, callback) as receiver:
        for note in notes:
            receiver.on_note(note)
        predictions = task.predict(tuned, images, options, receiver)
    return predictions[0] if is_single else predictions


def predict_to_file(
    model: Model,
    source: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    probabilities: bool = False,
    min_confidence: float | None = None,
    skip_corrupt: bool = False,
    overwrite: bool = False,
    executor: str | None = None,
    verbose: bool = False,
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
        min_confidence: Least probability of the most likely class; under it the label is "none of these". Default: 0.
        skip_corrupt: True leaves unreadable images out. Default: False.
        overwrite: True replaces a table, and begins anew. Default: False.
        executor: "ray" classifies on the Ray cluster of this machine, an address such as "ray://HOST:10001" on another
            one. Its nodes use their GPUs, where it has some. Default: in this process.
        verbose: True shows the log lines of the cluster. Default: False.
        backbone: Name of the backbone. Default: the one that the file names.
        weights: File with local weights of the backbone. Default: timm's download.
        device: "auto" for the GPU if there is one, "cpu", "cuda" or "mps". A given model stays where it is with "auto".
            Default: "auto".
        progress: True shows progress in a terminal or a notebook. Default: False.
        callback: Receiver of events. Default: none.

    Returns:
        The table, with its number of rows.

    Raises:
        SpecError: The table exists, or is a file that is read, its suffix is unknown, `device` comes with an executor,
            or `verbose` without one.
        DataError: Images cannot be used, or are not those of the interrupted call.
        UnsupportedError: The model segments.
        TunedFileError: The tuned file is damaged, or made for another backbone.
        BackboneError: The backbone cannot be loaded.
    """
    if executor is not None and device != "auto":
        raise SpecError(
            f"device is {device!r} and executor {executor!r}: the nodes of a cluster use their GPUs, where it has "
            "some, or else their CPUs; leave one of them out"
        )
    if verbose and executor is None:
        raise SpecError("verbose shows the log lines of a cluster; give the executor ray, too, or leave it out")
    address = cluster_address(executor)
    paths = [source] if isinstance(source, str | Path) else source
    require_other_files([Path(out)], [model, weights, *paths])
    notes: list[str] = []
    tuned = open_model(model, backbone, weights, device)
    images = find_images(paths, notes.append)
    options = {"probabilities": probabilities, "skip_corrupt": skip_corrupt, "overwrite": overwrite}
    with show_progress(progress, callback) as receiver:
        for note in notes:
            receiver.on_note(note)
        classify: ClassifyChunks = classify_here
        if executor is not None:
            classify = partial(classify_on_ray, address=address, verbose=verbose, on_note=receiver.on_note)
        return classify_to_file(
            tuned, images, Path(out), receiver, min_confidence=min_confidence, classify=classify, **options
        )


def _images(source: Any, on_note: Callable[[str], None]) -> tuple[list[ImageInput], bool]:
    """Return the images of a source, and True if it is a single image."""
    if isinstance(source, str | Path):
        path = Path(source)
        return list(find_images([source], on_note)), not (path.is_dir() or is_table_name(path.name))
    source = _content(source)
    if isinstance(source, bytes | Image.Image | StoredImage):
        return [source], True
    if isinstance(source, np.ndarray | Tensor):
        return (list(source), False) if source.ndim == 4 else ([source], True)
    try:
        each = None if isinstance(source, Mapping) else iter(source)  # also of sequences that have __getitem__ alone
    except TypeError:
        each = None
    if each is None:
        raise SpecError(f"the images are a value of type {type(source).__name__}; {_FORMS}")
    images: list[ImageInput] = []
    for image in each:
        images += find_images([image], on_note) if isinstance(image, str | Path) else [_content(image)]
    return images, False


def _content(image: Any) -> Any:
    """Return the bytes of a file object or a buffer, and other images as they are."""
    if isinstance(image, TextIOBase):
        raise SpecError('an image is a file that is opened as text; open it with open(path, "rb")')
    if isinstance(image, bytearray | memoryview):
        return bytes(image)
    return image.read() if hasattr(image, "read") and not isinstance(image, StoredImage) else image
