"""Evaluation: logits of a dataset, and the scores computed from them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy  # loads its parts when they are used
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vpt.core.intervals import wilson
from vpt.training.batches import DeviceDataset, iter_batches
from vpt.training.bootstrap import bootstrap, rate_interval
from vpt.training.calibration import calibration_error, confidence_bins
from vpt.training.callbacks import Progress

RATES = ("precision", "recall", "f1")
NO_CONFUSION: NDArray[np.int64] = np.zeros((0, 0), np.int64)  # of labels that are not one class for each image


@dataclass(frozen=True)
class Scores:
    """Scores of a confusion matrix, of classification; those of other tasks are subclasses.

    Attributes:
        confusion: Counts (true, predicted), int64 (classes, classes).
        loss: Mean loss.
        bins: Sums by confidence, see `confidence_bins`; None where probabilities are not known.
        picture: Name of the picture of these scores.
        counts: The flat confusion matrix of each image, sparse int64 (images, classes * classes), which resampling
            needs; None where it is not known.
        groups: Group of each image (images,), or None if every image is on its own.
        confidences: Probability of the predicted class of each image (images,), or None where it is not known.
    """

    picture: ClassVar[str] = "confusion"

    confusion: NDArray[np.int64]
    loss: float
    bins: NDArray[np.float64] | None = None
    counts: Any = None
    groups: NDArray[np.int64] | None = None
    confidences: NDArray[np.float64] | None = None

    @property
    def per_class(self) -> NDArray[np.float64]:
        """Recall of each class, between 0 and 1; NaN for a class without images."""
        return divide_or_nan(self.confusion.diagonal(), self.confusion.sum(1))

    @property
    def support(self) -> NDArray[np.int64]:
        """Number of images or pixels of each class (classes,)."""
        return np.asarray(self.confusion.sum(1))

    @property
    def numbers(self) -> NDArray[np.float64] | None:
        """True and predicted number of each image (n, 2); None where classes are predicted."""
        return None

    @property
    def num_images(self) -> int:
        """Number of scored images."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """Fraction of correct predictions, between 0 and 1."""
        return float(self.confusion.trace() / max(1, self.confusion.sum()))

    @property
    def mean_per_class(self) -> float:
        """Mean of `per_class` over the classes that have a score."""
        return float(np.nanmean(self.per_class)) if self.confusion.any() else float("nan")

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics by name, the main one first."""
        return {"top1": self.accuracy, "mean_per_class": self.mean_per_class}

    @staticmethod
    def main_metric(hits: NDArray[Any], true: NDArray[Any], predicted: NDArray[Any]) -> float:
        """Return the main metric of the counts that `make_rates` describes."""
        return float(hits.sum() / max(1, true.sum()))

    @property
    def class_rates(self) -> dict[str, NDArray[np.float64]]:
        """Precision, recall and F1 of each class, as scikit-learn defines them, between 0 and 1.

        A rate without any case is 0. A class that neither occurs nor is predicted has NaN.
        """
        return make_rates(self.confusion.diagonal(), self.confusion.sum(1), self.confusion.sum(0))

    @property
    def macro(self) -> dict[str, float]:
        """Mean of each of `class_rates` over the classes that have it."""
        return {name: nan_mean(values) for name, values in self.class_rates.items()}

    @property
    def calibration_error(self) -> float | None:
        """Expected calibration error in 15 bins of equal width, or None where probabilities are not known."""
        return None if self.bins is None else calibration_error(self.bins)

    def intervals(self, groups: NDArray[np.int64] | None = None) -> dict[str, tuple[float, float]]:
        """Return the 95 % intervals of the main metric and of macro F1, by the bootstrap over images.

        That of top-1 is Wilson's where images have no groups: a rate of few images has few values when it is resampled.

        Args:
            groups: Group of each image (n,); images of a group are drawn together. Default: those of the scores.

        Returns:
            Lower and upper bound by name of the metric; nothing where the counts of the images are not known.
        """
        if self.counts is None:
            return {}
        first, counts = next(iter(self.metrics)), self.counts
        groups = self.groups if groups is None else groups
        if groups is not None:
            _, index = np.unique(groups, return_inverse=True)
            counts = scipy.sparse.csr_array((np.ones_like(index), (index, np.arange(len(index))))) @ counts

        hits, true, predicted = _totals(counts, len(self.confusion))

        def statistic(weights: NDArray[np.int64]) -> tuple[float, float]:
            totals = weights @ hits, weights @ true, weights @ predicted
            return self.main_metric(*totals), nan_mean(make_rates(*totals)["f1"])

        units = counts.shape[0]
        values = bootstrap(np.arange(units), statistic)
        names = (first, "macro_f1")
        found = {name: rate_interval(column, units) for name, column in zip(names, values.T, strict=True)}
        if first == "top1" and groups is None:
            found[first] = wilson(int(self.confusion.trace()), units)
        return found


