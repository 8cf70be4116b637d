"""Preprocessing as data: how a backbone wants its images, and the two steps that obey it.

Step one (`Preprocessing.fit`) happens once per image, on the CPU, and ends in uint8; step two
(`Preprocessing.normalize`) happens per batch, on the device. What lies between can be kept in memory.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vpt.core.text import did_you_mean
from vpt.errors import SpecError

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Preprocessing:
    """How images become the input of a backbone.

    size: side of the square input, in pixels.
    mean, std: per channel (red, green, blue), on values scaled to 0..1.
    interpolation: nearest, bilinear, bicubic or lanczos.
    resize: "squash" scales both sides to `size`, whatever the aspect ratio (the VTAB-1k protocol);
        "crop" scales the short side to `size / crop_fraction` and keeps the center (FGVC: 224 / 0.875 = 256).
    """

    size: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"
    resize: Literal["squash", "crop"] = "squash"
    crop_fraction: float = 0.875

    def __post_init__(self) -> None:
        if self.interpolation not in _FILTERS:
            raise SpecError(
                f"interpolation {self.interpolation!r} is unknown; {did_you_mean(self.interpolation, _FILTERS)}"
            )
        if self.resize not in ("squash", "crop"):
            raise SpecError(f"resize {self.resize!r} is unknown; {did_you_mean(self.resize, ('squash', 'crop'))}")
        if self.size < 1:
            raise SpecError(f"the input size is {self.size} px; it must be at least 1")
        if not 0 < self.crop_fraction <= 1:
            raise SpecError(f"crop_fraction is {self.crop_fraction}; it must lie above 0 and at most 1")

    def resize_image(self, image: Image.Image) -> NDArray[np.uint8]:
        """An RGB image of any size -> uint8 array (3, size, size)."""
        resample = _FILTERS[self.interpolation]
        width, height = image.size
        box = (0.0, 0.0, float(width), float(height))
        if self.resize == "crop":  # the box is cut before scaling: a long strip is never blown up
            side = min(image.size) * self.size / round(self.size / self.crop_fraction)
            left, top = (width - side) / 2, (height - side) / 2
            box = (left, top, left + side, top + side)
        resized = image.resize((self.size, self.size), resample, box=box)
        return np.ascontiguousarray(np.asarray(resized, dtype=np.uint8).transpose(2, 0, 1))

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 (batch, 3, size, size) -> float32 of the same shape, with this mean and std."""
        mean = torch.tensor(self.mean, device=pixels.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(1, 3, 1, 1)
        return (pixels.float() / 255 - mean) / std

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocessing:
        """The inverse of `to_dict`."""
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})
