"""Classification tasks of a plan."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from vpt.core.text import did_you_mean
from vpt.data import synthetic
from vpt.data.dataset import Split
from vpt.data.loading import load_dataset
from vpt.data.segmentation_layouts import detect_folder_layout
from vpt.errors import DataError
from vpt.experiments.design import Protocol, Task
from vpt.experiments.plan_schema import ClassificationTaskTable


def list_task(row: ClassificationTaskTable, path: Path, protocol: Protocol, *, choosing: bool) -> Task:
    """List the data of a classification task; no image file is opened.

    Args:
        row: Row of [[tasks]].
        path: File of the row, which its paths are relative to.
        protocol: Protocol of the plan, which says how data are split.
        choosing: Settings are selected on val.

    Returns:
        The task.

    Raises:
        DataError: The data cannot be used.
    """
    data = row.data or row.name
    folder = (path.parent / data).resolve()
    if folder.is_dir():
        data = str(folder)
    elif data not in synthetic.TASKS:
        raise DataError(
            f"{path}: the data of task {row.name!r} are neither a folder ({folder}) nor a built-in task; "
            f"{did_you_mean(data, synthetic.TASKS)}"
        )
    if folder.is_dir() and detect_folder_layout(folder) is not None:
        raise DataError(
            f"{path}: the data of task {row.name!r} hold masks ({folder}); a plan of segmentation tasks has a table "
            "[segmentation]"
        )
    dataset = load_dataset(
        data, seed=protocol.split_seed or 0, val_fraction=protocol.val_fraction, test_fraction=protocol.test_fraction
    )
    needed = {"val": "to choose settings on"} if choosing else {}
    if protocol.train_on == "trainval" or not len(dataset.val):  # else val is scored where there is no test
        needed["test"] = "to be scored on"
    for split_name, use in needed.items():
        if not len(dataset.splits[split_name]):
            raise DataError(f"{path}: the task {row.name!r} has no {split_name} images {use}; bring some, or set "
                            f"{split_name}_fraction above 0")  # fmt: skip
    return Task(
        name=row.name,
        data=data,
        group=row.group,
        classes=len(dataset.classes),
        images={split_name: len(split) for split_name, split in dataset.splits.items()},
        digests={split_name: _digest(split) for split_name, split in dataset.splits.items()},
        notes=dataset.notes,
        resize=row.resize,
        augment=row.augment,
    )


def _digest(split: Split) -> str:
    """Return a digest of names, labels and file sizes; of pixels where images are no files."""
    digest = hashlib.sha256()
    for i, (name, label) in enumerate(zip(split.names, split.labels, strict=True)):
        image = split.images[i]
        content = (
            _file_size(image) if isinstance(image, Path) else hashlib.sha256(np.asarray(image).tobytes()).hexdigest()
        )
        digest.update(f"{name}\0{label}\0{content}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:20]


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # the run will name it
        return -1
