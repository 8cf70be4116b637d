"""Prompts in pixel space: a frame around the image, extra channels, extra patches (paper, section 4.3, "location")."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vpt.data.preprocessing import Preprocessing


def _pixels(image: Preprocessing, *shape: int) -> nn.Parameter:
    """uniform(0, 1), normalised as an image is; shape (..., 3, height, width)."""
    mean = torch.tensor(image.mean).view(3, 1, 1)
    std = torch.tensor(image.std).view(3, 1, 1)
    return nn.Parameter((torch.rand(*shape) - mean) / std)


class Frame(nn.Module):
    """Learned pixels around the image: (batch, 3, s, s) -> features of the framed image.

    grow: the input grows to s + 2p, as a ConvNet may; else the image is shrunk to s - 2p (bilinear) and the input
    keeps its size, as positions or windows need it.
    """

    def __init__(self, network: nn.Module, width: int, image: Preprocessing, *, grow: bool) -> None:
        super().__init__()
        self.network = network
        self.inner = image.size if grow else image.size - 2 * width
        self.rows = _pixels(image, 2, 3, width, self.inner + 2 * width)
        self.columns = _pixels(image, 2, 3, self.inner, width)

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-1] != self.inner:
            images = F.interpolate(images, self.inner, mode="bilinear", antialias=True)
        top, bottom = self.rows.to(images.dtype).unsqueeze(1).expand(-1, len(images), -1, -1, -1)
        left, right = self.columns.to(images.dtype).unsqueeze(1).expand(-1, len(images), -1, -1, -1)
        middle = torch.cat([left, images, right], dim=3)
        return self.network(torch.cat([top, middle, bottom], dim=2))  # type: ignore[no-any-return]


class ConcatChannel(nn.Module):
    """p further channels beside red, green and blue. Stands where the patch projection stood.

    The projection's new weights meet the prompts alone, and those are the same for every image: what they give is
    computed once per batch and added. Equal to one convolution over 3 + p channels.
    """

    def __init__(self, projection: Any, channels: int, size: int, bound: float) -> None:
        super().__init__()
        self.projection = projection
        outputs, _, *patch = self.projection.weight.shape
        self.channels = nn.Parameter(torch.empty(channels, size, size).uniform_(-bound, bound))
        self.further = nn.Parameter(torch.empty(outputs, channels, *patch))
        nn.init.xavier_uniform_(self.further.flatten(1))

    def forward(self, images: Tensor) -> Tensor:
        extra = F.conv2d(self.channels[None], self.further, stride=self.projection.stride)
        return self.projection(images) + extra  # type: ignore[no-any-return]


class PixelPatches(nn.Module):
    """p further patches in pixel space, made into tokens (p, d) by the backbone's own projection."""

    def __init__(self, length: int, patch: int, image: Preprocessing, projection: nn.Module) -> None:
        super().__init__()
        self.patches = _pixels(image, length, 3, patch, patch)
        self.projection = projection

    def forward(self, batch: int) -> Tensor:
        return self.projection(self.patches).flatten(1)  # type: ignore[no-any-return]
