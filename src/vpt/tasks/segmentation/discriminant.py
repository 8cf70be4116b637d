"""A linear dense head in closed form: the linear discriminant of the classes at the positions of feature maps.

Features of a class are taken as normal, with one covariance of all classes (Fisher, 1936; `LinearDiscriminantAnalysis`
of scikit-learn). Its logits are linear in the features, so that they fit a head with one linear layer. Least squares
and short training with cross-entropy give rare classes almost no pixels; a discriminant does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import scipy  # loads its parts when they are used
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from vpt.data.images.files import capture_warnings
from vpt.data.masks.augmentation import resize_pair
from vpt.data.masks.layouts import ImageMaskPairs
from vpt.data.masks.schemes import IGNORE_INDEX
from vpt.errors import SpecError, TrainingError
from vpt.heads.dense import LinearDecoder
from vpt.methods.linear import Linear
from vpt.methods.registry import parse_method
from vpt.model.readout import Readout
from vpt.model.tuned_model import TunedModel
from vpt.tasks.segmentation.pair_reader import PairReader
from vpt.tasks.segmentation.prediction import evenly
from vpt.tasks.segmentation.sliding_window import InferenceConfig, window_starts
from vpt.training.callbacks import Progress
from vpt.training.job import Job
from vpt.training.ridge import find_scale, log_loss

SHRINKAGES = (1e-3, 1e-2, 1e-1, 1.0)  # added to the covariance of standardized features
_USUAL = 1e-1  # where no image can be left out
_MOST_LEFT_OUT, _EVERY = 20, 5  # images: at most so many, one of so many
_JUDGED = 128  # positions of a window of these that choose the shrinkage
_FINEST = 32  # positions along a side of a window; finer maps are averaged
_UNSEEN = 0.5  # positions of a class that no image has, for its prior
_NEVER = -1e4  # logit of such a class; half precision has it
_CONSTANT = 1e-10  # variance of a feature that does not change, by its squared mean
_OF_TRAINING = ("loss", "class_weights", "keep", "patience")  # options that a search refuses, too


@dataclass
class Moments:
    """Sums over positions of feature maps, from which the discriminant is computed.

    Attributes:
        counts: Positions of each class (classes,), parts of positions included.
        sums: Sum of the features of each class (classes, width).
        products: Sum of the outer products of the features (width, width).
    """

    counts: NDArray[np.float64]
    sums: NDArray[np.float64]
    products: NDArray[np.float64]

    @classmethod
    def empty(cls, width: int, num_classes: int) -> Moments:
        """Return the sums over no position."""
        return cls(np.zeros(num_classes), np.zeros((num_classes, width)), np.zeros((width, width)))

    def add(self, features: NDArray[np.float64], shares: NDArray[np.float64]) -> None:
        """Add positions.

        Args:
            features: Their features (n, width).
            shares: Share of each class in the pixels of a position (n, classes). The rest has no class.
        """
        self.counts += shares.sum(0)
        self.sums += shares.T @ features
        self.products += (shares.sum(1)[:, None] * features).T @ features

    def __add__(self, other: Moments) -> Moments:
        """Return the sums over the positions of both."""
        return Moments(self.counts + other.counts, self.sums + other.sums, self.products + other.products)

    def discriminant(self, shrinkage: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the linear discriminant.

        Args:
            shrinkage: What is added to the diagonal of the covariance of standardized features.

        Returns:
            Weights (classes, width) and biases (classes,) of logits. A class that no position has gets the mean of all,
            and the prior of half a position.
        """
        total = self.counts.sum()
        mean = self.sums.sum(0) / total
        variances = np.diag(self.products) / total - mean**2
        varies = variances > _CONSTANT * (1 + mean**2)
        factors = np.where(varies, 1 / np.sqrt(np.where(varies, variances, 1)), 0)  # a constant feature says nothing
        present = self.counts > 0
        means = np.where(present[:, None], self.sums / np.where(present, self.counts, 1)[:, None], mean)
        means = (means - mean) * factors
        scatter = (self.products / total - np.outer(mean, mean)) * np.outer(factors, factors)
        scatter -= (means.T * (self.counts / total)) @ means
        scatter[np.diag_indices_from(scatter)] += shrinkage
        weights = scipy.linalg.solve(scatter, means.T, assume_a="pos").T
        priors = np.log(np.where(present, self.counts, _UNSEEN) / total)
        biases = priors - (weights * means).sum(1) / 2
        weights = weights * factors
        return weights, biases - weights @ mean


def check_head(readout: Readout) -> None:
    """Refuse a head that is not one linear layer on feature maps.

    Args:
        readout: The readout of the head.

    Raises:
        SpecError: It is another head.
    """
    if not (text := str(readout.spec())).startswith("linear"):
        raise SpecError(f'lda solves for a linear head, and the head is {text}; give --head "linear(levels=4)", or '
                        "leave lda out")  # fmt: skip


