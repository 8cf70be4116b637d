"""One image as the input of a model, and the most likely class."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vpt.data.dataset import Split
from vpt.data.decoding.arrays import decode
from vpt.data.images.inputs import ImageInput
from vpt.errors import DataError, UnsupportedError
from vpt.model.tuned_model import TunedModel


def read_input(model: TunedModel, image: ImageInput) -> tuple[NDArray[np.uint8], Tensor]:
    """Read an image as a model does.

    Args:
        model: The model, whose most likely class is to be explained.
        image: An image in any form that `vpt.data.images.inputs.read_image` takes.

    Returns:
        The pixels, uint8 (size, size, 3), and the normalized input (1, 3, size, size) on the device of the model.

    Raises:
        UnsupportedError: The model segments or predicts a number.
        DataError: The image is a folder or cannot be read.
    """
    model.require_classifier("explain")
    if model.label_kind.name == "regression":
        raise UnsupportedError("explain names the most likely class, and the model predicts a number")
    if isinstance(image, str | Path) and Path(image).is_dir():
        raise DataError(f"{image} is a folder; pass one image; for a folder use `vpt explain`")
    preprocessing = model.backbone.preprocessing
    pixels = decode(Split((image,), np.zeros(1, dtype=np.int64)), preprocessing).images
    device = next(model.parameters()).device
    return pixels[0].transpose(1, 2, 0), preprocessing.normalize(torch.from_numpy(pixels).to(device))


def most_likely(model: TunedModel, logits: Tensor) -> tuple[int, str, float]:
    """Return the most likely class.

    Args:
        model: The model.
        logits: Its outputs for one image, (classes,).

    Returns:
        Index and name of the class, and its probability.
    """
    probabilities = model.label_kind.activate(logits.float())
    best = int(probabilities.argmax())
    return best, model.classes[best] if model.classes else str(best), float(probabilities[best])
