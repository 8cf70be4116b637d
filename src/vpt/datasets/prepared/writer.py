"""Writer of a folder with list files: lossless, resumable, and marked when complete."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from vpt._version import __version__
from vpt.core.io import write_atomic, write_atomic_with
from vpt.data.manifest import begin_preparation, finish_preparation
from vpt.datasets.prepared.progress import Progress
from vpt.datasets.prepared.records import ImageRecords
from vpt.errors import DataError

_File = tuple[str, ImageRecords, int]  # path below the folder, records, index into the records


def write_data_folder(
    folder: Path,
    splits: Mapping[str, ImageRecords],
    classes: tuple[str, ...],
    list_files: Mapping[str, tuple[str, ...]],
    metadata: Mapping[str, Any],
    progress: Progress,
) -> None:
    """Write the images of each split to `folder / "images"`, then the lists, then the manifest.

    After an interruption, the same call resumes. DataError is raised if the folder contains something else.

    Args:
        folder: The new folder.
        splits: Split to its images.
        classes: Class names.
        list_files: File name of each list to the splits in it.
        metadata: Further contents of the manifest.
        progress: Called after each image.
    """
    folders = _class_folders(classes)
    files: dict[str, list[_File]] = {}
    for split_name, records in splits.items():  # in separate folders, because splits may contain the same name
        paths = zip(records.labels.tolist(), records.names, strict=True)
        files[split_name] = [
            (f"images/{split_name}/{folders[label]}/{PurePosixPath(name).name}", records, i)
            for i, (label, name) in enumerate(paths)
        ]
    list_texts = {}
    for name, split_names in list_files.items():
        listed = (file for split_name in split_names for file in files[split_name])
        list_texts[name] = "".join(f"{path} {records.labels[i]}\n" for path, records, i in listed)
    digest = hashlib.sha256("".join([str(metadata["source"]), *list_texts.values()]).encode())
    begin_preparation(folder, digest.hexdigest())
    _write(folder, [file for split_files in files.values() for file in split_files], progress)
    for name, text in list_texts.items():
        write_atomic(folder / name, text.encode())
    totals = {"images": {split_name: len(records) for split_name, records in splits.items()}, "classes": list(classes)}
    finish_preparation(folder, {"format": 1, **metadata, **totals, "vpt": __version__})


def _class_folders(classes: tuple[str, ...]) -> tuple[str, ...]:
    """Return a folder name per class: its name, preceded by its number if two names would be equal."""
    folder_names = [re.sub(r"[^\w.+-]+", "_", name).strip("_.") or "_" for name in classes]
    duplicates = {name for name, count in Counter(name.casefold() for name in folder_names).items() if count > 1}
    return tuple(f"{k:03d}_{name}" if name.casefold() in duplicates else name for k, name in enumerate(folder_names))


def _write(folder: Path, files: list[_File], progress: Progress) -> None:
    """Write the missing files. Files are moved into place when complete, so existing files are complete."""
    duplicates = [path for path, count in Counter(path for path, _, _ in files).items() if count > 1]
    if duplicates:
        raise DataError(
            f"{folder}: {len(duplicates)} images have the same path, such as {duplicates[0]}; this is a bug, report it"
        )
    for done, (path, records, i) in enumerate(files, start=1):
        target = folder / path
        if not target.is_file() or not target.stat().st_size:  # a power failure can leave empty files
            content = records.encoded(i)
            # Without fsync, which is slow for 70,000 files. Files lost by a power failure are written again.
            write_atomic_with(target, partial(Path.write_bytes, data=content), size=len(content))
        progress(f"writing {folder.name}", done, len(files))