def check_options(job: Job) -> None:
    """Refuse options of training where nothing is trained.

    Args:
        job: The job, with `lda`.

    Raises:
        SpecError: It has such an option.
    """
    if parse_method(job.method) != Linear():
        return
    chosen, defaults = job.config.to_dict(), job.config.for_method(Linear()).to_dict()
    for name in _OF_TRAINING:
        if chosen[name] != defaults[name]:
            raise SpecError(
                f"{name} is {chosen[name]!r} and lda is {job.to_dict()['lda']!r}: with the method linear, nothing is "
                "trained; leave one out"
            )


def solve_head(
    model: TunedModel,
    reader: PairReader,
    pairs: ImageMaskPairs,
    images: int | None = None,
    *,
    bf16: bool = False,
    on_image: Progress | None = None,
) -> str:
    """Give a linear dense head the weights of the linear discriminant of training images.

    The shrinkage with the lowest log loss on images that are left out is taken, and the factor of the logits that suits
    them; then all images count.

    Args:
        model: The model, on its device.
        reader: Reader of images and masks.
        pairs: The images and masks.
        images: Number of images, evenly from all. Default: all.
        bf16: True runs the forward passes in bf16. Default: False.
        on_image: Function that receives the number of finished images and of all images. Default: none.

    Returns:
        A note on what was chosen.

    Raises:
        TrainingError: The masks have no pixel of a class, or the features are NaN or infinite.
    """
    head = model.head
    assert isinstance(head, LinearDecoder)
    chosen = evenly(len(pairs), len(pairs) if images is None else images)
    others_of = chosen[_EVERY - 1 :: _EVERY]
    left_out = {others_of[i] for i in evenly(len(others_of), _MOST_LEFT_OUT)}
    fitted, others = (Moments.empty(head.scores.in_channels, model.num_classes) for _ in range(2))
    kept: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    model.eval()
    for done, index in enumerate(chosen, start=1):
        for features, shares in _positions(model, reader, pairs, index, bf16):
            (others if index in left_out else fitted).add(features, shares)
            if index in left_out:
                step = -(-len(features) // _JUDGED)
                kept.append((features[::step], shares[::step]))
        if on_image is not None:
            on_image(done, len(chosen))
    whole = fitted + others
    if not whole.counts.sum():
        raise TrainingError("no mask has a pixel of a class, so that there is nothing to learn; check --labels")
    if not np.isfinite(whole.products).all():
        raise TrainingError(
            "the features are NaN or infinite, so that no head can be solved for; look at the weights of the backbone, "
            "and lower --lr where a method was trained"
        )
    shrinkage, scale = _USUAL, 1.0
    if kept and fitted.counts.sum() and others.counts.sum():
        shrinkage, scale = _choose(fitted, *(np.concatenate(parts) for parts in zip(*kept, strict=True)))
    weights, biases = whole.discriminant(shrinkage)
    biases = np.where(whole.counts > 0, scale * biases, _NEVER)
    with torch.no_grad():
        head.scores.weight.copy_(torch.from_numpy(scale * weights)[:, :, None, None])
        assert head.scores.bias is not None
        head.scores.bias.copy_(torch.from_numpy(biases))
    return f"the head is the linear discriminant of {len(chosen)} training images, with the shrinkage {shrinkage:g}"


def _choose(fitted: Moments, features: NDArray[np.float64], shares: NDArray[np.float64]) -> tuple[float, float]:
    """Return the shrinkage, and the factor of its logits, with the lowest log loss on positions that are left out."""
    known = shares.sum(1) > 0.5  # most of the pixels have a class
    features, labels = features[known], shares[known].argmax(1)
    if not len(labels):
        return _USUAL, 1.0
    found = list[tuple[float, float, float]]()
    for shrinkage in SHRINKAGES:
        weights, biases = fitted.discriminant(shrinkage)
        logits = features @ weights.T + biases
        scale = find_scale(logits, labels)
        found.append((log_loss(scale * logits, labels), shrinkage, scale))
    _, shrinkage, scale = min(found)
    return shrinkage, scale


@torch.inference_mode()
def _positions(
    model: TunedModel, reader: PairReader, pairs: ImageMaskPairs, index: int, bf16: bool
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Iterate over the windows of an image, as in inference: features and shares of classes at each position."""
    head, preprocessing = model.head, model.backbone.preprocessing
    assert isinstance(head, LinearDecoder)
    device, side = head.scores.weight.device, preprocessing.size
    with capture_warnings():
        pixels, classes = reader.read(pairs, index)
    image, mask = resize_pair(torch.from_numpy(pixels), torch.from_numpy(classes), side)
    inputs = preprocessing.normalize(image[None].to(device))
    classes_there = torch.arange(model.num_classes, dtype=torch.int16)[:, None, None]
    known = mask.short().where(mask != IGNORE_INDEX, -1)
    for top, left in product(*(window_starts(length, side, InferenceConfig().overlap) for length in mask.shape)):
        window = (..., slice(top, top + side), slice(left, left + side))
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            features = head.inputs(model.features(inputs[window])).float()
        one_hot = (known[window] == classes_there).float()[None]  # 0 throughout where there is no class
        size = min(features.shape[-2], _FINEST), min(features.shape[-1], _FINEST)
        yield tuple(  # type: ignore[misc]
            F.adaptive_avg_pool2d(values, size)[0].flatten(1).T.cpu().double().numpy() for values in (features, one_hot)
        )
