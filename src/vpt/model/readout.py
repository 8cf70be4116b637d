"""Readouts: the outputs of a backbone that the head of a tuned model reads.

`Pooled` reads the pooled feature of an image, `MultiBlock` features of several blocks, and `Dense` the feature maps.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from vpt.attention.detection import probe_image
from vpt.backbones.layout import BackboneLayout
from vpt.core import spec
from vpt.errors import UnsupportedError
from vpt.heads.dense import HEADS, DenseHead, upsample
from vpt.heads.feature_maps import build_feature_maps
from vpt.heads.multi_block import MultiBlockFeatures, check_blocks, parse_features, select_blocks, units
from vpt.methods.base import NETWORK, Injection, Method
from vpt.model.readout_base import MakeHead as MakeHead
from vpt.model.readout_base import Readout as Readout
from vpt.model.readout_base import linear_head as linear_head


@dataclass(frozen=True)
class Pooled(Readout):
    """The pooled feature of an image, (batch, d), and a linear head unless the method has a head of its own.

    Args:
        init: "normal" draws the weights of a linear head small, with zero biases. "kaiming" follows the paper's code:
            every linear layer of a head is drawn by its number of outputs, and the last biases are -log(99), which is
            a probability of 0.01. Default: "normal".
    """

    name: ClassVar[str] = "linear"

    init: Literal["normal", "kaiming"] = "normal"

    def connect(self, trunk: nn.Module, layout: BackboneLayout, injection: Injection) -> tuple[nn.Module, MakeHead]:
        """Build the features, and the function that makes the method's head or a linear one."""
        network, make_head = super().connect(trunk, layout, injection)
        return network, make_head if self.init == "normal" else partial(_kaiming_head, make_head)

    def for_inference(self) -> Readout:
        """Return the default: trained weights begin nowhere."""
        return Pooled()

    def spec(self, *, full: bool = False) -> str | None:
        """Return the text of this readout for a task; None for the default."""
        return None if self == Pooled() else spec.format_spec(self, self.name, full=full)

    def adapt(self, trunk: nn.Module, layout: BackboneLayout) -> BackboneLayout:
        """Return the layout; raise UnsupportedError if the backbone does not pool an image to one vector."""
        if not layout.feature_width:
            advice = "make the timm model with its own pooling, global_pool"
            raise UnsupportedError(f"{type(trunk).__name__} gives no vector for an image, which a head reads; {advice}")
        return layout


