"""Heads for dense prediction: SETR-PUP, a linear layer per token, and a light feature pyramid.

A head's text, such as `setr_pup(auxiliary=3)`, is read like a method's and kept in the tuned file.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d  # type: ignore[import-untyped]
from torchvision.ops import Conv2dNormActivation  # type: ignore[import-untyped]

from vpt.core import spec
from vpt.errors import SpecError
from vpt.heads.feature_maps import FeatureMaps

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)
# Inputs of auxiliary heads, as fractions of the depth: after blocks 10, 15 and 20 of ViT-L's 24, as SETR does.
_AUXILIARY_DEPTHS = (10 / 24, 15 / 24, 20 / 24)


class Decoder(nn.Module, ABC):
    """Maps -> logits at a resolution of its own, which the caller upsamples to that of the image."""

    @abstractmethod
    def forward(self, maps: FeatureMaps) -> Tensor:
        """Maps (batch, d_k, h_k, w_k) -> logits (batch, classes, h, w)."""

    def with_auxiliary(self, maps: FeatureMaps) -> tuple[Tensor, ...]:
        """Return the logits, followed by those of the auxiliary heads, each of a map before the last."""
        heads = self.auxiliary_heads()
        pairs = zip(heads, maps[-1 - len(heads) : -1], strict=True)
        return (self(maps), *(head(feature_map) for head, feature_map in pairs))

    def auxiliary_heads(self) -> nn.ModuleList:
        """The heads that only training reads."""
        return nn.ModuleList()


@dataclass(frozen=True)
class DenseHead(spec.Parsable, ABC):
    """Base of all dense heads: a frozen dataclass of hyper-parameters.

    Attributes:
        name: The name in a head's text.
        needs_pyramid: True if the head needs maps of several resolutions.
    """

    needs_pyramid: ClassVar[bool] = False

    @property
    def auxiliary_depths(self) -> tuple[float, ...]:
        """Depths, between 0 and 1, of the blocks that auxiliary heads read."""
        return ()

    @abstractmethod
    def build(self, channels: Sequence[int], num_classes: int) -> Decoder:
        """The head for maps of these channels, last the deepest."""

    def without_auxiliary(self) -> Self:
        """Return this head without auxiliary heads, as a tuned file keeps it."""
        return self


@dataclass(frozen=True)
class LinearHead(DenseHead):
    """One linear layer on every position of one map or several.

    levels: maps that it reads. With 1, the last one. With k, the last one and those of k - 1 blocks at even depths
    before, or of the last k stages: each normalized by position, enlarged to the finest, side by side.
    """

    name: ClassVar[str] = "linear"

    levels: int = spec.later_field(1)

    def __post_init__(self) -> None:
        if self.levels < 1:
            raise SpecError(f"levels is {self.levels}; it must be at least 1")

    @property
    def auxiliary_depths(self) -> tuple[float, ...]:
        """Depths, between 0 and 1, of the blocks that the layer reads before the last."""
        return tuple(level / self.levels for level in range(1, self.levels))

    def build(self, channels: Sequence[int], num_classes: int) -> Decoder:
        """Build a linear layer on the last maps."""
        if len(channels) < self.levels:
            raise SpecError(f"levels is {self.levels}, and the backbone has {len(channels)} maps; ask for fewer")
        return LinearDecoder(channels[-self.levels :], num_classes)


@dataclass(frozen=True)
class SetrPup(DenseHead):
    """Progressive upsampling (Zheng et al., SETR, CVPR 2021; paper, section 5, semantic segmentation).

    Four stages of 3x3 convolution, batch norm, ReLU and twofold bilinear enlargement, then one score per class.
    channels: of the stages. auxiliary: heads of two stages on earlier blocks, which only training reads: 0 to 3.
    dropout: of whole channels before the scores, in training.
    """

    name: ClassVar[str] = "setr_pup"

    channels: int = 256
    auxiliary: int = 0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        most = len(_AUXILIARY_DEPTHS)
        if not 0 <= self.auxiliary <= most:
            raise SpecError(f"auxiliary is {self.auxiliary}; there can be 0 to {most} auxiliary heads")
        _validate(self.channels, self.dropout)

    @property
    def auxiliary_depths(self) -> tuple[float, ...]:
        """Depths, between 0 and 1, of the blocks that auxiliary heads read."""
        return _AUXILIARY_DEPTHS[len(_AUXILIARY_DEPTHS) - self.auxiliary :]

    def build(self, channels: Sequence[int], num_classes: int) -> Decoder:
        """Build the upsampling decoder on the last map, and its auxiliary heads on the others."""
        return _PUPDecoder(channels, self.channels, num_classes, self.auxiliary, self.dropout)

    def without_auxiliary(self) -> Self:
        """Return this head without auxiliary heads."""
        return replace(self, auxiliary=0)


@dataclass(frozen=True)
class FPN(DenseHead):
    """A light feature pyramid (Kirillov et al., Panoptic Feature Pyramid Networks, CVPR 2019), for backbones of stages.

    Every map is brought to one width, the deeper added to the finer, and one 3x3 convolution reads the finest.
    """

    name: ClassVar[str] = "fpn"
    needs_pyramid: ClassVar[bool] = True

    channels: int = 128
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _validate(self.channels, self.dropout)

    def build(self, channels: Sequence[int], num_classes: int) -> Decoder:
        """Build the feature pyramid on all maps."""
        return _FPNDecoder(channels, self.channels, num_classes, self.dropout)


HEADS: Mapping[str, type[DenseHead]] = {kind.name: kind for kind in (SetrPup, LinearHead, FPN)}


def upsample(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Logits (batch, classes, h, w) -> (batch, classes, *size), bilinear."""
    return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)


