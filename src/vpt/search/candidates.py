"""The candidates besides the probe: methods with a recipe each, in the order in which they are tried.

The recipes are those of pilots with few labels: AdamW, heads that start fresh, prompts and their head at 0.005, full
fine-tuning at 0.0001, and enough steps.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from vpt.backbones import Backbone
from vpt.data.label_kinds import KindName
from vpt.errors import SpecError, UnsupportedError
from vpt.methods.base import Method, Sum
from vpt.methods.full import Full
from vpt.methods.linear import Linear
from vpt.methods.registry import parse_method
from vpt.methods.vpt import VPT
from vpt.model.attach import attach
from vpt.tasks.classification.config import SMALL_BATCH, ClassificationConfig, default_steps
from vpt.tasks.classification.ridge_head import wide_model
from vpt.tasks.classification.task import ClassificationTask
from vpt.tasks.search_rows import describe_trial

_PEAK_RATES = {"vpt": 5e-3, "gated": 5e-3, "full": 1e-4, "lora": 1e-3, "adapter": 1e-3, "adaptformer": 1e-3,
               "ssf": 1e-2, "bias": 1e-3, "norm": 1e-3, "partial": 1e-4}  # fmt: skip
_HEAD_SCALES = {"ssf": 0.1}
_MIN_STEPS = 40  # of a training that is worth its time: as many are above a linear probe (benchmarks/defaults.py)
_MAX_STEPS, _MAX_EPOCHS, _FULL_EPOCHS = 200, 100, 20
_LORA, _SMALL_LORA = "lora(rank=32, targets=all)", "lora(rank=8, alpha=2, targets=all)"  # the same alpha / rank
_METHODS = (  # the most promising first
    "vpt(length=50)", "full", _LORA, "vpt(length=50) + lora(rank=4, alpha=0.8, targets=all)", "vpt(length=50) + bias",
    "vpt(length=10)",
)  # fmt: skip
RATE_FACTORS = (3.0, 1 / 3)
_PROBE_EPOCHS, _PROBE_VISITS, _SLOWER_FROM_PROBE = 100, 100_000, 4.0  # as benchmarks/images_per_class_dtd10.toml
_PROBE_SECONDS = 4.0  # for so many visits of images, on a CPU core


@dataclass(frozen=True)
class Candidate:
    """A method and how it trains, without the length.

    Attributes:
        method: Text of the method.
        recipe: Options of its training.
        factor: Factor of its usual rate.
        size: Bytes of the values in its tuned file; 0 where nobody has counted them.
    """

    method: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    factor: float = 1.0
    size: int = field(default=0, compare=False)

    @property
    def name(self) -> str:
        """Name in the record of the search and in the table."""
        return describe_trial(self.method, self.factor, self.start, self.decoder)

    @property
    def decoder(self) -> str:
        """Head that trains where those of other candidates are solved for, in segmentation; else ""."""
        return str(self.recipe["head"]) if "lda" in self.recipe else ""

    @property
    def start(self) -> str:
        """Start of the head: "probe", or "" for values at random."""
        return "probe" if self.recipe.get("probe_epochs") else ""

    @property
    def noun(self) -> str:
        """Name in a sentence, a plural."""
        method = parse_method(self.method)
        if isinstance(method, VPT):
            return f"prompts with the head {self.decoder}" if self.decoder else "prompts"
        return "weights after full fine-tuning" if isinstance(method, Full) else f"models with {self.method}"

    def with_factor(self, factor: float) -> Candidate:
        """Return this candidate at another rate."""
        rate = self.recipe["learning_rate"] * factor
        return replace(self, recipe={**self.recipe, "learning_rate": rate}, factor=factor)

    def from_probe(self, images: int) -> Candidate:
        """Return this candidate with a head that starts as a linear probe, at a rate that leaves features nearer.

        Args:
            images: Number of training images. The probe trains for 100 epochs, and for fewer with many images.

        Returns:
            The candidate.
        """
        rate, epochs = self.recipe["learning_rate"] / _SLOWER_FROM_PROBE, _PROBE_VISITS // max(1, images)
        probe_epochs = min(_PROBE_EPOCHS, max(1, epochs))
        return replace(self, recipe={**self.recipe, "learning_rate": rate, "probe_epochs": probe_epochs})


def make_candidate(method: str, kind: KindName = "single_label", batch_size: int | None = None) -> Candidate:
    """Return a method with its recipe. The peak rate of AdamW is the same for every batch size.

    Methods without a rate of their own here have that of `vpt tune`. The first term of a sum decides, as it does there.

    Args:
        method: Text of the method.
        kind: Kind of the labels. Default: "single_label".
        batch_size: Images per step. Default: 16.

    Returns:
        The candidate.
    """
    parsed = parse_method(method)
    first = parsed.terms[0] if isinstance(parsed, Sum) else parsed
    batch_size = batch_size or SMALL_BATCH
    recipe = {"learning_rate": parsed.learning_rate, **default_steps(parsed, {"batch_size": batch_size})}
    if first.name in _PEAK_RATES:
        rate = _PEAK_RATES[first.name] * 256 / batch_size
        recipe |= {"optimizer": "adamw", "learning_rate": rate, "head_lr_scale": _HEAD_SCALES.get(first.name, 1.0)}
    elif kind == "regression" and parsed.optimizer == "sgd":  # whose rates suit losses of classes
        usual = ClassificationConfig.for_method(parsed, label_kind=kind).training
        recipe |= {"optimizer": usual.optimizer, "learning_rate": usual.learning_rate * usual.batch_size / batch_size}
    return Candidate(str(parsed), recipe)


def list_candidates(
    backbone: Backbone,
    num_classes: int,
    method: str | None,
    max_size: float,
    head: str,
    kind: KindName = "single_label",
    *,
    joins: bool = True,
    batch_size: int | None = None,
    save_dtype: str = "fp32",
) -> Iterator[Candidate]:
    """Yield the methods that fit a backbone, the most promising first. Small LoRA follows LoRA that is too large.

    Args:
        backbone: The backbone.
        num_classes: Number of classes.
        method: The only method, or None for all.
        max_size: Largest tuned file in megabytes, see `is_too_large`.
        head: Head of the probe, which joins the trained head of every candidate whose head is linear.
        kind: Kind of the labels. Default: "single_label".
        joins: False leaves the trained heads alone. Default: True.
        batch_size: Images per step. Default: 16.
        save_dtype: "fp32" or "fp16", of the tuned file. Default: "fp32".

    Yields:
        The candidates, with their sizes.
    """
    texts = deque([method] if method else _METHODS)
    while texts:
        text = texts.popleft()
        try:
            model = attach(backbone, text, num_classes)
        except UnsupportedError:
            if method:
                raise
            continue
        candidate = make_candidate(text, kind, batch_size)
        if joins:
            with suppress(UnsupportedError, SpecError):  # its head, or what it reads, cannot be joined
                model = wide_model(model, ClassificationTask().parse_head(head))
                candidate = replace(candidate, recipe={**candidate.recipe, "head": head, "ridge": "auto"})
        candidate = replace(candidate, size=bytes_of(model.counts().trainable, save_dtype))
        if text == _LORA and not method and is_too_large(candidate, max_size):
            texts.appendleft(_SMALL_LORA)
        yield candidate


def bytes_of(parameters: int, save_dtype: str) -> int:
    """Return the bytes of parameters in a tuned file.

    Args:
        parameters: Number of parameters.
        save_dtype: "fp32" or "fp16".

    Returns:
        The bytes.
    """
    return (2 if save_dtype == "fp16" else 4) * parameters


def is_too_large(candidate: Candidate, max_size: float) -> bool:
    """Return whether the tuned file of a candidate would be larger than a search may choose by itself.

    Args:
        candidate: The candidate.
        max_size: The size in megabytes.

    Returns:
        True if it would be.
    """
    return candidate.size > 1e6 * max_size


def is_probe(method: Method) -> bool:
    """Return True for the method that the probe stands for: a linear head on the frozen feature, without options."""
    return method == Linear()


def full_epochs(images: int, batch_size: int) -> int:
    """Return the length of an unshortened training: 20 epochs, or 200 steps where these are more.

    Args:
        images: Number of training images.
        batch_size: Images per step.

    Returns:
        The number of epochs, at most 100.
    """
    steps_per_epoch = math.ceil(images / batch_size)
    return min(_MAX_EPOCHS, max(_FULL_EPOCHS, math.ceil(_MAX_STEPS / steps_per_epoch)))


def epochs_that_fit(seconds: float, images: int, batch_size: int, step: float) -> int:
    """Return the number of epochs that a time allows.

    Args:
        seconds: The time.
        images: Number of training images.
        batch_size: Images per step.
        step: Seconds of a training step for an image.

    Returns:
        The number of epochs; 0 where fewer steps fit than are worth the while, 40.
    """
    epochs = min(full_epochs(images, batch_size), int(seconds / max(1e-9, images * step)))
    return epochs if epochs >= least_epochs(images, batch_size) else 0


def probe_seconds(epochs: int, images: int) -> float:
    """Return the time of the linear probe that a head starts from, on features that are known.

    Args:
        epochs: Number of its epochs.
        images: Number of training images.

    Returns:
        The seconds, at least those of 100,000 visits of images.
    """
    return _PROBE_SECONDS * max(1.0, epochs * images / _PROBE_VISITS)


def least_epochs(images: int, batch_size: int) -> int:
    """Return the length of the shortest training that is worth the while.

    Args:
        images: Number of training images.
        batch_size: Images per step.

    Returns:
        The number of epochs, in which there are at least 40 steps.
    """
    return math.ceil(_MIN_STEPS / math.ceil(images / batch_size))
