"""The one way in: what a user typed -> a `Dataset`, whichever layout it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from vpt.data import synthetic
from vpt.data.classes import class_notes
from vpt.data.dataset import Dataset, Split
from vpt.data.image_folder import SHAPE, read_folder
from vpt.data.leakage import leak_notes
from vpt.data.list_files import has_lists, read_lists
from vpt.data.manifest import read_manifest
from vpt.data.splits import complete
from vpt.errors import DataError, nearest

# The first reader that knows the layout of a folder reads it.
_READERS: tuple[tuple[Callable[[Path], bool], Callable[[Path], Dataset]], ...] = (
    (has_lists, read_lists),
    (lambda root: True, read_folder),
)


def read(
    source: str | Path,
    *,
    seed: int = 0,
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
    test: bool = True,
) -> Dataset:
    """Read a folder with list files, a folder of class folders, or a built-in task by its name.

    seed: for the images of a built-in task, and for cutting val and test where the source has none.
    val_fraction, test_fraction: share of each class that such a cut takes; 0 leaves the part empty.
    test: False gives a dataset without a test part; none of its images is opened then.

    No image is decoded yet. What `vpt data prepare` noted of a folder comes with it. Raises DataError when the source
    is not there, is not prepared to its end or cannot be used, SpecError for fractions that leave nothing to train on.
    """
    root = Path(source)
    if not str(source).strip():  # which would be the folder one stands in
        raise DataError(f"the data are {str(source)!r}; {SHAPE}, or a built-in task; `.` is the folder you are in")
    try:
        if root.is_dir():
            known = next(reader for knows, reader in _READERS if knows(root))
            manifest = read_manifest(root)
            dataset = known(root)
            if manifest is not None:
                dataset = replace(dataset, notes=(*dataset.notes, *manifest.get("notes", ())))
        elif str(source) in synthetic.TASKS:
            dataset = _built_in(str(source), seed)
        elif root.exists():
            raise DataError(f"{source} is a file, not a folder; {SHAPE}; unpack an archive first")
        else:
            raise DataError(
                f"{str(source)!r} is neither a folder nor a built-in task; {SHAPE}. "
                f"Built-in tasks: {nearest(str(source), synthetic.TASKS)}"
            )
    except OSError as error:
        raise DataError(f"{str(source)!r} cannot be read: {error}; check the path and its permissions") from error
    dataset = replace(dataset, name=dataset.name.encode("utf-8", "replace").decode())  # it may be bytes of no encoding
    dataset = complete(dataset, seed=seed, val_fraction=val_fraction, test_fraction=test_fraction)
    if not test:  # before the search for leaks, which opens images
        dataset = replace(dataset, test=Split())
    notes = (*dataset.notes, *class_notes(dataset), *leak_notes(dataset))
    if root.is_dir() and str(source) in synthetic.TASKS:
        notes = (f"the folder {source} was read, not the built-in task of that name", *notes)
    return replace(dataset, notes=notes)


def _built_in(name: str, seed: int) -> Dataset:
    task = synthetic.TASKS[name]
    splits = {part: Split(images, labels) for part, (images, labels) in synthetic.load(name, seed).items()}
    return Dataset(
        name=name,
        classes=tuple(task.classes),
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        source=f"built-in task {name}, drawn with seed {seed}",
    )
