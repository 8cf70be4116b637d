"""Augmentation of training images: a sum of terms, such as `random_resized_crop + rand_augment(magnitude=5)`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import v2  # type: ignore[import-untyped]

from vpt.core import spec
from vpt.core.text import did_you_mean
from vpt.data.preprocessing import Preprocessing
from vpt.errors import SpecError
from vpt.training.mixing import Mixing

# Short side of the images that crops are taken from, as a multiple of the input's side: 256 px for 224, as FGVC; and
# for crops of half the area or more, so much that no crop has to be upsampled.
CROP_SCALE = {"random_crop": 8 / 7, "random_resized_crop": 2**0.5}

Transform = Callable[[Tensor], Tensor]
_Mean = tuple[float, ...]


class Term(spec.Parsable):
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

    name, stage = "random_crop", 0


@dataclass(frozen=True)
class RandomResizedCrop(Term):
    """A crop of half to all of the area of the largest square, nearly in its shape, mirrored half of the time."""

    name, stage = "random_resized_crop", 0


@dataclass(frozen=True)
class Flip(Term):
    """The image or its mirror image, left and right exchanged. Both crops do it, too."""

    name, stage = "flip", 1
    tasks = ("classification", "segmentation")


@dataclass(frozen=True)
class VerticalFlip(Term):
    """The image or its reflection, top and bottom exchanged."""

    name, stage = "vertical_flip", 1
    tasks = ("classification", "segmentation")

    def transform(self, mean: _Mean) -> Transform:  # noqa: D102
        flip: Transform = v2.RandomVerticalFlip()
        return flip


@dataclass(frozen=True)
class Full(Term):
    """Scale by 0.5 to 2, crop, flip and jitter of colors, of an image and its mask."""

    name, stage = "full", 0
    tasks = ("segmentation",)


@dataclass(frozen=True)
class TrivialAugment(Term):
    """One operation of 14, of random strength (TrivialAugmentWide: Müller and Hutter, ICCV 2021)."""

    name = "trivial_augment"

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

    name = "rand_augment"

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

    name = "random_erasing"

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

    name, stage = "mixup", 3

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

    name = "cutmix"


TERMS: dict[str, type[Term]] = {
    term.name: term
    for term in (
        Flip, VerticalFlip, RandomCrop, RandomResizedCrop, TrivialAugment, RandAugment, RandomErasing, Mixup, CutMix,
        Full,
    )
}  # fmt: skip


@dataclass(frozen=True)
class Augmentation:
    """An augmentation of training images.

    Attributes:
        terms: The terms: crops and flips first, mixup and cutmix last, others in the order given. () for none.
    """

    terms: tuple[Term, ...]

    def __str__(self) -> str:
        return " + ".join(map(str, self.terms)) or "none"

    def has(self, name: str) -> bool:
        """Return True if there is a term of this name."""
        return any(term.name == name for term in self.terms)

    @property
    def crop(self) -> str | None:
        """Name of the random crop, a key of `CROP_SCALE`, or None."""
        return next((term.name for term in self.terms if term.name in CROP_SCALE), None)

    @property
    def flips(self) -> bool:
        """True if half of the images are mirrored."""
        return self.has("flip") or self.crop is not None

    @property
    def mixing(self) -> Mixing | None:
        """The mixing of the images of a batch, or None."""
        alphas = {term.name: term.alpha for term in self.terms if isinstance(term, Mixup)}
        return Mixing(alphas.get("mixup", 0.0), alphas.get("cutmix", 0.0)) if alphas else None


@cache
def parse_augmentation(text: str, task: str | None = None) -> Augmentation:
    """Read the text of an augmentation.

    Args:
        text: "none", or terms joined by +, such as "random_resized_crop + mixup(alpha=0.2)".
        task: Name of the task that the augmentation is for. Default: any.

    Returns:
        The augmentation.

    Raises:
        SpecError: The text cannot be read, a term is unknown, one of another task or given twice, or there are several
            crops.
    """
    if text.strip() == "none":
        return Augmentation(())
    known = [name for name, term in TERMS.items() if task is None or task in term.tasks]
    terms: list[Term] = []
    for part in spec.split_terms(text):
        name = part.partition("(")[0].strip()
        if name not in TERMS:
            raise SpecError(f"{name!r} is no augmentation; {did_you_mean(name, ['none', *known])}")
        if name not in known:
            raise SpecError(f"{name} augments images of {TERMS[name].tasks[0]}; {task} has {', '.join(known)}, none")
        terms.append(spec.parse(part, TERMS))
    names = [term.name for term in terms]
    for name in names:
        if names.count(name) > 1:
            raise SpecError(f"{text!r} has {name} twice; give it once")
    if CROP_SCALE.keys() <= set(names):
        raise SpecError(f"{text!r} has two crops; keep one of {', '.join(CROP_SCALE)}")
    return Augmentation(tuple(sorted(terms, key=lambda term: term.stage)))


class ImageAugmentation:
    """The part of an augmentation that changes single images, a function of the image and a random generator.

    Args:
        augmentation: The augmentation.
        preprocessing: Preprocessing of the backbone.

    Attributes:
        changes_pixels: True if terms remain after crop and flip.
    """

    def __init__(self, augmentation: Augmentation, preprocessing: Preprocessing) -> None:
        self._augmentation = augmentation
        self._size = preprocessing.size
        found = (term.transform(preprocessing.mean) for term in augmentation.terms)
        self._transforms = [transform for transform in found if transform is not None]
        self.changes_pixels: bool = bool(self._transforms)

    def __call__(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        """Augment an image.

        Args:
            image: uint8 (3, height, width), with crops as `Preprocessing.resize_whole` gives it for a short side of
                `CROP_SCALE` times the size, without crops of the size itself.
            rng: Random generator.

        Returns:
            uint8 (3, size, size).
        """
        if self._augmentation.crop is not None:
            (top, left), (height, width) = random_box(image.shape[1:], self._size, self._augmentation.crop, rng)
            image = resize_crop(image[:, top : top + height, left : left + width], self._size)
        if self._augmentation.flips and rng.random() < 0.5:
            image = image.flip(-1)
        return self.change_pixels(image, rng)

    def change_pixels(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        """Apply the terms that remain after crop and flip.

        Args:
            image: uint8 (3, size, size).
            rng: Random generator.

        Returns:
            uint8 (3, size, size).
        """
        if not self._transforms:
            return image
        with torch.random.fork_rng(devices=[]):  # torchvision draws from torch's generator, and so does dropout
            torch.default_generator.manual_seed(int(rng.integers(2**63)))
            for transform in self._transforms:
                image = transform(image)
        return image


def make_augmentation(text: str, preprocessing: Preprocessing) -> ImageAugmentation:
    """Return the augmentation of single images of a configuration.

    Args:
        text: Text of the augmentation, as `ClassificationConfig.augment`.
        preprocessing: Preprocessing of the backbone.

    Returns:
        A function of an image, uint8 (3, height, width), and a random generator.
    """
    return ImageAugmentation(parse_augmentation(text, "classification"), preprocessing)


def random_box(
    lengths: Any, size: int, crop: str, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw the box of a random crop.

    Args:
        lengths: Height and width of the image.
        size: Side of the input in pixels.
        crop: Name of the crop, a key of `CROP_SCALE`.
        rng: Random generator.

    Returns:
        Top and left, and height and width of the box.
    """
    lengths, sides = np.array(lengths), np.array([size, size])
    if crop == "random_resized_crop":  # half to all of the area of a square, nearly in its shape
        scale, aspect = rng.uniform(0.5, 1), np.exp(rng.uniform(np.log(0.85), -np.log(0.85)))
        sides = np.rint(min(lengths) * np.sqrt([scale / aspect, scale * aspect])).astype(np.int64)
        sides = np.minimum(lengths, sides)
    return rng.integers(0, lengths - sides + 1), sides


def resize_crop(pixels: Tensor, size: int) -> Tensor:
    """Return a crop as a square, with bilinear interpolation.

    Args:
        pixels: uint8 (3, height, width).
        size: Side of the square in pixels.

    Returns:
        uint8 (3, size, size).
    """
    if tuple(pixels.shape[1:]) == (size, size):
        return pixels
    resized = F.interpolate(pixels.unsqueeze(0).float(), (size, size), mode="bilinear", antialias=True)
    return (resized.squeeze(0) + 0.499).to(torch.uint8)  # halves become the same on all devices: they are rounded down
