"""Labels in CSV, JSON Lines and Parquet files: a column of images, one of labels, and perhaps of splits and groups."""

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from vpt.core.text import comma_list, pluralize, refuse
from vpt.data.checks import check_classes
from vpt.data.dataset import Dataset, Split
from vpt.data.folders.names import SPLITS, find_split_names
from vpt.data.folders.walk import image_entries
from vpt.data.label_kinds import KindName
from vpt.data.tables.columns import ChosenColumns, TableColumns, choose_columns
from vpt.data.tables.entries import Entry, check_labels_agree, group_ids, name_of, unique_entries
from vpt.data.tables.files import splits_of_files
from vpt.data.tables.images import ImageFinder, find_image, texts_of
from vpt.data.tables.labels import (
    Label,
    classes_of,
    detect_label_kind,
    encode_labels,
    plain_number,
    read_label,
    refuse_indicators,
    require_variety,
)
from vpt.data.tables.rows import Table, read_table, with_decimal_points
from vpt.errors import DataError

_THOUSANDS = re.compile(r"-?[1-9]\d{0,2}(,\d{3})+")  # as in 1,200, which could also be 1.2


def read_tables(files: Sequence[Path], root: Path, columns: TableColumns, *, complete: bool = True) -> Dataset:
    """Read tables of labels. No image is opened.

    The split of an image is that of the column, else of the name of its file or of the folder around it; a single file
    without a column of splits is train. Labels are one class, several or a number, see `detect_label_kind`.

    Args:
        files: The tables.
        root: The data folder, which names of images are relative to.
        columns: The columns that a user gives.
        complete: False also reads images without a training split, of one class, and without the columns of splits and
            groups that are given. Default: True.

    Returns:
        The dataset. A split without images is empty.

    Raises:
        DataError: The tables are faulty. The message names the faulty lines of all of them.
    """
    faults: list[str] = []
    tables: list[tuple[Table, ChosenColumns, str | None]] = []
    for path, split in splits_of_files(files, root).items():
        table = read_table(path, faults, name_of(path, root))
        if table.rows:
            chosen = choose_columns(table, columns, strict=complete)
            tables.append((_with_clear_commas(table, chosen, columns.label_kind), chosen, split))
        else:
            faults.append(f"{name_of(path, root)} has no rows")
    labels = {chosen.labels for _, chosen, _ in tables}
    notes = _notes_on_columns(tables)
    splits: dict[str, list[Entry[Label]]] = {split: [] for split in SPLITS}
    kind = columns.label_kind
    if len(labels) > 1 and max(map(len, labels)) > 1:
        faults.append(f"the tables have different columns of labels: {' and '.join(map(comma_list, labels))}")
    elif tables:
        kind = kind or detect_label_kind([(table, chosen.labels) for table, chosen, _ in tables])
        if kind == "regression" and max(map(len, labels)) > 1:
            raise DataError(
                f"label_kind is regression, and the columns of labels are {comma_list(next(iter(labels)))}; give one "
                "column of numbers by --label-column"
            )
        if kind == "multi_label" and max(map(len, labels)) == 1:
            refuse_indicators([(table, chosen.labels) for table, chosen, _ in tables])
        for table, chosen, split in tables:
            for split_name, entry in _unique(_entries(table, chosen, kind, split, root, faults), faults):
                splits[split_name].append(entry)
    listed = [entry for split in SPLITS for entry in splits[split]]
    check_labels_agree(listed, faults)
    names = ", ".join(name_of(path, root) for path in files)
    refuse(faults, f"{root}: {pluralize(len(faults), 'fault')} in {names}", "correct these lines")
    assert kind is not None  # without tables, there are faults
    classes = classes_of([entry.label for entry in listed], next(iter(labels)), kind)
    if complete:
        if not splits["train"]:
            raise DataError(f"{names} in {root} lists no image of train, only of {comma_list([*_present(splits)])}")
        # A rare class may be in val only; it is learned from train and val together.
        known = {"train": splits["train"] + splits["val"], "test": splits["test"]}
        if kind == "single_label":
            counts = {split: Counter(str(entry.label) for entry in found) for split, found in known.items()}
            check_classes(f"{names} in {root}", counts, "add images of another class")
        else:
            require_variety([entry.label for entry in known["train"]], names)
    groups = group_ids([splits[split] for split in SPLITS])
    notes += _group_notes(splits)
    left = _unlisted(root, {entry.path for entry in listed})
    if left:
        notes.append(f"{pluralize(len(left), 'image')} below {root} not used, since no table lists them: "
                     f"{comma_list(left)}")  # fmt: skip
    train, val, test = (
        Split.of_files(
            root,
            [entry.path for entry in splits[name]],
            encode_labels([entry.label for entry in splits[name]], classes, kind),
            None if groups is None else groups[i],
        )
        for i, name in enumerate(SPLITS)
    )
    return Dataset(root.resolve().name, classes, train, val, test, f"tables {names} in {root}", tuple(notes))


