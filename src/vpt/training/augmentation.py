"""Augmentation of training images: a sum of terms, such as `random_resized_crop + rand_augment(magnitude=5)`."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vpt.core import spec
from vpt.core.text import did_you_mean
from vpt.data.preprocessing import Preprocessing
from vpt.errors import SpecError
from vpt.training.augmentation_terms import CROP_SCALE as CROP_SCALE
from vpt.training.augmentation_terms import TERMS, Mixup, Term
from vpt.training.mixing import Mixing


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
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in workers: the last bits of a mean, such as that of contrast, depend on it
        try:
            with torch.random.fork_rng(devices=[]):  # torchvision draws from torch's generator, and so does dropout
                torch.default_generator.manual_seed(int(rng.integers(2**63)))
                for transform in self._transforms:
                    image = transform(image)
        finally:
            torch.set_num_threads(threads)
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
