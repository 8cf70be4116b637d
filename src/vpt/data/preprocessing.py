"""Preprocessing of images for a backbone, in two steps.

`Preprocessing.resize_image` runs once per image on the CPU and returns uint8. `Preprocessing.normalize` runs per batch
on the device. The uint8 arrays in between can be cached.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vpt.core.text import did_you_mean
from vpt.data.images.value_range import ValueRange
from vpt.errors import SpecError

if TYPE_CHECKING:
    from torch import Tensor

_FILTERS = {name: Image.Resampling[name.upper()] for name in ("nearest", "bilinear", "bicubic", "lanczos")}

NORMALIZATIONS = {  # mean and standard deviation of each RGB channel, for values in 0..1
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "inception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}

_EXAMPLE = "0.48,0.46,0.41/0.27,0.26,0.28"
MAX_SIZE = 8192  # px: tables of positions grow with the square of the side
_MAX_ASPECT = 16  # of a longer strip the middle is used: a few pixels of height, enlarged, would fill the memory


@dataclass(frozen=True)
class Preprocessing:
    """Options of the conversion of images to the input of a backbone.

    Args:
        size: Side of the square input in pixels. Default: 224.
        mean: Mean of each channel, for values in 0..1: one for gray, three for RGB. Default: that of ImageNet.
        std: Standard deviation of each channel, for values in 0..1. Default: that of ImageNet.
        interpolation: "nearest", "bilinear", "bicubic" or "lanczos". Default: "bilinear".
        resize: "squash" scales both sides to `size` (the VTAB-1k protocol). "crop" scales the short side to
            `size / crop_fraction` and crops the center, as `Resize` and `CenterCrop` of torchvision do (FGVC: 224 /
            0.875 = 256). Default: "squash".
        crop_fraction: See `resize`; with "crop", `size / crop_fraction` is at most 8192. Default: 0.875.
        value_range: Values of black and white in images with more than 8 bits. Default: the range of their type.

    Raises:
        SpecError: A value is out of range.
    """

    size: int = 224
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"
    resize: Literal["squash", "crop"] = "squash"
    crop_fraction: float = 0.875
    value_range: ValueRange | None = None

    def __post_init__(self) -> None:
        """Check the fields."""
        for name, known in (("interpolation", tuple(_FILTERS)), ("resize", ("squash", "crop"))):
            value = getattr(self, name)
            if value not in known:
                raise SpecError(f"{name} {value!r} is unknown; {did_you_mean(value, known)}")
        if not 1 <= self.size <= MAX_SIZE:
            raise SpecError(f"size is {self.size} px; it must be at least 1 and at most {MAX_SIZE:,}")
        if not 0 < len(self.mean) == len(self.std) or min(self.std) <= 0:
            raise SpecError(
                f"mean is {self.mean} and std is {self.std}; give one mean and one std above 0 for each channel"
            )
        if not 0 < self.crop_fraction <= 1:
            raise SpecError(f"crop_fraction is {self.crop_fraction}; it must be above 0 and at most 1")
        if self.resize == "crop" and self.size > MAX_SIZE * self.crop_fraction:  # the quotient may overflow
            raise SpecError(
                f"crop_fraction is {self.crop_fraction}, which scales images to more than {MAX_SIZE:,} px for a size "
                f"of {self.size} px; it must be at least {self.size / MAX_SIZE}"
            )

    def resize_image(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return an image as an array of the input size.

        Args:
            image: An RGB image of any size.

        Returns:
            uint8 (3, size, size).
        """
        side = self.size if self.resize == "squash" else round(self.size / self.crop_fraction)
        whole = self.resize_whole(image, side)
        top, left = (round((length - self.size) / 2) for length in whole.shape[1:])
        return np.ascontiguousarray(whole[:, top : top + self.size, left : left + self.size])

    def resize_whole(self, image: Image.Image, side: int) -> NDArray[np.uint8]:
        """Return an image as an array from which nothing is cut.

        Args:
            image: An RGB image of any size.
            side: Length of the short side in pixels.

        Returns:
            uint8 (3, height, width), square for `resize="squash"` and else in the shape of the image. Of an image whose
            sides differ by more than a factor of 16 it is the middle.
        """
        return self._resize(image, self.whole_size(*image.size, side), self._middle(image))

    def resize_box(
        self, image: Image.Image, side: int, corner: NDArray[np.int64], sides: NDArray[np.int64]
    ) -> NDArray[np.uint8]:
        """Return a box of what `resize_whole` makes of an image, cut from the image itself, as an array of input size.

        Args:
            image: An RGB image of any size.
            side: Length of the short side of the whole image in pixels.
            corner: Top and left of the box in the whole image.
            sides: Height and width of the box.

        Returns:
            uint8 (3, size, size).
        """
        left, top, right, bottom = self._middle(image)
        width, height = self.whole_size(*image.size, side)
        scales = np.array([(bottom - top) / height, (right - left) / width])
        start = (top, left) + scales * corner
        end = np.minimum((bottom, right), start + scales * sides)  # rounding may lead beyond the edge
        return self._resize(image, (self.size, self.size), (start[1], start[0], end[1], end[0]))

    def _middle(self, image: Image.Image) -> tuple[float, float, float, float]:
        """Return left, top, right and bottom of the part of an image that is used."""
        cut_x, cut_y = 0.0, 0.0
        if self.resize == "crop":
            cut_x, cut_y = (max(0, length - _MAX_ASPECT * min(image.size)) / 2 for length in image.size)
        return cut_x, cut_y, image.width - cut_x, image.height - cut_y

    def _resize(
        self, image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float]
    ) -> NDArray[np.uint8]:
        resized = image.resize(size, _FILTERS[self.interpolation], box=box)
        return np.ascontiguousarray(np.asarray(resized, dtype=np.uint8).transpose(2, 0, 1))

    def whole_size(self, width: int, height: int, side: int) -> tuple[int, int]:
        """Return width and height of what `resize_whole` makes of an image of this width and height."""
        if self.resize == "squash":
            return side, side
        short, long = sorted((width, height))
        scaled = int(side * min(long, _MAX_ASPECT * short) / short)
        return (side, scaled) if width <= height else (scaled, side)

    @property
    def channels(self) -> int:
        """Channels of the input."""
        return len(self.mean)

    def normalize(self, pixels: Tensor) -> Tensor:
        """Return pixels with zero mean and unit variance.

        Args:
            pixels: (batch, channels, size, size), values in 0..255. RGB becomes gray where the input is gray.

        Returns:
            float32 (batch, channels, size, size).

        Raises:
            SpecError: The pixels have another number of channels.
        """
        values = pixels.float() / 255
        if (values.shape[1], self.channels) == (3, 1):  # Pillow's weights of "L"
            import torch  # headers of tuned files are read without it

            values = torch.einsum("bchw,c->bhw", values, values.new_tensor((0.299, 0.587, 0.114))).unsqueeze(1)
        if values.shape[1] != self.channels:
            raise SpecError(
                f"the images have {values.shape[1]} channels, and the backbone reads {self.channels}; give such images "
                "to the model as tensors, in a training loop of your own"
            )
        mean, std = (values.new_tensor(each).view(1, -1, 1, 1) for each in (self.mean, self.std))
        return (values - mean) / std

    def with_normalization(self, text: str) -> Preprocessing:
        """Return the preprocessing with another mean and standard deviation.

        Args:
            text: "backbone", which leaves them as they are, a name of `NORMALIZATIONS`, or numbers, as
                `read_normalization` takes them.

        Returns:
            The preprocessing.

        Raises:
            SpecError: The text cannot be read, or has another number of channels than the input.
        """
        found = read_normalization(text)
        if found is None:
            return self
        mean, std = found
        if text in NORMALIZATIONS:
            mean, std = for_channels(mean, self.channels), for_channels(std, self.channels)
        if len(mean) != self.channels:
            raise SpecError(
                f"normalization {text!r} has {len(mean)} means, and the backbone reads {self.channels} channels; give "
                "one mean and one standard deviation a channel"
            )
        return replace(self, mean=mean, std=std)

    def to_dict(self) -> dict[str, Any]:
        """Return the options as JSON values.

        Returns:
            Field name to value, without the value range where there is none.
        """
        return {name: value for name, value in asdict(self).items() if name != "value_range" or value is not None}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocessing:
        """Return the preprocessing of the result of `to_dict`.

        Args:
            values: Field name to value.

        Returns:
            The preprocessing.
        """
        names = values.keys() & {"mean", "std", "value_range"}
        return cls(**{**values, **{name: tuple(values[name]) for name in names}})