def _with_clear_commas(table: Table, chosen: ChosenColumns, kind: KindName | None) -> Table:
    """Return a table whose labels such as "3,5" are numbers, if they are said to be. Refuse to guess it."""
    unclear = [column for column in chosen.labels if column in table.unclear_commas]
    if not unclear or kind in ("single_label", "multi_label"):
        return table
    for column in unclear:
        shown = [str(value) for value in table.values(column) if "," in str(value)]
        if all(map(_THOUSANDS.fullmatch, shown)):
            whole, fraction = shown[0].replace(",", ""), shown[0].replace(",", ".", 1)
            raise DataError(
                f"{table.path}: the column {column} holds {shown[0]!r} and the like, {whole} or {fraction}; "
                "remove the commas of thousands, or write decimal points (--label-kind single_label keeps names)"
            )
    if kind is None:
        text = next(str(value) for value in table.values(unclear[0]) if "," in str(value))
        raise DataError(
            f"{table.path}: the column {unclear[0]} holds {text!r} and the like, which are numbers with decimal "
            f"commas (--label-kind regression) or names of classes (--label-kind single_label; several of an image are "
            "joined by |, and so are 3|5)"
        )
    return with_decimal_points(table, unclear)


def _unlisted(root: Path, listed: Set[str]) -> list[str]:
    """Return the images that no table lists, in the folders below the data folder that hold listed ones."""
    found = []
    for folder in sorted({(root / path).parent for path in listed}):
        try:
            found += image_entries(folder) if folder.is_relative_to(root) else []
        except DataError:  # an unreadable folder, of which the images may be read
            continue
    return [name for name in (name_of(path, root) for path in found) if name not in listed]


def _notes_on_columns(tables: Sequence[tuple[Table, ChosenColumns, str | None]]) -> list[str]:
    """Return notes on columns that could be groups and are not used, and on labels with decimal commas."""
    unused = [(table, chosen.like_groups[0]) for table, chosen, _ in tables if chosen.like_groups and not chosen.group]
    notes = [
        f"{table.path.name} has the column {column}; --group-column {shlex.quote(column)} keeps its images together in "
        "splits and folds"
        for table, column in unused
    ]
    for table, chosen, _ in tables:
        commas = [column for column in chosen.labels if column in table.decimal_commas]
        notes += [f"commas in the column {column} of {table.path.name} are read as decimal points" for column in commas]
    return notes


def _entries(
    table: Table, chosen: ChosenColumns, kind: KindName, split: str | None, root: Path, faults: list[str]
) -> list[tuple[str, Entry[Label]]]:
    """Return the valid rows of a table with their splits, and add the others to `faults`."""
    finder = ImageFinder(table.path.parent, texts_of(table, chosen.image))
    named = _named_splits(table, chosen.split)
    found = []
    for row in table.rows:
        own = split or "train"
        if chosen.split is not None:
            text = row.cells.get(chosen.split)
            if str(text) not in named:
                faults.append(f"{row.place}: {chosen.split} is {text!r}; a split is train, val or test")
                continue
            own = named[str(text)]
        image = find_image(finder, row, chosen.image, root, own, faults)
        label = read_label(row, chosen.labels, kind, faults)
        if image is not None and label is not None:
            group = row.cells.get(chosen.group) if chosen.group is not None else None
            entry = Entry(name_of(image, root), label, row.place, "" if group is None else plain_number(str(group)))
            found.append((own, entry))
    return found


def _unique(entries: list[tuple[str, Entry[Label]]], faults: list[str]) -> list[tuple[str, Entry[Label]]]:
    kept = set(map(id, unique_entries([entry for _, entry in entries], faults)))
    return [(split, entry) for split, entry in entries if id(entry) in kept]


def _named_splits(table: Table, column: str | None) -> Mapping[str, str]:
    """Return the split of each text of a column that names one."""
    if column is None:
        return {}
    texts = list(dict.fromkeys(str(value) for value in table.values(column)))
    return {text: split for split, names in find_split_names(texts).items() for text in names}


def _present(splits: Mapping[str, list[Entry[Label]]]) -> list[str]:
    return [split for split, found in splits.items() if found]


def _group_notes(splits: Mapping[str, list[Entry[Label]]]) -> list[str]:
    """Return a note on each pair of given splits that share groups."""
    notes, seen = [], defaultdict[str, set[str]](set)
    for split, found in splits.items():
        own = {entry.group for entry in found if entry.group}
        for other, groups in seen.items():
            if shared := sorted(own & groups):
                notes.append(
                    f"{pluralize(len(shared), 'group')} with images both in {other} and in {split}, so the {split} "
                    f"scores may be too high: {comma_list(shared)}"
                )
        seen[split] = own
    return notes
