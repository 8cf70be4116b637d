"""Images of published splits as readers return them, and the prepared folder that they become.

A prepared folder holds images, list files, and at the end `prepared.json`. Writing is lossless and can be resumed.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vpt._version import __version__
from vpt.core.io import write_atomic
from vpt.core.text import pluralize, refuse
from vpt.data.images.files import encode_png
from vpt.data.manifest import begin_preparation, finish_preparation
from vpt.errors import DataError

Progress = Callable[[str, int, int], None]  # description, done, total


def no_progress(description: str, done: int, total: int) -> None:
    """Ignore a progress report.

    Args:
        description: Description of the operation.
        done: Number of completed items.
        total: Number of items.
    """


@dataclass(frozen=True, eq=False)
class ImageRecords:
    """Images of one published split, in the order of the source.

    Args:
        names: n file names with suffix, as in the publisher's lists.
        labels: Integers (n,), stored as int64.
        encoded: Function from index to the bytes of an image file, of the format of its suffix.
        keys: n keys by which TensorFlow Datasets orders the split, see `published_order`. Default: the names.

    Raises:
        DataError: The lengths differ.
    """

    names: tuple[str, ...]
    labels: NDArray[Any]
    encoded: Callable[[int], bytes]
    keys: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check and convert the fields."""
        if not self.keys:
            object.__setattr__(self, "keys", self.names)
        object.__setattr__(self, "labels", np.asarray(self.labels).astype(np.int64))
        if not len(self.names) == len(self.labels) == len(self.keys):
            raise DataError(
                f"{len(self.names)} images with {len(self.labels)} labels; the source is incomplete, download it again"
            )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.names)

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> "ImageRecords":
        """Return the images at some indices.

        Args:
            indices: Indices of images.

        Returns:
            These images, in this order.
        """
        selected = np.asarray(indices, dtype=np.int64).tolist()
        names, keys = (tuple(texts[i] for i in selected) for texts in (self.names, self.keys))
        return ImageRecords(names, self.labels[selected], lambda i: self.encoded(selected[i]), keys)

    def concat(self, other: "ImageRecords") -> "ImageRecords":
        """Return these images followed by others.

        Args:
            other: The other images.

        Returns:
            All images.
        """
        num_first = len(self)
        return ImageRecords(
            self.names + other.names,
            np.concatenate([self.labels, other.labels]),
            lambda i: self.encoded(i) if i < num_first else other.encoded(i - num_first),
            self.keys + other.keys,
        )


@dataclass(frozen=True, eq=False)
class SourceData:
    """All images of a source for one task.

    Args:
        classes: Class names.
        splits: Published split ("train", "validation", "test") to its images.
        folder: Folder that may contain lists of a split. Default: none.
        notes: Messages for users of the results.
    """

    classes: tuple[str, ...]
    splits: dict[str, ImageRecords]
    folder: Path | None = None
    notes: tuple[str, ...] = ()


def records_from_files(
    root: Path, names: Sequence[str], labels: Sequence[int] | NDArray[Any], keys: Sequence[str] = ()
) -> ImageRecords:
    """Return image files as records.

    Args:
        root: Folder of the images.
        names: Paths below `root`.
        labels: Label of each image.
        keys: See `ImageRecords`.

    Returns:
        The records.

    Raises:
        DataError: Files are missing. The message names them.
    """
    missing = [name for name in names if not (root / name).is_file()]
    refuse(missing, f"{root}: {pluralize(len(missing), 'listed image')} missing", "extract or download it again")
    paths = tuple(str(PurePosixPath(name)) for name in names)
    return ImageRecords(paths, np.asarray(labels), lambda i: (root / names[i]).read_bytes(), tuple(keys))


def records_from_arrays(
    prefix: str, digits: int, labels: NDArray[Any], read_pixels: Callable[[int], NDArray[np.uint8]]
) -> ImageRecords:
    """Return images that are published as one array. They are stored as PNG, and their keys are their indices.

    Args:
        prefix: Start of each file name, such as "train" of "train_00007.png".
        digits: Minimum number of digits in each file name.
        labels: Integers (n,).
        read_pixels: Function from index to uint8 (height, width) or (height, width, 3).

    Returns:
        The records.
    """

    def encoded(i: int) -> bytes:
        return encode_png(Image.fromarray(np.ascontiguousarray(read_pixels(i))))

    names = tuple(f"{prefix}_{i:0{digits}d}.png" for i in range(len(labels)))
    return ImageRecords(names, labels, encoded, tuple(map(str, range(len(labels)))))


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
    origin = [str(metadata["source"]), str(metadata.get("image", ""))]  # the lists are equal for each column of images
    digest = hashlib.sha256("".join([*origin, *list_texts.values()]).encode())
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
            write_atomic(target, content, sync=False)
        progress(f"writing {folder.name}", done, len(files))
