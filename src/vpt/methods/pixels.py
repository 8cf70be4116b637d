"""Prompts in pixel space: a frame around the image, extra channels, extra patches (paper, section 4.3, "location")."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vpt.data.preprocessing import Preprocessing
from vpt.methods.references import refer


def _random_pixels(preprocessing: Preprocessing, *shape: int) -> nn.Parameter:
    """uniform(0, 1), normalized as an image is; shape (n, channels, height, width), given without the channels."""
    number, *size = shape
    mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (preprocessing.mean, preprocessing.std))
    return nn.Parameter((torch.rand(number, preprocessing.channels, *size) - mean) / std)


class FramePrompt(nn.Module):
    """Learned pixels around the image: (batch, 3, s, s) -> features of the framed image.

    grow_input: the input grows to s + 2p, as a ConvNet may; else the image is shrunk to s - 2p (bilinear) and the input
    keeps its size, as positions or windows need it.
    """

    def __init__(self, network: nn.Module, width: int, preprocessing: Preprocessing, *, grow_input: bool) -> None:
        super().__init__()
        self.network = network
        self.inner_size: int = preprocessing.size if grow_input else preprocessing.size - 2 * width
        self.rows: nn.Parameter = _random_pixels(preprocessing, 2, width, self.inner_size + 2 * width)
        self.columns: nn.Parameter = _random_pixels(preprocessing, 2, self.inner_size, width)

    def forward(self, images: Tensor) -> Tensor:
        """Return the features of images (batch, 3, s, s), each inside the learned frame."""
        if images.shape[-1] != self.inner_size:
            scaled = F.interpolate(
                images.float(), self.inner_size, mode="bilinear", antialias=True
            )  # CPUs have no bf16
            images = scaled.to(images.dtype)
        top, bottom = self.rows.to(images.dtype).unsqueeze(1).expand(-1, images.shape[0], -1, -1, -1)
        left, right = self.columns.to(images.dtype).unsqueeze(1).expand(-1, images.shape[0], -1, -1, -1)
        middle = torch.cat([left, images, right], dim=3)
        return self.network(torch.cat([top, middle, bottom], dim=2))  # type: ignore[no-any-return]


class ConcatChannel(nn.Module):
    """p further channels beside red, green and blue. Replacement of the patch projection.

    The projection's new weights meet the prompts alone, and those are the same for every image: what they give is
    computed once per batch and added. Equal to one convolution over 3 + p channels.
    """

    def __init__(self, projection: Any, channels: int, image_size: int, init_range: float) -> None:
        super().__init__()
        self.projection = projection
        outputs, _, *patch = self.projection.weight.shape
        pixels = torch.empty(channels, image_size, image_size).uniform_(-init_range, init_range)
        self.channels: nn.Parameter = nn.Parameter(pixels)
        weight = torch.empty(outputs, channels, *patch).uniform_(-init_range, init_range)
        self.further: nn.Parameter = nn.Parameter(weight)

    def forward(self, images: Tensor) -> Tensor:
        """Return the patches of images (batch, 3, s, s) with the learned channels: (batch, d, rows, columns)."""
        extra = F.conv2d(self.channels[None], self.further, stride=self.projection.stride)
        patches = self.projection(images)
        return patches + extra.to(patches.dtype)  # type: ignore[no-any-return]


class PixelPatches(nn.Module):
    """p further patches in pixel space, made into tokens (p, d) by the backbone's own projection."""

    projection: Any

    def __init__(self, length: int, init_range: float, projection: Any) -> None:
        super().__init__()
        pixels = torch.empty(length, *projection.weight.shape[1:]).uniform_(-init_range, init_range)
        self.patches: nn.Parameter = nn.Parameter(pixels)
        refer(self, projection=projection)

    def forward(self, batch: int) -> Tensor:
        """Return the tokens (p, d) of the learned patches, the same for a batch of any size."""
        patches = self.patches.to(self.projection.weight.dtype)
        return self.projection(patches).flatten(1)  # type: ignore[no-any-return]
