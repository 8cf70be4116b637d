"""The prediction of a task for one image."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vpt.core.text import format_number, printable

NONE_OF_THESE = "none of these"
_MAX_DESCRIBED = 4  # classes of a mask in one line


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image: its class, its labels, its number or, in segmentation, the classes of its pixels.

    Attributes:
        image: Path of the image, or "image 0" and so on for images in memory.
        top: Pairs of a class and its probability, most likely first; in segmentation, pairs of a class and its fraction
            of the pixels, largest first, without absent classes. Empty where a number is predicted.
        mask_in_memory: Class of each pixel, uint16 (height, width), in segmentation, where no file holds it; else None.
        mask_file: File of the mask, if written.
        overlay_file: File of the image under the colors of the mask, if written.
        labels: Pairs of a class that the image has and its probability, most likely first, where an image may have
            several; else None.
        value: The predicted number, in the unit of the training labels; None where classes are predicted.
        rejected: True if the most likely class is less likely than was asked for.
    """

    image: str
    top: tuple[tuple[str, float], ...]
    mask_in_memory: NDArray[np.uint16] | None = field(default=None, compare=False, repr=False)
    mask_file: str | None = None
    overlay_file: str | None = None
    labels: tuple[tuple[str, float], ...] | None = None
    value: float | None = None
    rejected: bool = False

    @property
    def mask(self) -> NDArray[np.uint16] | None:
        """Class of each pixel, uint16 (height, width), in segmentation; else None. A written mask is read again."""
        if self.mask_file is None:
            return self.mask_in_memory
        with Image.open(self.mask_file) as image:
            return np.asarray(image).astype(np.uint16)

    @property
    def has_mask(self) -> bool:
        """True in segmentation."""
        return self.mask_in_memory is not None or self.mask_file is not None

    @property
    def label(self) -> str:
        """The most likely class or "none of these"; in segmentation, the class with most pixels. A number has none."""
        return NONE_OF_THESE if self.rejected else self.top[0][0]

    @property
    def probability(self) -> float:
        """The probability of the most likely class; in segmentation, its fraction of the pixels."""
        return self.top[0][1]

    def to_dict(self) -> dict[str, Any]:
        """Return the prediction as JSON values, without the mask itself."""
        if self.value is not None:
            return {"image": self.image, "value": self.value}
        if not self.has_mask:
            labels = {} if self.labels is None else {"labels": class_probabilities(self.labels)}
            label = {"label": NONE_OF_THESE} if self.rejected else {}
            return {"image": self.image, **label, **labels, "top": class_probabilities(self.top)}
        files = {"image": self.image, "mask": self.mask_file, "overlay": self.overlay_file}
        return {**files, "classes": [{"class": name, "fraction": value} for name, value in self.top]}

    def describe(self) -> str:
        """Return the prediction as one line."""
        if self.value is not None:
            return printable(f"{self.image}: {format_number(self.value)}")
        if self.labels == ():
            name, probability = self.top[0]
            return printable(f"{self.image}: no label ({name} {100 * probability:.1f} %)")
        shown = self.labels or (self.top[:_MAX_DESCRIBED] if self.has_mask else self.top)
        classes = ", ".join(f"{name} {100 * value:.1f} %" for name, value in shown)
        classes = f"{NONE_OF_THESE} ({classes})" if self.rejected else classes
        files = ", ".join(file for file in (self.mask_file, self.overlay_file) if file is not None)
        return printable(f"{self.image}: {classes}" + (f"; {files}" if files else ""))


def class_probabilities(pairs: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    """Return pairs of a class and its probability as JSON values.

    Args:
        pairs: The pairs.

    Returns:
        An object for each pair, in order.
    """
    return [{"class": name, "probability": value} for name, value in pairs]
