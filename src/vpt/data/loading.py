"""Loading of a classification dataset from a folder or by the name of a built-in task."""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from vpt.core.text import comma_list, did_you_mean
from vpt.data.checks import class_notes, leakage_notes
from vpt.data.dataset import Dataset, Split
from vpt.data.folders.class_folders import (
    LAYOUT_HELP,
    find_class_names,
    find_images_by_class,
    make_split,
    read_image_folder,
)
from vpt.data.folders.names import SPLITS
from vpt.data.folders.shards import TarImage, find_shards, read_shards
from vpt.data.folders.walk import exists, is_folder, require_path
from vpt.data.manifest import read_manifest
from vpt.data.splits import fill_missing_splits
from vpt.data.synthetic import tasks as synthetic
from vpt.data.tables.columns import TableColumns, require_column
from vpt.data.tables.files import explain_unclear, find_tables, given_tables, unread_tables
from vpt.data.tables.foreign_labels import describe_foreign_labels
from vpt.data.tables.list_files import has_list_files
from vpt.data.tables.listings import is_listing, read_listing
from vpt.data.tables.rows import read_table
from vpt.data.training_marks import check_split_again, describe_trained_val, describe_whole, has_marked
from vpt.errors import DataError, SpecError

_T = TypeVar("_T")


def load_dataset(
    source: str | Path | Dataset,
    *,
    seed: int = 0,
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
    include_test: bool = True,
    split_names: str | None = None,
    columns_are_recorded: bool = False,
    **columns: str | None,
) -> Dataset:
    """Read a folder of class folders, lists or tables of labels, or a built-in task. No image is decoded.

    Notes that `vpt data prepare` stored in a folder are included. SpecError is raised for fractions that leave nothing
    to train on.

    Args:
        source: A folder, tables such as "train.csv,test.csv", the name of a built-in task, or a dataset in memory.
        seed: Seed of the images of a built-in task, and of missing splits. Default: 0.
        val_fraction: Fraction of each class to move from train to val if there is no val; 0 for none. Default: 0.2.
        test_fraction: Fraction of each class to move from train to test if there is no test; 0 for none. Default: 0.2.
        include_test: False for a dataset without a test split, of which no image is opened. Default: True.
        split_names: Names of the split folders, see `parse_split_names`. Default: recognized.
        columns_are_recorded: True for columns and `split_names` of an earlier run, which other data do not need.
            Default: False.
        **columns: Columns of tables, see `TableColumns`. Default: recognized.

    Returns:
        The dataset.

    Raises:
        SpecError: Columns are given for data without a table, or `split_names` for data without folders of classes.
        DataError: The source does not exist, is not completely prepared, or cannot be used.
    """
    root = Path(str(source))
    require_path(str(source), "the data source", f"{LAYOUT_HELP}, or name a built-in task")
    try:
        known = TableColumns.of(columns)
        dataset = source if isinstance(source, Dataset) else _read(root, str(source), seed, split_names, known)
        if not columns_are_recorded:
            _refuse_split_names(source, split_names, known, dataset)
            if not isinstance(source, Dataset):
                refuse_columns(source, known, dataset)
    except OSError as error:
        raise DataError(f"{str(source)!r} cannot be read: {error}; check the path and its permissions") from error
    dataset = replace(dataset, name=dataset.name.encode("utf-8", "replace").decode())  # may be invalid UTF-8
    dataset = fill_missing_splits(dataset, seed=seed, val_fraction=val_fraction, test_fraction=test_fraction)
    if not include_test:  # before leakage_notes, which opens images
        dataset = replace(dataset, test=Split())
    notes = (*dataset.notes, *class_notes(dataset), *leakage_notes(dataset))
    if is_folder(root) and str(source) in synthetic.TASKS:
        notes = (f"the folder {source} is used, not the built-in task of that name", *notes)
    return replace(dataset, notes=notes)


