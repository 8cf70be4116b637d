"""The meaning of the columns of a table of labels, by the names that are common for them, or by those a user gives."""

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self, get_args

from vpt.core.text import comma_list, did_you_mean
from vpt.data.folders.walk import is_image_name
from vpt.data.label_kinds import KindName
from vpt.data.tables.labels import binary_value
from vpt.data.tables.rows import Table
from vpt.errors import DataError, SpecError

# Names of columns in the order of preference, compared without case, spaces and punctuation.
_WORDS = {
    "image": "filename filepath imagepath imagefile imagefilename imagename imgpath imgname imgfile path file files "
    "image img photo photopath picture imageid imgid photoid id",
    "label": "labelname classname categoryname label labels class category target y classlabel labelid classid "
    "categoryid",
    "split": "split splits subset partition phase datasplit dataset set",
    "group": "group groups groupid groupname",
    "like_group": "patient patientid subject subjectid lesionid burst burstid video videoid sequence sequenceid person "
    "personid individual individualid animalid userid scene sceneid site siteid location locationid studyid caseid",
    # A table with one of them holds what a model says of images, and not their labels.
    "prediction": "probability probabilities prediction predicted confidence score top1 logit logits",
}
_NAMES = {role: tuple(words.split()) for role, words in _WORDS.items()}


@dataclass(frozen=True)
class TableColumns:
    """Columns of a table of labels, None where they are recognized.

    Args:
        image_column: Column of the paths of images. Default: recognized.
        label_column: Column of the labels. Default: recognized.
        split_column: Column of the splits. Default: recognized; a table need not have one.
        group_column: Column of the groups of images that belong together. Default: recognized; a table need not have
            one.
        label_kind: "single_label", "multi_label" or "regression". Default: by the labels, see `detect_label_kind`.
    """

    image_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    group_column: str | None = None
    label_kind: KindName | None = None

    def __post_init__(self) -> None:
        """Check the columns. A SpecError is raised for an unknown kind, and for a column that is given twice."""
        if self.label_kind is not None and self.label_kind not in get_args(KindName):
            raise SpecError(f"label_kind is {self.label_kind!r}; {did_you_mean(self.label_kind, get_args(KindName))}")
        names = self.names
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise SpecError(f"the column {comma_list(twice)} is given twice; give each column one role")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Return the columns that options name.

        Args:
            options: Options by name; others are ignored.

        Returns:
            The columns.
        """
        return cls(**{option.name: options.get(option.name) for option in fields(cls)})

    @property
    def names(self) -> list[str]:
        """The names of all columns that are given."""
        texts = (self.image_column, *_names_in(self.label_column), self.split_column, self.group_column)
        return [text for text in texts if text is not None]

    @property
    def given(self) -> dict[str, str]:
        """The columns that are given, by the name of their option."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class ChosenColumns:
    """The columns of one table.

    Args:
        image: Column of the paths of images.
        labels: Columns of the labels: one, or one of 0 and 1 for each class.
        split: Column of the splits, or None.
        group: Column of the groups, or None.
        like_groups: Columns that could be groups, and that are not used.
    """

    image: str
    labels: tuple[str, ...]
    split: str | None
    group: str | None
    like_groups: tuple[str, ...] = ()


def choose_columns(table: Table, wanted: TableColumns, *, strict: bool = True, named: bool = False) -> ChosenColumns:
    """Return the columns of a table of labels.

    Args:
        table: The table, or its first rows.
        wanted: The columns that a user gives.
        strict: False also takes tables without the columns of splits and groups that are given. Default: True.
        named: True takes only labels whose column is given or has a common name. Default: False, also those in the only
            other column, or in several of 0 and 1.

    Returns:
        The columns.

    Raises:
        DataError: A column that was given does not exist, or the column of images or labels is not clear.
        SpecError: The column of labels that was given is that of the images.
    """
    image = wanted.image_column or find_image_column(table)
    require_column(table, image, "image_column")
    given = _given_labels(table, wanted.label_column)
    if image in given:
        raise SpecError(f"{table.path}: {image} is the column of images; give another one by --label-column")
    split, group = wanted.split_column, wanted.group_column
    free = [name for name in table.columns if name not in {image, *given, split, group}]
    if split is None or (split not in table.columns and not strict):
        split = _first(table, _NAMES["split"], free)
    if group is None or (group not in table.columns and not strict):
        group = _first(table, _NAMES["group"], free)
    for column, option in ((split, "split_column"), (group, "group_column")):
        if column is not None:
            require_column(table, column, option)
    taken = {image, split, group}
    like_groups = tuple(name for name in table.columns if _plain(name) in _NAMES["like_group"] and name not in taken)
    left = [name for name in table.columns if name not in taken and name not in like_groups]
    labels = given or _find_labels(table, left, named)
    return ChosenColumns(image, labels, split, group, tuple(name for name in like_groups if name not in labels))


