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

from vpt.core.text import did_you_mean
from vpt.data.image_files import capture_warnings
from vpt.data.joint_augmentation import JointAugmentation
from vpt.data.mask_labels import IGNORE_INDEX
from vpt.data.segmentation_folder import ImageMaskPairs, SegmentationDataset, load_pair
from vpt.errors import SpecError
from vpt.methods.base import Method
from vpt.model.tuned_model import TunedModel
from vpt.tasks.segmentation.scores import PixelScores, confusion_matrix
from vpt.tasks.segmentation.sliding_window import InferenceConfig, predict_rows
from vpt.training import TrainingConfig, micro_batches
from vpt.training.batches import epoch_order

_CHOICES = {"loss": ("ce", "dice", "ce+dice"), "class_weights": ("none", "balanced"), "crops": ("none", "flip", "full")}
_AUGMENTATIONS = {
    "none": JointAugmentation(1.0, 1.0, False, 0.0, 1.0),
    "flip": JointAugmentation(1.0, 1.0, True, 0.0, 1.0),
    "full": JointAugmentation(),
}
_HEAD_LEARNING_RATE = 0.03  # per 256 images with AdamW: a step of 1e-3 at batch 8, for a head that starts from nothing


@dataclass(frozen=True)
class Course(TrainingConfig):
    """A configuration that counts iterations. What `TrainingConfig` calls an epoch is here an interval of `eval_every` iterations, at its
    end val is measured and the checkpoint written; `epochs` follows from that, and `augment` is left to `crops`.

    power: learning rate = peak * (1 - iteration / iterations) ** power, after `warmup_iterations` of linear warmup_factor.
    loss: cross-entropy "ce", "dice", or their sum. class_weights: "balanced" weighs classes by the median of their
    frequencies over their own. auxiliary_weight: of each auxiliary head's loss.
    crops: "full" scales by 0.5 to 2, crops, flips and varies colors; "flip"; or "none" (a crop at scale 1).
    """

    iterations: int = 2000
    eval_every: int = 200
    power: float = 0.9
    warmup_iterations: int = 0
    loss: Literal["ce", "dice", "ce+dice"] = "ce"
    class_weights: Literal["none", "balanced"] = "none"
    auxiliary_weight: float = 0.4
    crops: Literal["none", "flip", "full"] = "full"

    def __post_init__(self) -> None:
        for name in ("iterations", "eval_every"):
            if getattr(self, name) < 1:
                raise SpecError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise SpecError(f"{name} is {getattr(self, name)!r}; {did_you_mean(getattr(self, name), choices)}")
        if self.probe_epochs:
            raise SpecError("probe_epochs is for classification; a dense head trains from the start")
        if self.augment != "none":
            raise SpecError(f"augment is {self.augment!r}, for classification; here `crops` says how images vary")
        object.__setattr__(self, "epochs", math.ceil(self.iterations / self.eval_every))  # frozen, but derived
        super().__post_init__()

    @classmethod
    def field_names(cls) -> frozenset[str]:
        """The names of the fields that decide how such a configuration trains: without those of epochs."""
        return super().field_names() - {"epochs", "warmup_epochs", "augment", "probe_epochs", "probe_weight_decay"}

    @classmethod
    def for_method(cls, method: Method, **overrides: Any) -> Course:
        """The defaults of a method, AdamW throughout, with a head of its own rate; and what is given instead."""
        learning_rate = method.learning_rate if method.optimizer == "adamw" else _HEAD_LEARNING_RATE
        given = {name: value for name, value in overrides.items() if value is not None}
        base = cls(optimizer="adamw", learning_rate=learning_rate, weight_decay=method.weight_decay, batch_size=8)
        course = replace(base, **given)
        if "head_lr_scale" not in given and course.optimizer == "adamw":
            course = replace(course, head_lr_scale=_HEAD_LEARNING_RATE / course.learning_rate)
        return course

    def lr_at(self, step: int, num_steps: int, steps_per_epoch: int) -> float:
        """The learning rate of iteration `step` (0-based)."""
        peak = self.learning_rate * self.batch_size / 256
        warmup_factor = min(1.0, (step + 1) / (self.warmup_iterations + 1))
        return float(peak * warmup_factor * (1 - step / self.iterations) ** self.power)


