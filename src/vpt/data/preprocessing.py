"""Preprocessing of images for a backbone, in two steps.

`Preprocessing.resize_image` runs once per image on the CPU and returns uint8. `Preprocessing.normalize` runs per batch
on the device. The uint8 arrays in between can be cached.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vpt.core.text import did_you_mean
from vpt.errors import SpecError

_FILTERS = {name: Image.Resampling[name.upper()] for name in ("nearest", "bilinear", "bicubic", "lanczos")}

NORMALIZATIONS = {  # mean and standard deviation of each RGB channel, for values in 0..1
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "inception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


@dataclass(frozen=True)
class Preprocessing:
    """Options of the conversion of images to the input of a backbone.

    Args:
        size: Side of the square input in pixels. Default: 224.
        mean: Mean of each RGB channel, for values in 0..1. Default: that of ImageNet.
        std: Standard deviation of each RGB channel, for values in 0..1. Default: that of ImageNet.
        interpolation: "nearest", "bilinear", "bicubic" or "lanczos". Default: "bilinear".
        resize: "squash" scales both sides to `size` (the VTAB-1k protocol). "crop" scales the short side to
            `size / crop_fraction` and crops the center (FGVC: 224 / 0.875 = 256). Default: "squash".
        crop_fraction: See `resize`. Default: 0.875.

    Raises:
        SpecError: A value is out of range.
    """

    size: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"
    resize: Literal["squash", "crop"] = "squash"
    crop_fraction: float = 0.875

    def __post_init__(self) -> None:
        """Check the fields."""
        for name, known in (("interpolation", tuple(_FILTERS)), ("resize", ("squash", "crop"))):
            value = getattr(self, name)
            if value not in known:
                raise SpecError(f"{name} {value!r} is unknown; {did_you_mean(value, known)}")
        if self.size < 1:
            raise SpecError(f"size is {self.size} px; it must be at least 1")
        if not 0 < self.crop_fraction <= 1:
            raise SpecError(f"crop_fraction is {self.crop_fraction}; it must be above 0 and at most 1")

    def resize_image(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return an image as an array of the input size.

        Args:
            image: An RGB image of any size.

        Returns:
            uint8 (3, size, size).
        """
        resample = _FILTERS[self.interpolation]
        width, height = image.size
        box = (0.0, 0.0, float(width), float(height))
        if self.resize == "crop":  # crop before scaling, so that a long strip is never enlarged as a whole
            side = min(image.size) * self.size / round(self.size / self.crop_fraction)
            left, top = (width - side) / 2, (height - side) / 2
            box = (left, top, left + side, top + side)
        resized = image.resize((self.size, self.size), resample, box=box)
        return np.ascontiguousarray(np.asarray(resized, dtype=np.uint8).transpose(2, 0, 1))

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return pixels with zero mean and unit variance.

        Args:
            pixels: (batch, 3, size, size), values in 0..255.

        Returns:
            float32 of the same shape.
        """
        mean = torch.tensor(self.mean, device=pixels.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(1, 3, 1, 1)
        return (pixels.float() / 255 - mean) / std

    def with_normalization(self, name: str) -> Preprocessing:
        """Return the preprocessing with another mean and standard deviation.

        Args:
            name: "imagenet", "inception" or "backbone", which leaves them as they are.

        Returns:
            The preprocessing.

        Raises:
            SpecError: The name is unknown.
        """
        if name == "backbone":
            return self
        if name not in NORMALIZATIONS:
            hint = did_you_mean(name, ("backbone", *NORMALIZATIONS))
            raise SpecError(f"normalization {name!r} is unknown; {hint}")
        mean, std = NORMALIZATIONS[name]
        return replace(self, mean=mean, std=std)

    def to_dict(self) -> dict[str, Any]:
        """Return the options as JSON values.

        Returns:
            Field name to value.
        """
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocessing:
        """Return the preprocessing of the result of `to_dict`.

        Args:
            values: Field name to value.

        Returns:
            The preprocessing.
        """
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})
