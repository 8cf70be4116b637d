"""Heads for dense prediction: SETR-PUP, a linear layer per token, and a light feature pyramid.

A head's text, such as `setr_pup(auxiliary=3)`, is read like a method's and kept in the tuned file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from vpt.core import spec
from vpt.errors import SpecError
from vpt.heads.feature_maps import Maps

# Where auxiliary heads listen, as shares of the depth: after blocks 10, 15 and 20 of ViT-L's 24, as SETR does.
_DEPTHS = (10 / 24, 15 / 24, 20 / 24)


class Decoder(nn.Module, ABC):
    """Maps -> logits at a resolution of its own; who calls it enlarges them to the image."""

    @abstractmethod
    def forward(self, maps: Maps) -> Tensor:
        """Maps (batch, d_k, h_k, w_k) -> logits (batch, classes, h, w)."""

    def every(self, maps: Maps) -> tuple[Tensor, ...]:
        """The same, followed by the logits of auxiliary heads, which only training reads."""
        return (self(maps),)

    def auxiliary_heads(self) -> nn.ModuleList:
        """Those heads."""
        return nn.ModuleList()


@dataclass(frozen=True)
class DenseHead(ABC):
    """Base of all dense heads: a frozen dataclass of hyper-parameters. depths: what `maps_of` is to tap, as shares."""

    name: ClassVar[str]
    pyramid: ClassVar[bool] = False  # whether it needs maps of several resolutions

    @property
    def depths(self) -> tuple[float, ...]:
        """Depths, between 0 and 1, of the blocks that auxiliary heads read."""
        return ()

    @abstractmethod
    def build(self, channels: Sequence[int], num_classes: int) -> Decoder:
        """The head for maps of these channels, last the deepest."""

    def kept(self) -> DenseHead:
        """What a tuned file keeps of it: itself without auxiliary heads."""
        return self

    def spec(self, *, full: bool = False) -> str:
        """The text of this head; with `full`, every field is written out."""
        return spec.show(self, self.name, full=full)

    def __str__(self) -> str:
        return self.spec()


@dataclass(frozen=True)
class LinearHead(DenseHead):
    """One linear layer on every token of the last map."""

    name: ClassVar[str] = "linear"

    def build(self, channels: Sequence[int], num_classes: int) -> Decoder:
        return _PerToken(channels[-1], num_classes)


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
        if not 0 <= self.auxiliary <= len(_DEPTHS):
            raise SpecError(f"auxiliary is {self.auxiliary}; there can be 0 to {len(_DEPTHS)} auxiliary heads")
        _check(self.channels, self.dropout)

    @property
    def depths(self) -> tuple[float, ...]:
        return _DEPTHS[len(_DEPTHS) - self.auxiliary :]

    def build(self, channels: Sequence[int], num_classes: int) -> Decoder:
        return _Progressive(channels, self.channels, num_classes, self.auxiliary, self.dropout)

    def kept(self) -> SetrPup:
        return replace(self, auxiliary=0)


@dataclass(frozen=True)
class FPN(DenseHead):
    """A light feature pyramid (Kirillov et al., Panoptic Feature Pyramid Networks, CVPR 2019), for backbones of stages.

    Every map is brought to one width, the deeper added to the finer, and one 3x3 convolution reads the finest.
    """

    name: ClassVar[str] = "fpn"
    pyramid: ClassVar[bool] = True

    channels: int = 128
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _check(self.channels, self.dropout)

    def build(self, channels: Sequence[int], num_classes: int) -> Decoder:
        return _TopDown(channels, self.channels, num_classes, self.dropout)


HEADS: Mapping[str, type[DenseHead]] = {kind.name: kind for kind in (SetrPup, LinearHead, FPN)}


def parse_head(head: str | DenseHead) -> DenseHead:
    """A head from its text, such as `setr_pup(channels=128)`; an object is passed on. Raises SpecError."""
    return spec.parse(head, HEADS) if isinstance(head, str) else head


def enlarged(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Logits (batch, classes, h, w) -> (batch, classes, *size), bilinear."""
    return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)


def _check(channels: int, dropout: float) -> None:
    if channels < 1:
        raise SpecError(f"channels is {channels}; it must be at least 1")
    if not 0 <= dropout < 1:
        raise SpecError(f"dropout is {dropout}; it must be at least 0 and below 1")


def _scores(width: int, num_classes: int) -> nn.Conv2d:
    layer = nn.Conv2d(width, num_classes, 1)
    nn.init.normal_(layer.weight, std=0.01)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


class _ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of a map."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _stage(inner: int, outer: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inner, outer, 3, padding=1, bias=False), nn.BatchNorm2d(outer), nn.ReLU())


class _PerToken(Decoder):
    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.scores = _scores(width, num_classes)

    def forward(self, maps: Maps) -> Tensor:
        return self.scores(maps[-1])  # type: ignore[no-any-return]


class _Upsampled(nn.Module):
    """Norm, stages with an enlargement between each two, scores.

    The enlargement behind the last stage is left to the caller: it commutes exactly with the scores, which are
    linear at each pixel, and is far cheaper on them.
    """

    def __init__(self, width: int, channels: int, num_classes: int, stages: int, factor: int, dropout: float) -> None:
        super().__init__()
        self.norm = _ChannelNorm(width)
        self.stages = nn.ModuleList(_stage(width if i == 0 else channels, channels) for i in range(stages))
        self.dropout = nn.Dropout2d(dropout)
        self.scores = _scores(channels, num_classes)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        for index, stage in enumerate(self.stages):
            if index:
                x = enlarged(x, [side * self.factor for side in x.shape[-2:]])
            x = stage(x)
        return self.scores(self.dropout(x))  # type: ignore[no-any-return]


class _Progressive(Decoder):
    def __init__(self, widths: Sequence[int], channels: int, num_classes: int, auxiliary: int, dropout: float) -> None:
        super().__init__()
        self.main = _Upsampled(widths[-1], channels, num_classes, stages=4, factor=2, dropout=dropout)
        taps = widths[len(widths) - 1 - auxiliary : -1]
        self.auxiliary = nn.ModuleList(
            _Upsampled(width, channels, num_classes, stages=2, factor=4, dropout=dropout) for width in taps
        )

    def forward(self, maps: Maps) -> Tensor:
        return self.main(maps[-1])  # type: ignore[no-any-return]

    def every(self, maps: Maps) -> tuple[Tensor, ...]:
        taps = maps[len(maps) - 1 - len(self.auxiliary) : -1]
        return (self(maps), *(head(map_) for head, map_ in zip(self.auxiliary, taps, strict=True)))

    def auxiliary_heads(self) -> nn.ModuleList:
        return self.auxiliary


class _TopDown(Decoder):
    def __init__(self, widths: Sequence[int], channels: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(
            nn.Sequential(_ChannelNorm(width), nn.Conv2d(width, channels, 1)) for width in widths
        )
        self.fuse = _stage(channels, channels)
        self.dropout = nn.Dropout2d(dropout)
        self.scores = _scores(channels, num_classes)

    def forward(self, maps: Maps) -> Tensor:
        *finer, x = (lateral(map_) for lateral, map_ in zip(self.lateral, maps, strict=True))
        for map_ in reversed(finer):
            x = map_ + enlarged(x, map_.shape[-2:])
        return self.scores(self.dropout(self.fuse(x)))  # type: ignore[no-any-return]