def _totals(counts: Any, num_classes: int) -> "list[scipy.sparse.csr_array]":
    """Return right predictions, images and predictions of each class, sparse (images, classes), of `Scores.counts`."""
    entries = counts.tocoo()
    rows, values, (true, predicted) = entries.row, entries.data, np.divmod(entries.col, num_classes)
    right, shape = true == predicted, (counts.shape[0], num_classes)
    return [
        scipy.sparse.csr_array((values[right], (rows[right], true[right])), shape=shape),
        scipy.sparse.csr_array((values, (rows, true)), shape=shape),
        scipy.sparse.csr_array((values, (rows, predicted)), shape=shape),
    ]


def make_rates(hits: NDArray[Any], true: NDArray[Any], predicted: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """Return precision, recall and F1 of classes.

    Args:
        hits: Number of right predictions of each class (classes,).
        true: Number of images or pixels of each class.
        predicted: Number of predictions of each class.

    Returns:
        Rates by name; 0 without any case, NaN for a class that neither occurs nor is predicted.
    """
    known = true + predicted > 0
    pairs = ((hits, predicted), (hits, true), (2 * hits, true + predicted))
    rates = (np.where(known, count / np.maximum(1, total), np.nan) for count, total in pairs)
    return dict(zip(RATES, rates, strict=True))


def nan_mean(values: NDArray[np.float64]) -> float:
    """Return the mean of the values that are known; NaN where there is none."""
    return float("nan") if np.isnan(values).all() else float(np.nanmean(values))


def divide_or_nan(counts: NDArray[np.int64], totals: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return counts as fractions of totals.

    Args:
        counts: Counts (n,).
        totals: Totals (n,).

    Returns:
        Fractions (n,), NaN where the total is 0.
    """
    fractions: NDArray[np.float64] = np.divide(counts, totals, out=np.full(len(counts), np.nan), where=totals > 0)
    return fractions


def confusion_matrix(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Count predictions by true and predicted class.

    Labels that are no class, such as that of ignored pixels, are left out.

    Args:
        predicted: Predicted classes, of any shape.
        labels: True classes, of the same shape.
        classes: Number of classes.

    Returns:
        Counts (true, predicted), int64 (classes, classes).
    """
    known = (labels >= 0) & (labels < classes)
    pairs = labels[known].long() * classes + predicted[known].long()
    return torch.bincount(pairs, minlength=classes * classes).view(classes, classes)


@torch.inference_mode()
def iter_logits(
    model: Callable[[Tensor], Tensor],
    dataset: DeviceDataset,
    *,
    batch_size: int = 64,
    bf16: bool = False,
    augment: str = "none",
    seed: tuple[int, ...] = (),
    on_batch: Progress | None = None,
) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """Compute the logits of a dataset batch by batch, in eval mode.

    Args:
        model: Module or function that maps the inputs of the dataset to logits.
        dataset: The dataset.
        batch_size: Images per forward pass. Default: 64.
        bf16: True runs the forward pass in bf16. Default: False.
        augment: Text of an augmentation. Default: none.
        seed: Seed of the augmentation. Default: none.
        on_batch: Function that receives the number of finished images and of all images. Default: none.

    Yields:
        Indices of the images, and their logits (batch, classes), float32 on the CPU.
    """
    if isinstance(model, nn.Module):
        model.eval()
    batches = list(iter_batches(np.arange(len(dataset)), batch_size))
    dataset.plan(batches, seed if augment != "none" else None)
    rng, done = np.random.default_rng(seed), 0
    for indices in batches:
        with torch.autocast(dataset.device.type, torch.bfloat16, enabled=bf16):
            logits = model(dataset.inputs(indices, augment, rng)).float().cpu()
        yield indices, logits
        done += len(indices)
        if on_batch is not None:
            on_batch(done, len(dataset))


def predict_logits(model: Callable[[Tensor], Tensor], dataset: DeviceDataset, **options: Any) -> Tensor:
    """Compute the logits of a dataset, in eval mode.

    Args:
        model: Module or function that maps the inputs of the dataset to logits.
        dataset: The dataset.
        **options: Other arguments of `iter_logits`.

    Returns:
        Logits (n, classes), float32 on the CPU.
    """
    return torch.cat([logits for _, logits in iter_logits(model, dataset, **options)])


def score_logits(logits: Tensor, labels: Tensor, groups: NDArray[np.int64] | None = None) -> Scores:
    """Compute scores from logits. Ties go to the lower class.

    Args:
        logits: Logits (n, classes).
        labels: Labels (n,).
        groups: Group of each image (n,), for intervals. Default: every image is on its own.

    Returns:
        The scores.
    """
    predicted, classes = logits.argmax(1), logits.shape[1]
    confusion = confusion_matrix(predicted, labels, classes).numpy()
    confidences = logits.softmax(1).amax(1)
    bins = confidence_bins(confidences, predicted == labels)
    cells, order = (labels * classes + predicted).numpy(), np.arange(len(labels))
    counts = scipy.sparse.csr_array((np.ones_like(cells), (order, cells)), shape=(len(labels), classes**2))
    loss = float(nn.functional.cross_entropy(logits, labels))
    return Scores(confusion, loss, bins, counts, groups, confidences.double().numpy())
