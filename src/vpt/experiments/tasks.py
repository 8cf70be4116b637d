"""The tasks of a plan: their data are listed, and no image is opened."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vpt.core.text import did_you_mean
from vpt.data import synthetic
from vpt.data.dataset import Split
from vpt.data.loading import load_dataset
from vpt.data.preprocessing import Preprocessing
from vpt.data.segmentation_folder import detect_folder_layout
from vpt.errors import DataError
from vpt.experiments.experiment import Protocol, Task
from vpt.tasks.classification.config import ClassificationConfig


def list_task(row: Mapping[str, Any], path: Path, protocol: Protocol) -> Task:
    """The task of one row, which stands in the file `path`. Raises DataError for data that cannot be used."""
    data = str(row.get("data", row["name"]))
    folder = (path.parent / data).resolve()
    if folder.is_dir():
        data = str(folder)
    elif data not in synthetic.TASKS:
        raise DataError(
            f"{path}: the data of task {row['name']!r} are neither a folder ({folder}) nor a built-in task; "
            f"{did_you_mean(data, synthetic.TASKS)}"
        )
    if folder.is_dir() and detect_folder_layout(folder) is not None:
        raise DataError(
            f"{path}: the data of task {row['name']!r} hold masks ({folder}); a plan of segmentation tasks has a table "
            "[segmentation]"
        )
    dataset = load_dataset(
        data, seed=protocol.split_seed, val_fraction=protocol.val_fraction, test_fraction=protocol.test_fraction
    )
    for split_name, use in (("val", "to choose settings on"), ("test", "to be scored on")):
        if not len(dataset.splits[split_name]):
            raise DataError(f"{path}: the task {row['name']!r} has no {split_name} images {use}; bring some, or set "
                            f"{split_name}_fraction above 0")  # fmt: skip
    return Task(
        name=str(row["name"]),
        data=data,
        group=str(row.get("group", "")),
        classes=len(dataset.classes),
        images={split_name: len(split) for split_name, split in dataset.splits.items()},
        digests={split_name: _digest(split) for split_name, split in dataset.splits.items()},
        notes=dataset.notes,
        resize=Preprocessing(resize=row["resize"]).resize if row.get("resize") else None,  # raises for others
        augment=ClassificationConfig(augment=row["augment"]).augment if row.get("augment") else None,
    )


def _digest(split: Split) -> str:
    """Over what is listed: names, labels and sizes. No image file is opened; pixels count where there is no file."""
    digest = hashlib.sha256()
    for i, (name, label) in enumerate(zip(split.names, split.labels, strict=True)):
        image = split.images[i]
        content = _file_size(image) if isinstance(image, Path) else hashlib.sha256(image.tobytes()).hexdigest()
        digest.update(f"{name}\0{label}\0{content}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:20]


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # the run will name it
        return -1