def read_normalization(text: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Read a mean and a standard deviation of each channel, for values in 0..1.

    Args:
        text: "backbone", a name of `NORMALIZATIONS`, or numbers: the means, a slash, and the standard deviations, such
            as "0.48,0.46,0.41/0.27,0.26,0.28".

    Returns:
        Means and standard deviations; None for "backbone".

    Raises:
        SpecError: The text is none of these, or a standard deviation is not above 0.
    """
    if text == "backbone":
        return None
    if text in NORMALIZATIONS:
        return NORMALIZATIONS[text]
    if "/" not in text:
        hint = did_you_mean(text, ("backbone", *NORMALIZATIONS))
        raise SpecError(f"normalization {text!r} is unknown; {hint}, or write MEANS/DEVIATIONS: {_EXAMPLE}")
    try:
        mean, std = (tuple(map(float, half.split(","))) for half in text.split("/"))
    except ValueError as error:
        raise SpecError(
            f"normalization {text!r} is not numbers, a slash and numbers; write it like {_EXAMPLE}"
        ) from error
    if len(mean) != len(std) or not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
        raise SpecError(
            f"normalization {text!r} has {len(mean)} means and {len(std)} standard deviations; give finite means, and "
            f"as many standard deviations above 0: {_EXAMPLE}"
        )
    return mean, std


def for_channels(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """Return a value for each channel as timm adapts the weights that read them.

    Args:
        values: Values of the RGB channels.
        channels: Number of channels.

    Returns:
        The mean of the values for one channel, else the values in turn.
    """
    if channels == 1:
        return (sum(values) / len(values),)
    return tuple(values[index % len(values)] for index in range(channels))
