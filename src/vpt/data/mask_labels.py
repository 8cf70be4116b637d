"""Label schemes: the meaning of the ids in masks, as public datasets define them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

IGNORE_INDEX = 255  # label of pixels without a class


@dataclass(frozen=True)
class LabelScheme:
    """A mapping of mask ids to classes.

    Args:
        classes: Name of each class. Default: unknown, to be counted in the masks.
        ignore_ids: Ids of pixels without a class. Default: 255.
        ids: Id of each class, if they differ. All other ids that are not ignored are faults.
        reduce_zero_label: Id 0 is ignored, and class k has the id k + 1. Default: False.
    """

    classes: tuple[str, ...] = ()
    ignore_ids: tuple[int, ...] = (IGNORE_INDEX,)
    ids: tuple[int, ...] = ()
    reduce_zero_label: bool = False

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
        ids = self.ids or range(int(self.reduce_zero_label), num_classes + int(self.reduce_zero_label))
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
