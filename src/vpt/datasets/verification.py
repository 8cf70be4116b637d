"""Verification of a prepared folder, or of a copy from another source, against its benchmark."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image

from vpt.core.text import bullets, pluralize
from vpt.data.dataset import Dataset
from vpt.data.list_files import has_list_files, read_list_files
from vpt.data.manifest import read_manifest
from vpt.datasets.prepared.progress import Progress, no_progress
from vpt.datasets.task import BenchmarkTask
from vpt.errors import DataError


def check_folder(folder: Path, task: BenchmarkTask | None = None, progress: Progress = no_progress) -> Dataset:
    """Verify a data folder: lists, number of images, classes, labels, and the header of every image.

    If the lists cannot be read, only their faults are reported.

    Args:
        folder: The data folder.
        task: The expected task. Default: only lists and images are verified.
        progress: Called after each image.

    Returns:
        The dataset.

    Raises:
        DataError: The folder is faulty. The message names every fault.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} does not exist{_prepare_hint(task)}")
    manifest = read_manifest(folder)
    if not has_list_files(folder):
        raise DataError(f"{folder} contains no list files such as train800.txt{_prepare_hint(task)}")
    dataset = read_list_files(folder)
    faults = []
    if task is not None:
        if manifest and manifest.get("task") != task.name:
            faults.append(f"prepared.json says it is {manifest.get('task')!r}, not {task.name!r}")
        faults += task.size_faults(dataset.splits)
        if len(dataset.classes) != task.classes:
            faults.append(f"labels 0 to {len(dataset.classes) - 1}, {task.name} has 0 to {task.classes - 1}")
    images = [image for split in dataset.splits.values() for image in zip(split.names, split.paths, strict=True)]
    for done, (name, path) in enumerate(images, start=1):
        fault = _header_error(path)
        if fault:
            faults.append(f"{name}: {fault}")
        progress(f"checking {folder.name}", done, len(images))
    if faults:
        raise DataError(
            f"{folder}: {pluralize(len(faults), 'fault')}:{bullets(faults, limit=len(faults))}{_prepare_hint(task)}"
        )
    return dataset


def _header_error(path: Path) -> str | None:
    """Return the fault of an image header, or None. Pixels are not decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # decoding reports them
            with Image.open(path) as image:
                return None if min(image.size) > 0 else "no pixels"
    except Exception as error:  # Pillow raises any kind of error on damaged files
        return f"cannot be read as an image: {error}"


def _prepare_hint(task: BenchmarkTask | None) -> str:
    if task is None:
        return ""
    return f"\nto create it: delete the folder, then run `vpt data prepare {task.name} --from DOWNLOADS --out FOLDER`"