def _given_labels(table: Table, text: str | None) -> tuple[str, ...]:
    """Return the columns of labels that a user gives, joined by commas."""
    if text is None:
        return ()
    names = (text,) if text in table.columns else _names_in(text)
    for name in names:
        require_column(table, name, "label_column")
    return names


def _names_in(text: str | None) -> tuple[str, ...]:
    return () if text is None else tuple(name.strip() for name in text.split(","))


def _find_labels(table: Table, left: list[str], named: bool) -> tuple[str, ...]:
    """Return the column with the name of labels; else the only one that is left, or several that hold 0 and 1 alone."""
    label = _first(table, _NAMES["label"], left)
    if label is not None or (len(left) == 1 and not named):
        return (label or left[0],)
    if (
        len(left) > 1
        and not named
        and all(binary_value(value) is not None for name in left for value in table.values(name))
    ):
        return tuple(left)
    has = f"has the columns {comma_list(list(table.columns), 20)}" if table.columns else "is empty"
    raise DataError(
        f"{table.path} {has}, of which none is called label; name the one of the labels, such as "
        f"--label-column {shlex.quote(left[0] if left else 'label')}"
    )


def find_image_column(table: Table) -> str:
    """Return the column of the paths of images: by their endings, else by its name.

    Args:
        table: The table, or its first rows.

    Returns:
        Name of the column.

    Raises:
        DataError: No column is one of images, or several are.
    """
    with_endings = [name for name in table.columns if any(map(_is_image, table.values(name)))]
    column = _first(table, _NAMES["image"], with_endings) or _first(table, _NAMES["image"])
    if column is None and len(with_endings) == 1:
        return with_endings[0]
    if column is None:
        has = f"has the columns {comma_list(list(table.columns), 20)}" if table.columns else "is empty"
        hint = with_endings[0] if with_endings else "image"
        raise DataError(
            f"{table.path} {has}, of which none is clearly that of the images; name it, such as --image-column {hint}"
        )
    return column


def lists_images(table: Table, wanted: TableColumns) -> bool:
    """Return True if a table lists images, rather than predictions for images or anything else.

    Args:
        table: The table, or its first rows.
        wanted: The columns that a user gives.

    Returns:
        True if a column holds images, and none predictions.
    """
    try:
        find_image_column(table)
    except DataError:
        return False
    return not _holds_predictions(table, wanted)


def has_labels(table: Table, wanted: TableColumns, *, named: bool = False) -> bool:
    """Return True if the columns of images and labels of a table in a folder are clear.

    Args:
        table: The table, or its first rows.
        wanted: The columns that a user gives.
        named: True takes only labels whose column is given or has a common name. Default: False.

    Returns:
        True for a table of labels.
    """
    try:
        chosen = choose_columns(table, wanted, named=named)
    except DataError:
        return False
    pairs_images = any(_is_image(value) for name in chosen.labels for value in table.values(name))  # with masks
    return not pairs_images and not _holds_predictions(table, wanted)


def _holds_predictions(table: Table, wanted: TableColumns) -> bool:
    """Return True for columns of predictions, and for a file to hand in, such as sample_submission.csv."""
    named = "submission" in _plain(table.path.stem)
    return named or any(_plain(name) in _NAMES["prediction"] for name in table.columns if name not in wanted.names)


def _first(table: Table, known: Iterable[str], among: Iterable[str] | None = None) -> str | None:
    """Return the column with the first known name that there is."""
    columns = table.columns if among is None else [name for name in table.columns if name in among]
    by_name = {_plain(name): name for name in reversed(columns)}
    return next((by_name[name] for name in known if name in by_name), None)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).casefold()


def _is_image(value: Any) -> bool:
    return isinstance(value, str) and is_image_name(value)


def require_column(table: Table, column: str, option: str) -> None:
    """Refuse a column that does not exist.

    Args:
        table: The table, or its first rows.
        column: Name of the column.
        option: Option that names it, such as "split_column".

    Raises:
        DataError: The table has no such column.
    """
    if column not in table.columns:
        flag = f"--{option.replace('_', '-')}"
        raise DataError(f"{table.path} has no column {column!r}; correct {flag}; {did_you_mean(column, table.columns)}")
