"""Inference at the original size: scales, flips, and a sliding window over larger images."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from vpt.data.masks.augmentation import resize_tensor
from vpt.errors import DataError, SpecError
from vpt.heads.dense import upsample
from vpt.model.label_kinds import require_finite
from vpt.model.tuned_model import TunedModel


@dataclass(frozen=True)
class InferenceConfig:
    """Options of inference.

    Attributes:
        scales: Lengths of the short side that are averaged, as multiples of the model's input size.
        flip: True averages with the mirrored image.
        overlap: Overlap of neighboring windows, as a fraction of their side.
        batch_size: Windows per forward pass.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    overlap: float = 1 / 3
    batch_size: int = 8

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            SpecError: A value is out of range.
        """
        if not self.scales or not all(0 < scale < math.inf for scale in self.scales):
            raise SpecError(f"scales are {self.scales}; give one or more numbers above 0")
        if not 0 <= self.overlap < 1:
            raise SpecError(f"overlap is {self.overlap}; it must be at least 0 and below 1")


_MAX_PROBABILITIES = 2**25  # probabilities at once: 128 MB
_MAX_ASPECT_RATIO = 16  # the short side is scaled to the input size, so a long strip would become very large


def refuse_strip(size: tuple[int, int]) -> None:
    """Refuse an image that is too long and narrow to be segmented.

    Args:
        size: Width and height in pixels.

    Raises:
        DataError: The long side is more than 16 times the short side.
    """
    if max(size) > _MAX_ASPECT_RATIO * min(size):
        raise DataError(
            f"the image is {size[0]} x {size[1]} px; for segmentation, the long side must be at most "
            f"{_MAX_ASPECT_RATIO} times the short side; crop it"
        )


@torch.inference_mode()
def predict_rows(model: TunedModel, image: Tensor, inference: InferenceConfig) -> Iterator[tuple[slice, Tensor]]:
    """Predict an image, some rows at a time, averaged over scales and flips.

    The memory does not grow with the image, except for the logits at the size that the model sees.

    Args:
        model: The model.
        image: The image, uint8 (3, height, width).
        inference: Options of inference.

    Yields:
        A slice of rows, and their probabilities (classes, rows, width).
    """
    preprocessing, device = model.backbone.preprocessing, next(model.parameters()).device
    height, width = size = image.shape[-2:]
    logit_maps = []
    for scale in inference.scales:
        ratio = preprocessing.size * scale / min(size)
        pixels = resize_tensor(image.to(device), [max(1, round(side * ratio)) for side in size])
        inputs = preprocessing.normalize(pixels[None])
        logit_maps.append(sliding_window_logits(model, inputs, inference))
        if inference.flip:
            logit_maps.append(sliding_window_logits(model, inputs.flip(-1), inference).flip(-1))
    step = max(1, _MAX_PROBABILITIES // (model.num_classes * width))
    for top in range(0, height, step):
        rows = range(top, min(top + step, height))
        row_probabilities = (_upsample_rows(map_logits, size, rows).softmax(1)[0] for map_logits in logit_maps)
        yield slice(rows.start, rows.stop), sum(row_probabilities, torch.zeros(())) / len(logit_maps)


def predict_classes(model: TunedModel, image: Tensor, inference: InferenceConfig) -> Tensor:
    """Predict the class of each pixel.

    Args:
        model: The model.
        image: The image, uint8 (3, height, width).
        inference: Options of inference.

    Returns:
        Classes, int64 (height, width) on the CPU.
    """
    return torch.cat([probabilities.argmax(0).cpu() for _, probabilities in predict_rows(model, image, inference)])


def _upsample_rows(logits: Tensor, size: Sequence[int], rows: range) -> Tensor:
    """Return some rows of `upsample(logits, size)`, (1, classes, rows, width), to rounding."""
    height, width = size
    if len(rows) == height:
        return upsample(logits, size)
    last = logits.shape[-2] - 1
    source_rows = torch.arange(rows.start, rows.stop, device=logits.device)
    source_rows = ((source_rows + 0.5) * (logits.shape[-2] / height) - 0.5).clamp(0, last)
    above = source_rows.floor().long()
    below = (above + 1).clamp(max=last)
    between = logits[..., above, :].lerp(logits[..., below, :], (source_rows - above).to(logits.dtype).unsqueeze(1))
    return upsample(between, (len(rows), width))


def sliding_window_logits(model: TunedModel, image: Tensor, inference: InferenceConfig) -> Tensor:
    """Compute logits with a sliding window, averaged where windows overlap.

    An image that is smaller than a window is padded with the mean color, 0.

    Args:
        model: The model.
        image: A normalized image, (1, 3, height, width).
        inference: Options of inference.

    Returns:
        Logits (1, classes, height, width).
    """
    side = model.backbone.preprocessing.size
    height, width = image.shape[-2:]
    image = F.pad(image, (0, max(0, side - width), 0, max(0, side - height)))
    tops, lefts = (window_starts(length, side, inference.overlap) for length in image.shape[-2:])
    windows = [(..., slice(top, top + side), slice(left, left + side)) for top, left in product(tops, lefts)]
    total = image.new_zeros(1, model.num_classes, *image.shape[-2:])
    count = image.new_zeros(1, 1, *image.shape[-2:])
    for first in range(0, len(windows), inference.batch_size):
        batch = windows[first : first + inference.batch_size]
        logits = model(torch.cat([image[window] for window in batch]))
        for window, window_logits in zip(batch, logits, strict=True):
            total[window] += window_logits
            count[window] += 1
    return require_finite((total / count)[..., :height, :width])


def window_starts(length: int, side: int, overlap: float) -> list[int]:
    """Return the evenly spread positions of windows along one axis.

    Args:
        length: Length of the axis in pixels.
        side: Side of a window in pixels.
        overlap: Minimal overlap of neighboring windows, as a fraction of their side.

    Returns:
        The first pixel of each window.
    """
    if length <= side:
        return [0]
    steps = math.ceil((length - side) / max(1, side * (1 - overlap)))
    return [round(i * (length - side) / steps) for i in range(steps + 1)]
