"""The objective of segmentation models: losses on random crops."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vpt.data.masks.augmentation import JointAugmentation
from vpt.data.masks.dataset import SegmentationDataset
from vpt.data.masks.layouts import ImageMaskPairs
from vpt.data.masks.schemes import IGNORE_INDEX
from vpt.model.tuned_model import TunedModel
from vpt.tasks.segmentation.config import SegmentationConfig
from vpt.tasks.segmentation.pair_reader import PairReader
from vpt.tasks.segmentation.prediction import score_split
from vpt.tasks.segmentation.sliding_window import InferenceConfig
from vpt.tasks.segmentation.streaming import CropLoader
from vpt.training.augmentation import parse_augmentation
from vpt.training.batches import epoch_order, number_draws


class SegmentationObjective:
    """The losses of all heads on random crops, pixel accuracy in training, and mean IoU and pixel accuracy on val.

    Attributes:
        metric: Name of the metric in training.
    """

    metric = "pixel_accuracy"

    def __init__(
        self,
        model: TunedModel,
        dataset: SegmentationDataset,
        config: SegmentationConfig,
        *,
        streams: bool = True,
        workers: int | None = 0,
        reader: PairReader | None = None,
    ) -> None:
        """Prepare the objective.

        Args:
            model: The model, on its device.
            dataset: Images and masks, with a split "train" and possibly "val".
            config: The configuration.
            streams: False reads in this process, see `CropLoader`. Default: True.
            workers: Number of processes that decode a stream, see `CropLoader`. Default: 0, this one decodes.
            reader: Reader of the images and masks, see `CropLoader`. Default: one of its own.
        """
        self.model = model
        self.dataset = dataset
        self.config = config
        self.train: ImageMaskPairs = dataset.splits["train"]
        self.device: torch.device = next(model.parameters()).device
        self.bf16: bool = config.training.use_bf16(self.device)
        augmentation, size = joint_augmentation(config.augment), model.backbone.preprocessing.size
        self.crops: CropLoader = CropLoader(
            dataset, augmentation, size, streams=streams, workers=workers, reader=reader
        )
        self._seed: tuple[int, ...] = (config.training.seed, 0)
        self.weights: Tensor | None = None
        if config.class_weights == "balanced":
            counts = np.stack([dataset.class_counts(name) for name in self.train.names])
            self.weights = median_frequency_weights(counts).to(self.device)

    def batches(self, epoch: int) -> Sequence[NDArray[np.int64]]:
        """Return batches of one size, which run through one permutation after another whatever the interval.

        Args:
            epoch: Number of the evaluation interval, from 0.

        Returns:
            The draws of images of each step, see `vpt.training.batches.number_draws`.
        """
        config, count = self.config, len(self.train)
        batch_size, seed = config.training.batch_size, config.training.seed
        first, last = epoch * config.eval_every, min((epoch + 1) * config.eval_every, config.iterations)
        positions = np.arange(first * batch_size, last * batch_size)
        numbers, order_of = np.unique(positions // count, return_inverse=True)
        orders = np.stack([epoch_order(count, seed, int(number)) for number in numbers])
        return list(number_draws(orders[order_of, positions % count], count).reshape(-1, batch_size))

    def plan(self, epoch: int, batches: Sequence[NDArray[np.int64]]) -> None:  # noqa: D102
        self._seed = (self.config.training.seed, epoch)
        self.crops.plan(batches, self._seed)

    def loss(self, indices: NDArray[np.int64], rng: np.random.Generator) -> tuple[Tensor, float]:  # noqa: D102
        images, masks = (crops.to(self.device) for crops in self.crops.load(indices, self._seed))
        images, masks = self.model.backbone.preprocessing.normalize(images), masks.long()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            logits, *auxiliary = self.model.logits_with_auxiliary(images)
        auxiliary_loss = sum(self._loss(other, masks) for other in auxiliary)
        loss = self._loss(logits, masks) + self.config.auxiliary_weight * auxiliary_loss
        valid = masks != IGNORE_INDEX
        hits = ((logits.argmax(1) == masks) & valid).flatten(1).sum(1)
        return loss, float((hits / valid.flatten(1).sum(1).clamp(min=1)).sum())

    @property
    def has_val(self) -> bool:
        """True if there are validation images."""
        return "val" in self.dataset.splits

    def validate(self) -> tuple[float, dict[str, float]] | None:
        """Return the loss of the averaged probabilities, and the metrics at one scale and the original size."""
        if not self.has_val:
            return None
        self.model.eval()
        scores = score_split(self.model, self.dataset, "val", InferenceConfig())
        return scores.loss, scores.metrics

    def _loss(self, logits: Tensor, masks: Tensor) -> Tensor:
        total = logits.new_zeros((), dtype=torch.float32)
        if "ce" in self.config.loss.split("+"):
            total = total + cross_entropy(logits.float(), masks, self.weights)
        if "dice" in self.config.loss:
            total = total + dice_loss(logits.float(), masks)
        return total


def joint_augmentation(text: str) -> JointAugmentation:
    """Return the augmentation of a configuration.

    Args:
        text: Its text, such as "full + vertical_flip".

    Returns:
        The augmentation.
    """
    terms = parse_augmentation(text, "segmentation")
    crop_only = JointAugmentation(1.0, 1.0, terms.has("flip"), 0.0, 1.0)
    return replace(JointAugmentation() if terms.has("full") else crop_only, vertical_flip=terms.has("vertical_flip"))


def cross_entropy(logits: Tensor, masks: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the sum over images of each image's weighted mean cross-entropy.

    The mean is by image, not by batch, so that the micro-batches of a batch add up to the whole.

    Args:
        logits: Logits (batch, classes, height, width).
        masks: Classes or IGNORE_INDEX, int64 (batch, height, width).
        weights: Weight of each class. Default: 1.

    Returns:
        The sum, a scalar.
    """
    losses = F.cross_entropy(logits, masks, weights, ignore_index=IGNORE_INDEX, reduction="none").flatten(1).sum(1)
    valid = masks != IGNORE_INDEX
    weight = valid.float() if weights is None else weights[masks.where(valid, 0)] * valid
    return (losses / weight.flatten(1).sum(1).clamp(min=1e-6)).sum()


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the sum over images of 1 - the mean soft Dice of the classes in the image (Milletari et al., 2016).

    Args:
        logits: Logits (batch, classes, height, width).
        masks: Classes or IGNORE_INDEX, int64 (batch, height, width).

    Returns:
        The sum, a scalar.
    """
    valid = (masks != IGNORE_INDEX).unsqueeze(1)
    probabilities = logits.softmax(1) * valid
    one_hot = F.one_hot(masks.where(masks != IGNORE_INDEX, 0), logits.shape[1]).permute(0, 3, 1, 2) * valid
    intersection, cardinality = (probabilities * one_hot).flatten(2).sum(2), (probabilities + one_hot).flatten(2).sum(2)
    present = one_hot.flatten(2).any(2)
    dice = (2 * intersection + 1) / (cardinality + 1) * present
    return (present.any(1).float() - dice.sum(1) / present.sum(1).clamp(min=1)).sum()


def median_frequency_weights(pixel_counts: NDArray[np.int64]) -> Tensor:
    """Return class weights: median frequency over own frequency (Eigen and Fergus, 2015), 0 for an absent class.

    The frequency of a class is its share of the labeled pixels of the images in which it occurs.

    Args:
        pixel_counts: Number of pixels of each class in each image (images, classes).

    Returns:
        Weights, float32 (classes,).
    """
    pixels = pixel_counts.sum(0)
    of_images = ((pixel_counts > 0) * pixel_counts.sum(1, keepdims=True)).sum(0)
    present = pixels > 0
    frequencies = pixels / of_images.clip(min=1)
    weights = np.divide(np.median(frequencies[present]), frequencies, out=np.zeros(len(frequencies)), where=present)
    return torch.from_numpy(weights).float()
