"""Schemes that give the ids in masks a meaning, as public datasets or their users define them."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from vpt.core.text import did_you_mean
from vpt.errors import SpecError

IGNORE_INDEX = 255  # label of pixels without a class


@dataclass(frozen=True)
class LabelScheme:
    """A mapping of mask ids to classes.

    Args:
        classes: Name of each class. Default: unknown; those of `classes.txt` or of `ids`, or counted in the masks.
        ignore_ids: Ids of pixels without a class. Default: 255.
        ids: Id of each class, if they differ. All other ids that are not ignored are faults.
        reduce_zero_label: Id 0 is ignored, and class k has the id k + 1. Default: False.
        colors: Color of each class, red * 65536 + green * 256 + blue, if the pixels of masks are colors. Then the ids
            are positions in the sorted colors.
        is_colors: True if the pixels of masks are colors. Default: False.
    """

    classes: tuple[str, ...] = ()
    ignore_ids: tuple[int, ...] = (IGNORE_INDEX,)
    ids: tuple[int, ...] = ()
    reduce_zero_label: bool = False
    colors: tuple[int, ...] = ()
    is_colors: bool = False

    def lookup_table(self, num_classes: int) -> NDArray[np.int16]:
        """Return the class of every id.

        Args:
            num_classes: Number of classes.

        Returns:
            int16 (65536,): the class, IGNORE_INDEX if ignored, -1 for unknown ids.
        """
        table = np.full(65536, -1, dtype=np.int16)
        if self.reduce_zero_label:
            table[0] = IGNORE_INDEX
        ids = self.ids or tuple(range(int(self.reduce_zero_label), num_classes + int(self.reduce_zero_label)))
        if self.colors:
            ids = tuple(sorted(self.colors).index(color) for color in self.colors)
        table[list(ids)] = np.arange(len(ids))
        table[list(self.ignore_ids)] = IGNORE_INDEX  # last, because it takes precedence
        return table


LABEL_SCHEMES: Mapping[str, LabelScheme] = TypeAdapter(dict[str, LabelScheme]).validate_python(
    tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
)


def palette(num_classes: int) -> NDArray[np.uint8]:
    """Return the colors of PASCAL VOC, which spread the bits of the class over red, green and blue.

    Args:
        num_classes: Number of classes.

    Returns:
        uint8 (num_classes, 3).
    """
    bits = (np.arange(num_classes)[:, None] >> np.arange(24)) & 1  # (classes, 8 bits x 3 channels)
    colors: NDArray[np.uint8] = (bits.reshape(-1, 8, 3) << np.arange(7, -1, -1)[:, None]).sum(axis=1).astype(np.uint8)
    return colors


def parse_labels(text: str) -> LabelScheme:
    """Return the scheme of a text.

    Args:
        text: A name in `LABEL_SCHEMES`; the ids of the classes, such as "0,255" or "ground=0,road=255"; their colors,
            such as "ground=#000000,road=#ff0000"; or "colors" for every color in the masks.

    Returns:
        The scheme.

    Raises:
        SpecError: The text cannot be read.
    """
    if text in LABEL_SCHEMES:
        return LABEL_SCHEMES[text]
    if text == "colors":
        return LabelScheme(is_colors=True, ignore_ids=())
    entries = [entry.strip().rpartition("=") for entry in text.split(",")]
    values = [value.strip() for _, _, value in entries]
    given = tuple(name.strip() for name, _, _ in entries)
    names = tuple(name or value for name, value in zip(given, values, strict=True))
    are_colors = all(re.fullmatch(r"#[0-9a-fA-F]{6}", value) for value in values)
    if not are_colors and not all(value.isdecimal() and len(value) <= 5 and int(value) <= 65535 for value in values):
        hint = did_you_mean(text, ["auto", "colors", *LABEL_SCHEMES])
        raise SpecError(
            f"labels is {text!r}; {hint}; or write the ids of the classes (0,255 or ground=0,road=255) or their colors "
            "(ground=#000000,road=#ff0000)"
        )
    numbers = tuple(int(value.removeprefix("#"), 16 if are_colors else 10) for value in values)
    if len(set(numbers)) < max(2, len(numbers)) or len(set(names)) < len(names):
        raise SpecError(f"labels is {text!r}; give at least two ids, each once and with a name of its own")
    names = names if any(given) else ()  # a file may name them
    if are_colors:
        return LabelScheme(names, ignore_ids=(), colors=numbers, is_colors=True)
    return LabelScheme(names, ignore_ids=tuple({IGNORE_INDEX} - set(numbers)), ids=numbers)
