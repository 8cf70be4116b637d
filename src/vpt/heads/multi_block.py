"""Features of several blocks: class token, mean and standard deviation of the patches."""

import math
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vpt.backbones.layout import BackboneLayout
from vpt.core.text import did_you_mean
from vpt.errors import SpecError, UnsupportedError
from vpt.heads.feature_maps import HookedTrunk, feature_stages, patch_grid

FEATURES = ("cls", "mean", "std")
_LAST = re.compile(r"last(\d+)")
_BLOCKS = re.compile(r"all|last0*[1-9]\d*|\d+(-\d+)?(\+\d+(-\d+)?)*")


class MultiBlockFeatures(HookedTrunk):
    """Features of several blocks, side by side.

    In a plain transformer the final norm is applied to the tokens of every block, as in DINOv2's linear evaluation
    (Oquab et al., 2024). In Swin and ConvNets the units are stages: their maps are read as they are, the last one after
    the final norm where the model has one. Prompts are not read.

    Args:
        trunk: The trunk.
        layout: Its layout.
        indices: Indices of the blocks or stages, from 0.
        features: Names of the features, of `FEATURES`.
        pooled: True puts the pooled feature, which a linear head on the last block reads, before them. Default: False.
    """

    def __init__(
        self,
        trunk: nn.Module,
        layout: BackboneLayout,
        indices: Sequence[int],
        features: Sequence[str],
        *,
        pooled: bool = False,
    ) -> None:
        widths = units(trunk, layout)
        *inner, _ = widths
        super().__init__(trunk, layout, [inner[index] for index in indices if index < len(inner)])
        self.features: tuple[str, ...] = tuple(features)
        self.num_patches: int = layout.num_tokens - layout.num_prefix_tokens
        self.image_size: int = layout.preprocessing.size
        self.patch_size: int = layout.patch_size
        self.widths: tuple[int, ...] = tuple(list(widths.values())[index] for index in indices)
        self.reads_last: bool = len(inner) in indices
        self.reads_pooled: bool = pooled

    def forward(self, images: Tensor) -> Tensor:
        """Return the features of images.

        Args:
            images: Normalized images (batch, 3, height, width).

        Returns:
            Features (batch, sum of the widths): the pooled feature if it is read, then block after block, and of a
            block in the order of `features`.

        Raises:
            UnsupportedError: A stage puts out no map of the channels that timm tells.
        """
        *outputs, tokens = self.run_trunk(images)
        pooled: list[Tensor] = []
        if self.reads_pooled:
            pooled.append(self.trunk.forward_head(tokens, pre_logits=True))  # type: ignore[operator]
        final = self.normalize_pooled(tokens, hooks=not self.reads_pooled)
        if self.kind == "tokens":  # `forward`, as hooks of the norm are for the last block
            norm: Any = self.trunk.get_submodule("norm")
            outputs = [self.normalize_pooled(norm.forward(tokens), hooks=False) for tokens in outputs]
        outputs += [final] * self.reads_last
        num_patches = self.count_patches(*images.shape[-2:]) if self.kind == "tokens" else 0
        for output, channels in zip(outputs, self.widths, strict=True):
            pooled += self._pool(output, channels, num_patches)
        return torch.cat(pooled, dim=1)

    def count_patches(self, height: int, width: int) -> int:
        """Return the number of patches of an image: models with `dynamic_img_size` take other sizes than their own.

        Args:
            height: Height in pixels.
            width: Width in pixels.

        Returns:
            The number.
        """
        own = math.prod(patch_grid(self.trunk, self.patch_size, self.image_size, self.image_size))
        if own != self.num_patches:  # patches are merged, or made in another way
            return self.num_patches * height * width // self.image_size**2
        return math.prod(patch_grid(self.trunk, self.patch_size, height, width))

    def _pool(self, x: Tensor, width: int, num_patches: int) -> list[Tensor]:
        if self.kind == "tokens":
            cls, patches = x[:, 0], x[:, -num_patches:]
        else:
            self._check_map(x, width)
            cls, patches = x, x.flatten(1, 2) if self.kind == "windows" else x.flatten(2).transpose(1, 2)
        pools = {
            "cls": lambda: cls,
            "mean": lambda: patches.mean(1),
            "std": lambda: patches.var(1, correction=0).clamp_min(1e-12).sqrt(),  # a gradient where all are equal
        }
        return [pools[name]() for name in self.features]

    def _check_map(self, x: Tensor, width: int) -> None:
        """Raise UnsupportedError for tokens, and for channels elsewhere: a mean over other axes would be wrong."""
        axes, channels = ("height, width, channels", 3) if self.kind == "windows" else ("channels, height, width", 1)
        if x.dim() != 4 or x.shape[channels] != width:
            raise UnsupportedError(
                f"a stage of {type(self.trunk).__name__} puts out {tuple(x.shape)}, and features of stages are read of "
                f"maps (batch, {axes}) with {width} channels; give another backbone, or a head of the pooled feature"
            )


def units(trunk: nn.Module, layout: BackboneLayout) -> dict[str, int]:
    """Return the blocks of a plain transformer, or the stages of Swin and ConvNets.

    Args:
        trunk: The trunk.
        layout: Its layout.

    Returns:
        Path -> channels, first to last.

    Raises:
        UnsupportedError: The backbone has neither known blocks nor stages.
    """
    if layout.kind == "tokens":
        return dict.fromkeys(layout.blocks, layout.width)
    widths = {str(stage["module"]): int(stage["num_chs"]) for stage in feature_stages(trunk)}
    # The last unit is read behind all layers, and some models widen the map of their last stage (EfficientNet).
    *_, last = widths
    return {**widths, last: layout.width or widths[last]}


def features_of(layout: BackboneLayout) -> tuple[str, ...]:
    """Return the features that the blocks or stages of a backbone have.

    Args:
        layout: The layout of the backbone.

    Returns:
        Names, of `FEATURES`.
    """
    return FEATURES if layout.has_class_token else FEATURES[1:]


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
    if not _BLOCKS.fullmatch(text):
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
    last = _LAST.fullmatch(text)
    if text == "all" or last:
        numbers = set(range(count - int(last[1]) + 1 if last else 1, count + 1))
    else:
        ranges = [[int(bound) for bound in term.split("-")] for term in text.split("+")]
        bounded = [(term[0], min(term[-1], count + 1)) for term in ranges]  # a range may name billions of blocks
        numbers = {number for first, last in bounded for number in range(first, last + 1)}
    if not numbers or min(numbers) < 1 or max(numbers) > count:
        raise UnsupportedError(f"blocks is {text}, but there are {count} blocks or stages, from 1 to {count}")
    return tuple(number - 1 for number in sorted(numbers))