@dataclass(frozen=True)
class Dense(Readout):
    """The feature maps of an image, and a dense head.

    Args:
        head: The dense head.
    """

    is_dense: ClassVar[bool] = True

    head: DenseHead

    def adapt(self, trunk: nn.Module, layout: BackboneLayout) -> BackboneLayout:
        """Return the layout without a class token that is read: a dense head reads every patch instead."""
        return replace(layout, reads_class_token=False, cls_only=False)  # every patch is read, the class token is not

    def check(self, method: Method, injection: Injection, layout: BackboneLayout) -> None:
        """Raise UnsupportedError if the method replaces what a dense head reads, or the head needs a pyramid."""
        conflicts = {
            "it has a head of its own, for one feature per image": injection.make_head is not None,
            "it pools the tokens to one feature; leave output at its default": injection.pool is not None,
            "it changes the image or the feature as a whole, and a dense head reads maps in place": (
                NETWORK in injection.wrappers
            ),
        }
        for reason, found in conflicts.items():
            if found:
                raise UnsupportedError(f"{method} does not go with the dense head {self.head}: {reason}")
        if self.head.needs_pyramid and layout.kind == "tokens":
            raise UnsupportedError(
                f"the head {self.head} needs maps of several resolutions, and a plain transformer has one: setr_pup"
            )

    def connect(self, trunk: nn.Module, layout: BackboneLayout, injection: Injection) -> tuple[nn.Module, MakeHead]:
        """Build the feature maps of the trunk, and the function that builds the decoder on them."""
        network = build_feature_maps(trunk, layout, self.head.auxiliary_depths)
        return network, partial(_build_decoder, self.head, tuple(channels for channels, _ in network.shapes))

    @torch.no_grad()
    def verify(self, method: Method, network: Any, trunk: nn.Module, layout: BackboneLayout) -> None:
        """Raise UnsupportedError if the maps of one image have other shapes than the decoder needs."""
        size = layout.preprocessing.size
        found = [tuple(feature_map.shape) for feature_map in network(probe_image(trunk, layout.preprocessing))]
        expected = [(1, channels, *(-(-size // stride),) * 2) for channels, stride in network.shapes]
        if found != expected:
            raise UnsupportedError(
                f"{method} gives maps of {found} at {size} px, and the dense head {self.head} needs {expected}; "
                "choose an image size that the strides divide, or another method"
            )

    def resize_logits(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        """Return the logits (batch, classes, h, w) enlarged to the size of the images, bilinear."""
        return upsample(logits, size)

    def for_inference(self) -> Readout:
        """Return this readout without auxiliary heads."""
        return Dense(self.head.without_auxiliary())

    def spec(self, *, full: bool = False) -> str:
        """Return the text of the dense head; with `full`, every field is written out."""
        return self.head.spec(full=full)


@dataclass(frozen=True)
class MultiBlock(spec.Parsable, Readout):
    """The features of several blocks side by side, and a linear head unless the method has a head of its own.

    Args:
        blocks: The blocks of a plain transformer, or the stages of Swin and ConvNets: "all", "last4", or numbers
            from 1 such as "3+6+9-12". Default: "last4".
        features: "cls", "mean" and "std" (class token, mean and standard deviation over the patches), joined by +.
            Default: "cls+mean".
        pooled: True reads the pooled feature, too, which the default head reads alone. Default: False.
    """

    name: ClassVar[str] = "multi_block"

    blocks: str = "last4"
    features: str = "cls+mean"
    pooled: bool = spec.later_field(False)

    def __post_init__(self) -> None:
        check_blocks(self.blocks)
        object.__setattr__(self, "features", "+".join(parse_features(self.features)))  # the dataclass is frozen

    def adapt(self, trunk: nn.Module, layout: BackboneLayout) -> BackboneLayout:
        """Return the layout with the width of the joined features; raise UnsupportedError if one is missing."""
        features = parse_features(self.features)
        if "cls" in features and not layout.has_class_token:
            raise UnsupportedError(
                f"{self} reads the class token, and {type(trunk).__name__} has none; write features=mean"
            )
        widths = list(units(trunk, layout).values())
        width = len(features) * sum(widths[index] for index in select_blocks(self.blocks, len(widths)))
        layout = replace(layout, feature_width=width + self.pooled * layout.feature_width)
        return layout if features == ("cls",) else replace(layout, reads_class_token=False, cls_only=False)

    def check(self, method: Method, injection: Injection, layout: BackboneLayout) -> None:
        """Raise UnsupportedError if the method pools the tokens itself."""
        if injection.pool is not None:
            raise UnsupportedError(
                f"{method} does not go with the head {self}: both choose what the head reads of the tokens; leave "
                "output at its default"
            )

    def connect(self, trunk: nn.Module, layout: BackboneLayout, injection: Injection) -> tuple[nn.Module, MakeHead]:
        """Build the features of the blocks, and the method's head or a linear one."""
        indices = select_blocks(self.blocks, len(units(trunk, layout)))
        network = MultiBlockFeatures(trunk, layout, indices, parse_features(self.features), pooled=self.pooled)
        return network, injection.make_head or linear_head

    @torch.no_grad()
    def verify(self, method: Method, network: nn.Module, trunk: nn.Module, layout: BackboneLayout) -> None:
        """Raise UnsupportedError if a stage puts out no map, or prompts are joined to the last map of windows."""
        if layout.kind == "tokens":
            return
        if layout.kind != "windows":
            network(probe_image(trunk, layout.preprocessing))  # which refuses other outputs
            return
        shapes: list[tuple[int, ...]] = []
        last_block = trunk.get_submodule(layout.blocks[-1])
        with last_block.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape))):
            network(probe_image(trunk, layout.preprocessing))
        if shapes[0][1] != shapes[0][2]:  # pool_prompts joins prompts and grid to one row
            raise UnsupportedError(f"{method} does not go with the head {self}: it adds prompts to the last map")


def parse_readout(head: str | DenseHead | Readout | None) -> Readout:
    """Return the readout of a head.

    Args:
        head: A readout, a dense head, or the text of one, such as `setr_pup(channels=128)` or
            `multi_block(blocks=last4)`; None is `Pooled()`.

    Returns:
        The readout.

    Raises:
        SpecError: The text cannot be read.
    """
    if head is None:
        return Pooled()
    if isinstance(head, Readout):
        return head
    found = spec.parse(head, _READOUTS) if isinstance(head, str) else head
    return found if isinstance(found, Readout) else Dense(found)


_READOUTS: Mapping[str, type[DenseHead] | type[MultiBlock]] = {**HEADS, MultiBlock.name: MultiBlock}


def _kaiming_head(make_head: MakeHead, width: int, num_classes: int) -> nn.Module:
    head = make_head(width, num_classes)
    *_, last = layers = [layer for layer in head.modules() if isinstance(layer, nn.Linear)]
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, mode="fan_out")
    nn.init.constant_(last.bias, -math.log(99))
    return head


def _build_decoder(head: DenseHead, channels: Sequence[int], _: int, num_classes: int) -> nn.Module:
    return head.build(channels, num_classes)
