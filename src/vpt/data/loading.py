"""Loading of a classification dataset from a folder or by the name of a built-in task."""

from dataclasses import replace
from pathlib import Path

from vpt.core.text import did_you_mean
from vpt.data import synthetic
from vpt.data.checks import class_notes, leakage_notes
from vpt.data.dataset import Dataset, Split
from vpt.data.image_folder import LAYOUT_HELP, read_image_folder
from vpt.data.list_files import has_list_files, read_list_files
from vpt.data.manifest import read_manifest
from vpt.data.splits import fill_missing_splits
from vpt.errors import DataError


def load_dataset(
    source: str | Path | Dataset,
    *,
    seed: int = 0,
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
    include_test: bool = True,
) -> Dataset:
    """Read a folder with list files, a folder of class folders, or a built-in task. No image is decoded.

    Notes that `vpt data prepare` stored in a folder are included. SpecError is raised for fractions that leave nothing
    to train on.

    Args:
        source: A folder, the name of a built-in task, or a dataset in memory.
        seed: Seed of the images of a built-in task, and of missing splits. Default: 0.
        val_fraction: Fraction of each class to move from train to val if there is no val; 0 for none. Default: 0.2.
        test_fraction: Fraction of each class to move from train to test if there is no test; 0 for none. Default: 0.2.
        include_test: False for a dataset without a test split, of which no image is opened. Default: True.

    Returns:
        The dataset.

    Raises:
        DataError: The source does not exist, is not completely prepared, or cannot be used.
    """
    root = Path(str(source))
    if not str(source).strip():  # Path("") is the current folder
        raise DataError(
            f"the data source is {str(source)!r}; {LAYOUT_HELP}, or name a built-in task; `.` is the current folder"
        )
    try:
        dataset = source if isinstance(source, Dataset) else _read(root, str(source), seed)
    except OSError as error:
        raise DataError(f"{str(source)!r} cannot be read: {error}; check the path and its permissions") from error
    dataset = replace(dataset, name=dataset.name.encode("utf-8", "replace").decode())  # may be invalid UTF-8
    dataset = fill_missing_splits(dataset, seed=seed, val_fraction=val_fraction, test_fraction=test_fraction)
    if not include_test:  # before leakage_notes, which opens images
        dataset = replace(dataset, test=Split())
    notes = (*dataset.notes, *class_notes(dataset), *leakage_notes(dataset))
    if root.is_dir() and str(source) in synthetic.TASKS:
        notes = (f"the folder {source} is used, not the built-in task of that name", *notes)
    return replace(dataset, notes=notes)


def _read(root: Path, source: str, seed: int) -> Dataset:
    """Read a folder, or draw a built-in task."""
    if root.is_dir():
        notes = read_manifest(root).get("notes", ())
        dataset = read_list_files(root) if has_list_files(root) else read_image_folder(root)
        return replace(dataset, notes=(*dataset.notes, *notes))
    if source in synthetic.TASKS:
        drawn = synthetic.generate_splits(source, seed)
        train, val, test = (Split(*drawn[split_name]) for split_name in ("train", "val", "test"))
        origin = f"built-in task {source}, drawn with seed {seed}"
        return Dataset(source, synthetic.TASKS[source].classes, train, val, test, origin)
    if root.exists():
        raise DataError(f"{source} is a file, not a folder; {LAYOUT_HELP}; extract archives first")
    raise DataError(
        f"{source!r} is neither a folder nor a built-in task; {LAYOUT_HELP}. "
        f"Built-in tasks: {did_you_mean(source, synthetic.TASKS)}"
    )
