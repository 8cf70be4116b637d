"""How a segmentation model trains: by iterations, with a polynomial schedule, on random crops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vpt.data.image_files import listening
from vpt.data.joint_augmentation import Augment
from vpt.data.mask_labels import VOID
from vpt.data.segmentation_folder import Pairs, Scenes, read_pair
from vpt.errors import SpecError, nearest
from vpt.methods.base import Method
from vpt.model.tuned_model import TunedModel
from vpt.tasks.segmentation.scores import PixelScores, confusion_of
from vpt.tasks.segmentation.sliding_window import Inference, strips
from vpt.training import Recipe, parts_of
from vpt.training.batches import order

_CHOICES = {"loss": ("ce", "dice", "ce+dice"), "class_weights": ("none", "balanced"), "crops": ("none", "flip", "full")}
_CROPS = {"none": Augment(1.0, 1.0, False, 0.0, 1.0), "flip": Augment(1.0, 1.0, True, 0.0, 1.0), "full": Augment()}
_HEAD_RATE = 0.03  # per 256 images with AdamW: a step of 1e-3 at batch 8, for a head that starts from nothing


@dataclass(frozen=True)
class Course(Recipe):
    """A recipe that counts iterations. What `Recipe` calls an epoch is here a stretch of `interval` iterations, at its
    end val is measured and the checkpoint written; `epochs` follows from that, and `augment` is left to `crops`.

    power: step size = peak * (1 - iteration / iterations) ** power, after `warmup_iterations` of linear rise.
    loss: cross-entropy "ce", "dice", or their sum. class_weights: "balanced" weighs classes by the median of their
    frequencies over their own. auxiliary_weight: of each auxiliary head's loss.
    crops: "full" scales by 0.5 to 2, crops, flips and varies colours; "flip"; or "none" (a crop at scale 1).
    """

    iterations: int = 2000
    interval: int = 200
    power: float = 0.9
    warmup_iterations: int = 0
    loss: Literal["ce", "dice", "ce+dice"] = "ce"
    class_weights: Literal["none", "balanced"] = "none"
    auxiliary_weight: float = 0.4
    crops: Literal["none", "flip", "full"] = "full"

    def __post_init__(self) -> None:
        for name in ("iterations", "interval"):
            if getattr(self, name) < 1:
                raise SpecError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise SpecError(f"{name} is {getattr(self, name)!r}; {nearest(getattr(self, name), choices)}")
        if self.probe_epochs:
            raise SpecError("probe_epochs is for classification; a dense head trains from the start")
        if self.augment != "none":
            raise SpecError(f"augment is {self.augment!r}, for classification; here `crops` says how images vary")
        object.__setattr__(self, "epochs", math.ceil(self.iterations / self.interval))  # frozen, but derived
        super().__post_init__()

    @classmethod
    def choices(cls) -> frozenset[str]:
        """The names of the fields that decide how such a course trains: without those of epochs."""
        return super().choices() - {"epochs", "warmup_epochs", "augment", "probe_epochs", "probe_weight_decay"}

    @classmethod
    def of(cls, method: Method, **choices: Any) -> Course:
        """The defaults of a method, AdamW throughout, with a head of its own rate; and what is chosen instead."""
        own = method.learning_rate if method.optimizer == "adamw" else _HEAD_RATE
        chosen = {name: value for name, value in choices.items() if value is not None}
        base = cls(optimizer="adamw", learning_rate=own, weight_decay=method.weight_decay, batch_size=8)
        course = replace(base, **chosen)
        if "head_rate" not in chosen and course.optimizer == "adamw":
            course = replace(course, head_rate=_HEAD_RATE / course.learning_rate)
        return course

    def step_size(self, step: int, steps: int, steps_per_epoch: int) -> float:
        """The learning rate of iteration `step` (0-based)."""
        peak = self.learning_rate * self.batch_size / 256
        rise = min(1.0, (step + 1) / (self.warmup_iterations + 1))
        return float(peak * rise * (1 - step / self.iterations) ** self.power)


class Lesson:
    """Random crops of scenes, the loss of all heads, mean IoU on val: what `vpt.training.fit` asks for."""

    def __init__(self, model: TunedModel, scenes: Scenes, course: Course) -> None:
        self.model, self.scenes, self.course = model, scenes, course
        self.train, self.val = scenes.parts["train"], scenes.parts.get("val")
        self.device = next(model.parameters()).device
        self.bf16 = course.autocast_to_bf16(self.device)
        self.weights = None
        if course.class_weights == "balanced":
            self.weights = balanced(scenes.pixels).to(self.device)

    def batches(self, epoch: int) -> Sequence[NDArray[np.int64]]:
        """Batches run through one permutation after another, whatever the stretches; all have the same size."""
        course, count = self.course, len(self.train)
        first, last = epoch * course.interval, min((epoch + 1) * course.interval, course.iterations)
        places = np.arange(first * course.batch_size, last * course.batch_size)
        passes = {p: order(count, course.seed, int(p)) for p in np.unique(places // count)}
        indices = np.array([passes[place // count][place % count] for place in places], dtype=np.int64)
        return list(indices.reshape(-1, course.batch_size))

    def gradients(self, indices: NDArray[np.int64], rng: np.random.Generator) -> tuple[float, float]:
        loss_sum, hits = 0.0, 0.0
        for part in parts_of(indices, self.course.accumulate):
            images, masks = self._crops(part, rng)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                logits, *auxiliary = self.model.every_logits(images)
            loss = self._loss(logits, masks) + self.course.auxiliary_weight * sum(
                self._loss(other, masks) for other in auxiliary
            )
            (loss / len(indices)).backward()
            loss_sum += loss.item()
            valid = masks != VOID
            right = ((logits.argmax(1) == masks) & valid).flatten(1).sum(1) / valid.flatten(1).sum(1).clamp(min=1)
            hits += float(right.sum())
        return loss_sum, hits

    def validate(self) -> tuple[float, float] | None:
        """Loss of the averaged probabilities, and mean IoU: one scale, at the original size."""
        if self.val is None:
            return None
        self.model.eval()
        loss, scores = measure(self.model, self.val, self.scenes.table, Inference())
        return loss, scores.miou

    def _crops(self, part: NDArray[np.int64], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        preprocessing, augment = self.model.backbone.preprocessing, _CROPS[self.course.crops]
        images, masks = [], []
        with listening():
            for index in part:
                pixels, mask = read_pair(self.train, int(index), self.scenes.table)
                image, cut = augment(torch.from_numpy(pixels), torch.from_numpy(mask), preprocessing.size, rng)
                images.append(image)
                masks.append(cut)
        normal = preprocessing.normalise(torch.stack(images).to(self.device))
        return normal, torch.stack(masks).long().to(self.device)

    def _loss(self, logits: Tensor, masks: Tensor) -> Tensor:
        total = logits.new_zeros((), dtype=torch.float32)
        if "ce" in self.course.loss.split("+"):
            total = total + cross_entropy(logits.float(), masks, self.weights)
        if "dice" in self.course.loss:
            total = total + dice(logits.float(), masks)
        return total


def cross_entropy(logits: Tensor, masks: Tensor, weights: Tensor | None = None) -> Tensor:
    """The sum over images of each image's (weighted) mean over its pixels with a class; (batch, classes, h, w).

    A mean by image, not by batch: the parts of an accumulated batch then add up to the whole.
    """
    each = F.cross_entropy(logits, masks, weights, ignore_index=VOID, reduction="none").flatten(1).sum(1)
    known = masks != VOID
    share = known.float() if weights is None else weights[masks.where(known, 0)] * known
    return (each / share.flatten(1).sum(1).clamp(min=1e-6)).sum()


def dice(logits: Tensor, masks: Tensor) -> Tensor:
    """The sum over images of 1 - mean soft Dice over the classes that the image holds (Milletari et al., 2016)."""
    known = (masks != VOID).unsqueeze(1)
    probable = logits.softmax(1) * known
    true = F.one_hot(masks.where(masks != VOID, 0), logits.shape[1]).permute(0, 3, 1, 2) * known
    overlap, both = (probable * true).flatten(2).sum(2), (probable + true).flatten(2).sum(2)
    present = true.flatten(2).any(2)
    share = (2 * overlap + 1) / (both + 1) * present
    return (present.any(1).float() - share.sum(1) / present.sum(1).clamp(min=1)).sum()


def balanced(pixels: NDArray[np.int64]) -> Tensor:
    """Median frequency over own frequency (Eigen and Fergus, 2015), 0 for a class without pixels."""
    share = pixels / max(1, pixels.sum())
    present = share > 0
    weights = np.divide(np.median(share[present]), share, out=np.zeros(len(share)), where=present)
    return torch.from_numpy(weights).float()


def measure(
    model: TunedModel, pairs: Pairs, table: NDArray[np.int16], how: Inference, on_image: Any = None
) -> tuple[float, PixelScores]:
    """Mean loss (of averaged probabilities) and scores over all pairs, at their original size."""
    total, losses = torch.zeros(model.num_classes, model.num_classes, dtype=torch.int64), 0.0
    with listening():
        for index in range(len(pairs)):
            pixels, mask = read_pair(pairs, index, table)
            loss, truth = 0.0, torch.from_numpy(mask).long()
            for rows, shares in strips(model, torch.from_numpy(pixels), how):
                found, true = shares.cpu(), truth[rows]
                total += confusion_of(found.argmax(0), true, model.num_classes)
                logs = found.clamp(min=1e-12).log()
                loss += float(F.cross_entropy(logs[None], true[None], ignore_index=VOID, reduction="sum"))
            losses += loss / max(1, int((truth != VOID).sum()))
            if on_image is not None:
                on_image(index + 1, len(pairs))
    return losses / max(1, len(pairs)), PixelScores(total.numpy())
