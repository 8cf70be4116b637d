"""The terms of an augmentation of training images. Another one is a class and an entry of `TERMS`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torchvision.transforms import v2  # type: ignore[import-untyped]

from vpt.core.spec import Parsable
from vpt.errors import SpecError

# Short side of the images that crops are taken from, as a multiple of the input's side: 256 px for 224, as FGVC; and
# for crops of half the area or more, so much that no crop has to be upsampled.
CROP_SCALE = {"random_crop": 8 / 7, "random_resized_crop": 2**0.5}

Transform = Callable[[Tensor], Tensor]
_Mean = tuple[float, ...]


class Term(Parsable):
    """Base of the terms of an augmentation.

    Attributes:
        tasks: Names of the tasks that have the term.
        stage: Position among the terms: 0 for crops, 1 for flips, 2 for what changes one image, 3 for what mixes two.
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification",)
    stage: ClassVar[int] = 2

    def transform(self, mean: _Mean) -> Transform | None:
        """Return the torchvision transform of one image, uint8 (3, height, width); None for crops, flips, mixing."""
        return None


@dataclass(frozen=True)
class RandomCrop(Term):
    """A crop of 7/8 of the short side, anywhere in the whole image, mirrored half of the time (FGVC)."""

    name: ClassVar[str] = "random_crop"
    stage: ClassVar[int] = 0


@dataclass(frozen=True)
class RandomResizedCrop(Term):
    """A crop of half to all of the area of the largest square, nearly in its shape, mirrored half of the time."""

    name: ClassVar[str] = "random_resized_crop"
    stage: ClassVar[int] = 0


@dataclass(frozen=True)
class Flip(Term):
    """The image or its mirror image, left and right exchanged. Both crops do it, too."""

    name: ClassVar[str] = "flip"
    stage: ClassVar[int] = 1
    tasks: ClassVar[tuple[str, ...]] = ("classification", "segmentation")


@dataclass(frozen=True)
class VerticalFlip(Term):
    """The image or its reflection, top and bottom exchanged."""

    name: ClassVar[str] = "vertical_flip"
    stage: ClassVar[int] = 1
    tasks: ClassVar[tuple[str, ...]] = ("classification", "segmentation")

    def transform(self, mean: _Mean) -> Transform:  # noqa: D102
        flip: Transform = v2.RandomVerticalFlip()
        return flip


@dataclass(frozen=True)
class Full(Term):
    """Scale by 0.5 to 2, crop, flip and jitter of colors, of an image and its mask."""

    name: ClassVar[str] = "full"
    stage: ClassVar[int] = 0
    tasks: ClassVar[tuple[str, ...]] = ("segmentation",)


@dataclass(frozen=True)
class TrivialAugment(Term):
    """One operation of 14, of random strength (TrivialAugmentWide: Müller and Hutter, ICCV 2021)."""

    name: ClassVar[str] = "trivial_augment"

    def transform(self, mean: _Mean) -> Transform:  # noqa: D102
        transform: Transform = v2.TrivialAugmentWide()
        return transform


@dataclass(frozen=True)
class RandAugment(Term):
    """Several operations of 14, of one strength (Cubuk et al., 2020).

    Args:
        num_ops: Number of operations. Default: 2.
        magnitude: Strength, 0 to 30. Default: 9.
    """

    num_ops: int = 2
    magnitude: int = 9

    name: ClassVar[str] = "rand_augment"

    def __post_init__(self) -> None:
        """Check the values."""
        if self.num_ops < 1 or not 0 <= self.magnitude <= 30:
            raise SpecError(f"{self} needs num_ops of at least 1, and a magnitude from 0 to 30")

    def transform(self, mean: _Mean) -> Transform:  # noqa: D102
        transform: Transform = v2.RandAugment(self.num_ops, self.magnitude)
        return transform


@dataclass(frozen=True)
class RandomErasing(Term):
    """A rectangle of 2 to 33 % of the area, replaced by the mean color of the preprocessing (Zhong et al., 2020).

    Args:
        p: Fraction of the images that it is for. Default: 0.25.
    """

    p: float = 0.25

    name: ClassVar[str] = "random_erasing"

    def __post_init__(self) -> None:
        """Check the value."""
        if not 0 < self.p <= 1:
            raise SpecError(f"{self} needs a p above 0 and at most 1")

    def transform(self, mean: _Mean) -> Transform:  # noqa: D102
        transform: Transform = v2.RandomErasing(self.p, value=tuple(round(255 * value) for value in mean))
        return transform


@dataclass(frozen=True)
class Mixup(Term):
    """A weighted mean of two images and of their losses (Zhang et al., 2018), as timm's `Mixup` computes it.

    Args:
        alpha: Parameter of the beta distribution of the weight. Default: 0.8.
    """

    alpha: float = 0.8

    name: ClassVar[str] = "mixup"
    stage: ClassVar[int] = 3

    def __post_init__(self) -> None:
        """Check the value."""
        if not self.alpha > 0:
            raise SpecError(f"{self} needs an alpha above 0")


@dataclass(frozen=True)
class CutMix(Mixup):
    """A rectangle of another image, and the mean of the losses by area (Yun et al., 2019), as timm's `Mixup`.

    Args:
        alpha: Parameter of the beta distribution of the area. Default: 1.
    """

    alpha: float = 1.0

    name: ClassVar[str] = "cutmix"


TERMS: dict[str, type[Term]] = {
    term.name: term
    for term in (
        Flip, VerticalFlip, RandomCrop, RandomResizedCrop, TrivialAugment, RandAugment, RandomErasing, Mixup, CutMix,
        Full,
    )
}  # fmt: skip