class Lesson:
    """Random crops, the loss of all heads, mean IoU on val: what `vpt.training.fit` asks for."""

    def __init__(self, model: TunedModel, dataset: SegmentationDataset, course: Course) -> None:
        self.model, self.dataset, self.course = model, dataset, course
        self.train, self.val = dataset.splits["train"], dataset.splits.get("val")
        self.device = next(model.parameters()).device
        self.bf16 = course.use_bf16(self.device)
        self.weights = None
        if course.class_weights == "balanced":
            self.weights = median_frequency_weights(dataset.pixel_counts).to(self.device)

    def batches(self, epoch: int) -> Sequence[NDArray[np.int64]]:
        """Batches run through one permutation after another, whatever the evaluation interval; all have the same size."""
        course, count = self.course, len(self.train)
        first, last = epoch * course.eval_every, min((epoch + 1) * course.eval_every, course.iterations)
        positions = np.arange(first * course.batch_size, last * course.batch_size)
        permutations = {p: epoch_order(count, course.seed, int(p)) for p in np.unique(positions // count)}
        indices = np.array(
            [permutations[position // count][position % count] for position in positions], dtype=np.int64
        )
        return list(indices.reshape(-1, course.batch_size))

    def gradients(self, indices: NDArray[np.int64], rng: np.random.Generator) -> tuple[float, float]:
        loss_sum, total_accuracy = 0.0, 0.0
        for micro_batch in micro_batches(indices, self.course.grad_accum_steps):
            images, masks = self._load_crops(micro_batch, rng)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                logits, *auxiliary = self.model.logits_with_auxiliary(images)
            loss = self._loss(logits, masks) + self.course.auxiliary_weight * sum(
                self._loss(other, masks) for other in auxiliary
            )
            (loss / len(indices)).backward()
            loss_sum += loss.item()
            valid = masks != IGNORE_INDEX
            accuracy = ((logits.argmax(1) == masks) & valid).flatten(1).sum(1) / valid.flatten(1).sum(1).clamp(min=1)
            total_accuracy += float(accuracy.sum())
        return loss_sum, total_accuracy

    def validate(self) -> tuple[float, float] | None:
        """Loss of the averaged probabilities, and mean IoU: one scale, at the original size."""
        if self.val is None:
            return None
        self.model.eval()
        loss, scores = score_pairs(self.model, self.val, self.dataset.lookup_table, InferenceConfig())
        return loss, scores.miou

    def _load_crops(self, micro_batch: NDArray[np.int64], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        preprocessing, augment = self.model.backbone.preprocessing, _AUGMENTATIONS[self.course.crops]
        images, masks = [], []
        with capture_warnings():
            for index in micro_batch:
                pixels, mask = load_pair(self.train, int(index), self.dataset.lookup_table)
                image, cropped_mask = augment(torch.from_numpy(pixels), torch.from_numpy(mask), preprocessing.size, rng)
                images.append(image)
                masks.append(cropped_mask)
        inputs = preprocessing.normalize(torch.stack(images).to(self.device))
        return inputs, torch.stack(masks).long().to(self.device)

    def _loss(self, logits: Tensor, masks: Tensor) -> Tensor:
        total = logits.new_zeros((), dtype=torch.float32)
        if "ce" in self.course.loss.split("+"):
            total = total + cross_entropy(logits.float(), masks, self.weights)
        if "dice" in self.course.loss:
            total = total + dice_loss(logits.float(), masks)
        return total


def cross_entropy(logits: Tensor, masks: Tensor, weights: Tensor | None = None) -> Tensor:
    """The sum over images of each image's (weighted) mean over its pixels with a class; (batch, classes, h, w).

    A mean by image, not by batch: the micro-batches of an accumulated batch then add up to the whole.
    """
    losses = F.cross_entropy(logits, masks, weights, ignore_index=IGNORE_INDEX, reduction="none").flatten(1).sum(1)
    valid = masks != IGNORE_INDEX
    weight = valid.float() if weights is None else weights[masks.where(valid, 0)] * valid
    return (losses / weight.flatten(1).sum(1).clamp(min=1e-6)).sum()


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """The sum over images of 1 - mean soft Dice over the classes that the image holds (Milletari et al., 2016)."""
    valid = (masks != IGNORE_INDEX).unsqueeze(1)
    probabilities = logits.softmax(1) * valid
    one_hot = F.one_hot(masks.where(masks != IGNORE_INDEX, 0), logits.shape[1]).permute(0, 3, 1, 2) * valid
    intersection, cardinality = (probabilities * one_hot).flatten(2).sum(2), (probabilities + one_hot).flatten(2).sum(2)
    present = one_hot.flatten(2).any(2)
    dice = (2 * intersection + 1) / (cardinality + 1) * present
    return (present.any(1).float() - dice.sum(1) / present.sum(1).clamp(min=1)).sum()


def median_frequency_weights(pixel_counts: NDArray[np.int64]) -> Tensor:
    """Median frequency over own frequency (Eigen and Fergus, 2015), 0 for a class without pixels."""
    frequencies = pixel_counts / max(1, pixel_counts.sum())
    present = frequencies > 0
    weights = np.divide(np.median(frequencies[present]), frequencies, out=np.zeros(len(frequencies)), where=present)
    return torch.from_numpy(weights).float()


def score_pairs(
    model: TunedModel,
    pairs: ImageMaskPairs,
    lookup_table: NDArray[np.int16],
    inference: InferenceConfig,
    on_image: Any = None,
) -> tuple[float, PixelScores]:
    """Mean loss (of averaged probabilities) and scores over all pairs, at their original size."""
    total, losses = torch.zeros(model.num_classes, model.num_classes, dtype=torch.int64), 0.0
    with capture_warnings():
        for index in range(len(pairs)):
            pixels, mask = load_pair(pairs, index, lookup_table)
            loss, targets = 0.0, torch.from_numpy(mask).long()
            for rows, probabilities in predict_rows(model, torch.from_numpy(pixels), inference):
                predicted, target = probabilities.cpu(), targets[rows]
                total += confusion_matrix(predicted.argmax(0), target, model.num_classes)
                log_probs = predicted.clamp(min=1e-12).log()
                loss += float(
                    F.cross_entropy(log_probs[None], target[None], ignore_index=IGNORE_INDEX, reduction="sum")
                )
            losses += loss / max(1, int((targets != IGNORE_INDEX).sum()))
            if on_image is not None:
                on_image(index + 1, len(pairs))
    return losses / max(1, len(pairs)), PixelScores(total.numpy())
