"""Tasks of a plan: their data are listed, and hashed split by split."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vpt.core.text import did_you_mean
from vpt.data.dataset import Dataset, Split
from vpt.data.images.inputs import ImageInput
from vpt.data.images.value_range import parse_value_range
from vpt.data.loading import load_dataset
from vpt.data.masks.dataset import SegmentationDataset, load_segmentation_dataset
from vpt.data.masks.layouts import LAYOUT_HELP, ImageMaskPairs
from vpt.data.synthetic import tasks as synthetic
from vpt.data.task_detection import detect_task
from vpt.errors import DataError, VptError
from vpt.experiments.design import Protocol, Task
from vpt.experiments.planning.schema import ClassificationTaskTable, SegmentationTaskTable, TaskTable

_MASK_KEYS = ("labels", "ignore_index", "reduce_zero_label", "val_as_test")  # keys of a row that say how masks are read


def list_task(row: TaskTable, path: Path, protocol: Protocol) -> Task:
    """List the data of a task. No image is opened for classification, every image and mask for segmentation.

    Args:
        row: Row of [[tasks]].
        path: File of the row, which its paths are relative to.
        protocol: Protocol of the plan, which says how data are split.

    Returns:
        The task.

    Raises:
        DataError: The data cannot be used.
    """
    folder = (path.parent / (row.data or row.name)).resolve()
    data = str(folder) if folder.is_dir() else row.data or row.name
    has_masks = folder.is_dir() and detect_task(folder) == "segmentation"
    task, its_data = f"{path}: the task {row.name!r}", f"{path}: the data of task {row.name!r}"
    own: dict[str, Any]
    dataset: Dataset | SegmentationDataset
    if isinstance(row, SegmentationTaskTable):
        if not has_masks:
            raise DataError(f"{its_data} are not a segmentation folder ({folder}); {LAYOUT_HELP}")
        own = {"mask_options": {key: value for key, value in row.given().items() if key in _MASK_KEYS}}
        dataset = _load_masks(task, folder, protocol, own["mask_options"])
        if not len(dataset.splits.get("val", ())):
            text = f"{task} has no val images to choose settings on; bring some, or set val_fraction above 0"
            raise DataError(text)
    else:
        own = row.model_dump(include=set(ClassificationTaskTable.model_fields) - set(TaskTable.model_fields))
        if not folder.is_dir() and data not in synthetic.TASKS:
            hint = did_you_mean(data, synthetic.TASKS)
            raise DataError(f"{its_data} are neither a folder ({folder}) nor a built-in task; {hint}")
        if has_masks:
            raise DataError(
                f"{its_data} hold masks ({folder}); a plan of segmentation tasks has a table [segmentation]"
            )
        seed, val_fraction, test_fraction = protocol.split_seed or 0, protocol.val_fraction, protocol.test_fraction
        dataset = load_dataset(data, seed=seed, val_fraction=val_fraction, test_fraction=test_fraction)
        if dataset.label_kind != "single_label":
            raise DataError(
                f"{its_data} have labels of the kind {dataset.label_kind}, and a plan compares top-1; give one class "
                "for each image"
            )
    return Task(
        name=row.name,
        data=data,
        group=row.group,
        classes=len(dataset.classes),
        images={split: len(images) for split, images in dataset.splits.items()},
        digests={split: _digest(images) for split, images in dataset.splits.items()},
        notes=dataset.notes,
        **own,
    )


def _load_masks(task: str, folder: Path, protocol: Protocol, mask_options: dict[str, Any]) -> SegmentationDataset:
    seed, val_fraction = protocol.split_seed or 0, protocol.val_fraction
    value_range = None if protocol.value_range is None else parse_value_range(protocol.value_range)
    try:
        dataset = load_segmentation_dataset(
            folder, seed=seed, val_fraction=val_fraction, value_range=value_range,
            skip_corrupt=protocol.skip_corrupt, **mask_options,
        )  # fmt: skip
    except VptError as error:
        raise type(error)(f"{task}: {error}") from error
    if "test" not in dataset.splits:
        raise DataError(
            f"{task} has no test images to be scored on; bring some, or score on its val: val_as_test = true (another "
            "val is cut from train)"
        )
    return dataset


def _digest(images: Split | ImageMaskPairs) -> str:
    """Return a digest of names, and of labels and file sizes or of the file sizes of images and masks."""
    digest = hashlib.sha256()
    for values in _identify(images):
        digest.update(("\0".join(map(str, values)) + "\n").encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:20]


def _identify(images: Split | ImageMaskPairs) -> Iterator[tuple[object, ...]]:
    """Yield the name of each image and what tells it from others of this name."""
    if isinstance(images, ImageMaskPairs):
        for name, image, mask in zip(images.names, images.images, images.masks, strict=True):
            yield name, image.stat().st_size, mask.stat().st_size
    else:
        for name, label, image in zip(images.names, images.labels, images.images, strict=True):
            yield name, label, _content_key(image)


def _content_key(image: ImageInput) -> str | int:
    """Return the size of a file, -1 where it cannot be read, as the run will name it; else a hash of the pixels."""
    if not isinstance(image, Path):
        return hashlib.sha256(np.asarray(image).tobytes()).hexdigest()
    try:
        return image.stat().st_size
    except OSError:
        return -1