def load_scored_dataset(
    source: str | Path | Dataset,
    split: str,
    *,
    trained_on: Sequence[str] = (),
    train_on: Literal["train", "trainval"] = "train",
    on_note: Callable[[str], None] | None = None,
    given_columns: Collection[str] = (),
    **options: Any,
) -> Dataset:
    """Read labeled images that a model is scored on.

    A folder that holds images of the training is split as in training. Of another one, the images of the split are read
    or, if it has no such split, all of them, whatever it is called.

    Args:
        source: A folder, the name of a built-in task, or a dataset in memory.
        split: Name of the split that is scored. "all" keeps the splits; without any, all images are test.
        trained_on: Marks of the training images, see `make_marks`. Default: none, a folder is split as in training.
        train_on: "trainval" if the training took val, too; then it is none where data are split as in training.
            Default: "train".
        on_note: Called with a note if all images of a folder are read, or if the splits are not those of the training.
            Default: none.
        given_columns: Those of the options of columns that a user gives, which the data must have. Default: none, all
            are those of the training, which other data need not have.
        **options: Other arguments of `load_dataset`.

    Returns:
        The dataset. Of a folder that holds no image of the training, all other splits are empty.

    Raises:
        SpecError: Columns are given for data without a table.
        DataError: A column that is given does not exist, the split has images that were trained on, as the images or
            the seed changed since, or the data cannot be read.
    """
    root = Path(str(source))
    columns = TableColumns.of(options)
    _require_columns(source, columns, given_columns)
    options["columns_are_recorded"] = True

    def check_again(dataset: Dataset) -> None:
        if trained_on and split in ("val", "test"):
            by_split = {name: found.images for name, found in dataset.splits.items()}
            note = check_split_again(source, by_split, split, trained_on)
            if note and on_note is not None:
                on_note(note)

    def split_as_in_training() -> Dataset:
        dataset = load_dataset(source, **options)
        images = dataset.trainval().images
        are_files = any(isinstance(image, Path | TarImage) for image in images)
        is_foreign = bool(trained_on) and are_files and not has_marked(images, trained_on)
        if train_on == "trainval" and not is_foreign:
            if split == "val":
                raise DataError(describe_trained_val(source))
            dataset = replace(dataset, train=dataset.trainval(), val=Split())
        check_again(dataset)
        return dataset

    if isinstance(source, Dataset) or not str(source).strip():
        return split_as_in_training()
    is_sharded = _is_sharded(root, columns)
    if is_sharded or is_listing(source, columns):
        listed = read_shards(root, complete=False) if is_sharded else read_listing(source, columns, complete=False)
        present = {name: images for name, images in listed.splits.items() if len(images)}
        stays = ("val", "test") if train_on == "train" else ("test",)  # images of train move to missing splits
        if split in present and split in stays:
            check_again(listed)
        elif not trained_on or has_marked(listed.trainval().images, trained_on):
            return split_as_in_training()
        scored, whole_as = _scored_splits(present, split)
        if whole_as is not None:
            scored = {whole_as: listed.trainval().concat(listed.test)}
            if on_note is not None:
                on_note(describe_whole(root, whole_as, len(scored[whole_as])))
        train, val, test = (scored.get(name, Split()) for name in SPLITS)
        return Dataset(listed.name, listed.classes, train, val, test, listed.source)
    if not trained_on or not is_folder(root):
        return split_as_in_training()
    found, ignored = find_images_by_class(root, options.get("split_names"))
    if has_marked((path for by_class in found.values() for paths in by_class.values() for path in paths), trained_on):
        return split_as_in_training()
    by_split, whole_as = _scored_splits(found, split)
    if whole_as is not None:
        whole: defaultdict[str, list[Path]] = defaultdict(list)
        for by_class in found.values():
            for name, paths in by_class.items():
                whole[name] += paths
        by_split = {whole_as: dict(whole)}
    classes = tuple(sorted({name for by_class in by_split.values() for name in by_class}))
    scored = {name: make_split(by_class, classes, root) for name, by_class in by_split.items()}
    if whole_as is not None and on_note is not None:
        on_note(describe_whole(root, whole_as, len(scored[whole_as])))
    train, val, test = (scored.get(name, Split()) for name in SPLITS)
    return Dataset(root.resolve().name, classes, train, val, test, str(root), ignored=tuple(sorted(ignored)))


def _scored_splits(present: Mapping[str, _T], split: str) -> tuple[dict[str, _T], str | None]:
    """Return the splits that are scored; or none, and the name under which all images are scored as one split."""
    if split == "all":
        return ({}, "test") if present.keys() == {"train"} else (dict(present), None)
    return ({split: present[split]}, None) if split in present else ({}, split)