def _validate(channels: int, dropout: float) -> None:
    if channels < 1:
        raise SpecError(f"channels is {channels}; it must be at least 1")
    if not 0 <= dropout < 1:
        raise SpecError(f"dropout is {dropout}; it must be at least 0 and below 1")


def init_classifier(layer: Layer) -> Layer:
    """Give the last layer of a head small random weights and zero biases, and return it."""
    nn.init.normal_(layer.weight, std=0.01)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


class LinearDecoder(Decoder):
    """One linear layer on every position of the last maps.

    Args:
        channels: Channels of each map that it reads.
        num_classes: Number of classes.
    """

    def __init__(self, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.levels: int = len(channels)
        self.scores: nn.Conv2d = init_classifier(nn.Conv2d(sum(channels), num_classes, 1))

    def inputs(self, maps: FeatureMaps) -> Tensor:
        """Return what the layer reads.

        Args:
            maps: Maps (batch, d_k, h_k, w_k).

        Returns:
            The last map, or several side by side, (batch, sum of d_k, h, w).
        """
        if self.levels == 1:
            return maps[-1]
        read = maps[-self.levels :]
        size = (max(feature_map.shape[-2] for feature_map in read), max(feature_map.shape[-1] for feature_map in read))
        normalized = (_normalize(feature_map) for feature_map in read)
        return torch.cat([one if one.shape[-2:] == size else upsample(one, size) for one in normalized], 1)

    def forward(self, maps: FeatureMaps) -> Tensor:
        """Maps (batch, d_k, h_k, w_k) -> logits (batch, classes, h, w)."""
        return self.scores(self.inputs(maps))  # type: ignore[no-any-return]


def _normalize(feature_map: Tensor) -> Tensor:
    """Return a map with mean 0 and variance 1 at each position, so that maps of all depths have one scale."""
    return F.layer_norm(feature_map.permute(0, 2, 3, 1), feature_map.shape[1:2]).permute(0, 3, 1, 2)


class _UpsamplingHead(nn.Module):
    """Norm, stages with an enlargement between each two, scores.

    The enlargement behind the last stage is left to the caller: it commutes exactly with the scores, which are
    linear at each pixel, and is far cheaper on them.
    """

    def __init__(self, width: int, channels: int, num_classes: int, stages: int, factor: int, dropout: float) -> None:
        super().__init__()
        self.norm = LayerNorm2d(width, eps=1e-6)  # as SETR's
        self.stages = nn.ModuleList(Conv2dNormActivation(channels if i else width, channels) for i in range(stages))
        self.dropout = nn.Dropout2d(dropout)
        self.scores = init_classifier(nn.Conv2d(channels, num_classes, 1))
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        for index, stage in enumerate(self.stages):
            if index:
                x = upsample(x, [side * self.factor for side in x.shape[-2:]])
            x = stage(x)
        return self.scores(self.dropout(x))  # type: ignore[no-any-return]


class _PUPDecoder(Decoder):
    def __init__(self, widths: Sequence[int], channels: int, num_classes: int, auxiliary: int, dropout: float) -> None:
        super().__init__()
        self.main = _UpsamplingHead(widths[-1], channels, num_classes, stages=4, factor=2, dropout=dropout)
        self.auxiliary = nn.ModuleList(
            _UpsamplingHead(width, channels, num_classes, stages=2, factor=4, dropout=dropout)
            for width in widths[-1 - auxiliary : -1]
        )

    def forward(self, maps: FeatureMaps) -> Tensor:
        return self.main(maps[-1])  # type: ignore[no-any-return]

    def auxiliary_heads(self) -> nn.ModuleList:
        return self.auxiliary


class _FPNDecoder(Decoder):
    def __init__(self, widths: Sequence[int], channels: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        laterals = (nn.Sequential(LayerNorm2d(width), nn.Conv2d(width, channels, 1)) for width in widths)
        self.lateral = nn.ModuleList(laterals)
        self.fuse = Conv2dNormActivation(channels, channels)
        self.dropout = nn.Dropout2d(dropout)
        self.scores = init_classifier(nn.Conv2d(channels, num_classes, 1))

    def forward(self, maps: FeatureMaps) -> Tensor:
        *finer, x = (lateral(feature_map) for lateral, feature_map in zip(self.lateral, maps, strict=True))
        for feature_map in reversed(finer):
            x = feature_map + upsample(x, feature_map.shape[-2:])
        return self.scores(self.dropout(self.fuse(x)))  # type: ignore[no-any-return]
