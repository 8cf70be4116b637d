"""Features of several blocks: class token, mean and standard deviation of the patches."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vpt.attention.detection import compute_dtype
from vpt.backbones.layout import BackboneLayout
from vpt.core.text import did_you_mean
from vpt.errors import SpecError, UnsupportedError
from vpt.heads.feature_maps import FeatureHook, feature_stages

FEATURES = ("cls", "mean", "std")
_LAST = re.compile(r"last(\d+)")
_BLOCKS = re.compile(r"\d+(-\d+)?(\+\d+(-\d+)?)*")


class MultiBlockFeatures(nn.Module):
    """Features of several blocks, side by side.

    In a plain transformer the final norm is applied to the tokens of every block, as in DINOv2's linear evaluation
    (Oquab et al., 2024). In Swin and ConvNets the units are stages: their maps are read as they are, the last one after
    the final norm where timm's `forward_features` applies one. Prompts are not read.

    Args:
        trunk: The trunk.
        layout: Its layout.
        indices: Indices of the blocks or stages, from 0.
        features: Names of the features, of `FEATURES`.
    """

    def __init__(
        self, trunk: nn.Module, layout: BackboneLayout, indices: Sequence[int], features: Sequence[str]
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.features: tuple[str, ...] = tuple(features)
        self.kind: str = layout.kind
        self.num_patches: int = layout.num_tokens - layout.num_prefix_tokens
        paths = unit_paths(trunk, layout)
        self.hooks: list[FeatureHook] = [
            FeatureHook(trunk.get_submodule(paths[index])) for index in indices if index < len(paths) - 1
        ]
        self.reads_last: bool = len(paths) - 1 in indices

    def forward(self, images: Tensor) -> Tensor:
        """Return the features of images.

        Args:
            images: Normalized images (batch, 3, height, width).

        Returns:
            Features (batch, sum of the widths): block after block, and of a block in the order of `features`.
        """
        trunk: Any = self.trunk
        final = trunk.forward_features(images.to(compute_dtype(trunk)))
        outputs = [hook.pop() for hook in self.hooks]
        if self.kind == "tokens":
            outputs = [trunk.norm(tokens) for tokens in outputs]
        outputs += [final] * self.reads_last
        if self.kind == "tokens" and getattr(trunk, "fc_norm", None) is not None:
            outputs = [trunk.fc_norm(tokens) for tokens in outputs]  # the final norm of models that average patches
        return torch.cat([feature for output in outputs for feature in self._pool(output)], dim=1)

    def _pool(self, x: Tensor) -> list[Tensor]:
        if self.kind == "tokens":
            cls, patches = x[:, 0], x[:, -self.num_patches :]
        else:
            cls, patches = x, x.flatten(1, 2) if self.kind == "windows" else x.flatten(2).transpose(1, 2)
        pools = {
            "cls": lambda: cls,
            "mean": lambda: patches.mean(1),
            "std": lambda: patches.var(1, correction=0).clamp_min(1e-12).sqrt(),  # a gradient where all are equal
        }
        return [pools[name]() for name in self.features]


def unit_paths(trunk: nn.Module, layout: BackboneLayout) -> tuple[str, ...]:
    """Return the paths of the blocks of a plain transformer, or of the stages of Swin and ConvNets.

    Args:
        trunk: The trunk.
        layout: Its layout.

    Returns:
        The paths, first to last.

    Raises:
        UnsupportedError: The backbone has neither known blocks nor stages.
    """
    if layout.kind == "tokens":
        return layout.blocks
    return tuple(str(stage["module"]) for stage in feature_stages(trunk))


def unit_widths(trunk: nn.Module, layout: BackboneLayout) -> tuple[int, ...]:
    """Return the channels of each block or stage of `unit_paths`.

    Args:
        trunk: The trunk.
        layout: Its layout.

    Returns:
        The channels, first to last.
    """
    if layout.kind == "tokens":
        return (layout.width,) * len(layout.blocks)
    return tuple(int(stage["num_chs"]) for stage in feature_stages(trunk))


def parse_features(text: str) -> tuple[str, ...]:
    """Return the names of features.

    Args:
        text: Names joined by +, such as "cls+mean".

    Returns:
        The names in the order of `FEATURES`.

    Raises:
        SpecError: A name is unknown or given twice.
    """
    names = text.split("+")
    for name in names:
        if name not in FEATURES:
            raise SpecError(f"features is {text!r}; {did_you_mean(name, FEATURES)}")
    if len(set(names)) != len(names):
        raise SpecError(f"features is {text!r}; give each of them once")
    return tuple(name for name in FEATURES if name in names)


def check_blocks(text: str) -> None:
    """Check the form of a set of blocks.

    Args:
        text: "all", "last4", or numbers and ranges joined by +, such as "3+6+9-12".

    Raises:
        SpecError: The text has another form.
    """
    last = _LAST.fullmatch(text)
    if text != "all" and not (last and int(last[1]) > 0) and not _BLOCKS.fullmatch(text):
        raise SpecError(f'blocks is {text!r}; write all, last4, or numbers from 1 such as "3+6+9-12"')


def select_blocks(text: str, count: int) -> tuple[int, ...]:
    """Return the indices of a set of blocks.

    Args:
        text: As for `check_blocks`; numbers count from 1.
        count: Number of blocks of the backbone.

    Returns:
        The indices, from 0, in ascending order.

    Raises:
        UnsupportedError: The backbone has not as many blocks.
    """
    if text == "all":
        return tuple(range(count))
    last = _LAST.fullmatch(text)
    if last:
        first, numbers = count - int(last[1]) + 1, set(range(count - int(last[1]) + 1, count + 1))
    else:
        ranges = [[int(bound) for bound in term.split("-")] for term in text.split("+")]
        numbers = {number for term in ranges for number in range(term[0], term[-1] + 1)}
        first = min(numbers, default=0)
    if not numbers or first < 1 or max(numbers) > count:
        raise UnsupportedError(f"blocks is {text}, but there are {count} blocks or stages, from 1 to {count}")
    return tuple(number - 1 for number in sorted(numbers))