def _read(root: Path, source: str, seed: int, split_names: str | None, columns: TableColumns) -> Dataset:
    """Read a folder or tables, or draw a built-in task."""
    if _is_sharded(root, columns):
        return read_shards(root)
    if is_folder(root):
        notes = [*read_manifest(root).get("notes", ()), *_notes_on_tables(root, columns)]
        dataset = read_listing(root, columns) if is_listing(root, columns) else _read_folder(root, split_names, columns)
        return replace(dataset, notes=(*dataset.notes, *notes))
    if is_listing(source, columns):
        return read_listing(source, columns)
    if source in synthetic.TASKS:
        drawn = synthetic.generate_splits(source, seed)
        train, val, test = (Split(*drawn[split_name]) for split_name in ("train", "val", "test"))
        origin = f"built-in task {source}, drawn with seed {seed}"
        return Dataset(source, synthetic.TASKS[source].classes, train, val, test, origin)
    if exists(root):
        raise DataError(f"{source} is a file, not a folder; {LAYOUT_HELP}; extract archives first")
    raise DataError(
        f"{source!r} is neither a folder nor a built-in task; {LAYOUT_HELP}. "
        f"Built-in tasks: {did_you_mean(source, synthetic.TASKS)}"
    )


def _require_columns(source: str | Path | Dataset, columns: TableColumns, given: Collection[str]) -> None:
    """Refuse columns that a user gives for data to be scored and that the data lack."""
    wanted = replace(columns, **{name: None for name in columns.given if name not in given})
    refuse_columns(source, wanted, source if isinstance(source, Dataset) else None)
    if not wanted.given or isinstance(source, Dataset):
        return
    root = Path(source)
    for path in find_tables(root, columns) if is_folder(root) else given_tables(source):
        for option in ("split_column", "group_column"):
            if option in wanted.given:
                table = read_table(path, [])  # whole: a key of JSON Lines may come late; faults are named later
                require_column(table, wanted.given[option], option)


def _refuse_split_names(
    source: str | Path | Dataset, split_names: str | None, columns: TableColumns, dataset: Dataset
) -> None:
    """Refuse names of split folders for data whose splits are no folders."""
    if split_names is None:
        return
    root = Path() if isinstance(source, Dataset) else Path(source)
    has_folders = is_folder(root) and not _is_sharded(root, columns) and not is_listing(root, columns)
    if isinstance(source, Dataset) or not has_folders:
        described = dataset.source or f"{dataset.name}, in memory"
        raise SpecError(f"split_names is {split_names!r}, and names folders of splits; these data are {described}; "
                        "leave it out")  # fmt: skip


def refuse_columns(source: str | Path | Dataset, columns: TableColumns, dataset: Dataset | None) -> None:
    """Refuse columns of tables, and a kind of labels, for data without a table.

    Args:
        source: A folder, tables, the name of a built-in task, or a dataset in memory.
        columns: The columns that a user gives.
        dataset: What the source is read as, or None for a folder of classes.

    Raises:
        SpecError: Columns are given, or a kind that the labels do not have.
        DataError: A table in the folder cannot be read as one of labels.
    """
    kind = "single_label" if dataset is None else dataset.label_kind
    given = {name: value for name, value in columns.given.items() if (name, value) != ("label_kind", kind)}
    if not given:
        return
    (name, value), *_ = given.items()
    if isinstance(source, Dataset):
        raise SpecError(f"{name} is {value!r}, and {source.name} is in memory, without a table of labels; leave it out")
    root = Path(source)
    has_table = is_listing(source, columns) and not _is_sharded(root, columns)
    if not has_table or (is_folder(root) and has_list_files(root)):
        reason = explain_unclear(root, columns) if is_folder(root) else ""
        if reason:
            raise DataError(reason)
        described = (dataset and dataset.source) or "a folder"
        raise SpecError(
            f"{name} is {value!r}, and {source} is read as {described}, without a table of labels; leave it out, or "
            "give the table"
        )


def _is_sharded(root: Path, columns: TableColumns) -> bool:
    return bool(find_shards(root)) and not is_listing(root, columns, named=True)


def _notes_on_tables(root: Path, columns: TableColumns) -> list[str]:
    """Return notes on tables that are read instead of class folders, and on those that cannot be read."""
    notes = [f"a table is not used: {reason}" for reason in unread_tables(root)]
    tables = [] if has_list_files(root) else find_tables(root, columns)
    folders = find_class_names(root) if tables else []
    if folders:
        names = comma_list([path.name for path in tables])
        notes.append(f"labels are those of {names}; the folders {comma_list(folders)} are not read as classes")
    return notes


def _read_folder(root: Path, split_names: str | None, columns: TableColumns) -> Dataset:
    """Read a folder of class folders. Where it holds none, a table or other labels that are not read are named."""
    try:
        return read_image_folder(root, split_names)
    except DataError as error:
        reason = explain_unclear(root, columns)
        foreign = describe_foreign_labels(root)
        if not reason and not foreign:
            raise
        raise DataError(reason or f"{root} holds no class folders: {foreign}") from error
