"""Prompts as keys and values of attention: learned ones, gated ones, and ones that depend on the image."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from vpt.attention.joint_attention import GatedPrompts, KeyValues
from vpt.attention.kv_attention import KVAttention
from vpt.attention.windows import KVWindowAttention, PromptedWindowAttention
from vpt.backbones.layout import BackboneLayout, BlockLayout, describe_missing_tokens
from vpt.errors import UnsupportedError
from vpt.methods.references import refer


class PromptKeys(nn.Module):
    """Prompts as the keys and values of a block's attention: normalized by the block's own first norm.

    Args:
        prompts: Batch size -> prompts (p, d) or (batch, p, d), or `KeyValues`, which need no norm.
        norm: The block's first norm.
        windows_per_image: Number of rows of x that belong to one image (windows). Default: 1.
        gate: Factor of the prompts, a scalar or (heads,); the prompts then have a softmax of their own. Default: one
            softmax over tokens and prompts.
    """

    prompts: Callable[[Any], Tensor | KeyValues]
    norm: nn.Module

    def __init__(
        self,
        prompts: Callable[[Any], Tensor | KeyValues],
        norm: nn.Module,
        windows_per_image: int = 1,
        gate: nn.Parameter | None = None,
    ) -> None:
        super().__init__()
        refer(self, prompts=prompts, norm=norm)
        self.windows_per_image = windows_per_image
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor | GatedPrompts | KeyValues:
        """Return the prompts of a batch.

        Args:
            x: Normalized tokens (batch * windows, n, d); only their number and dtype are used.

        Returns:
            Prompts (p, d) or (batch, p, d), with the gate if there is one, or `KeyValues`.
        """
        prompts = self._prompts_of(x)
        if isinstance(prompts, KeyValues):
            return KeyValues(prompts.keys.to(x.dtype), prompts.values.to(x.dtype))
        # `forward`, as hooks of the norm are for the tokens of the image.
        tokens: Tensor = self.norm.forward(prompts.to(x.dtype))
        return tokens if self.gate is None else GatedPrompts(tokens, self.gate)

    def _prompts_of(self, x: Tensor) -> Tensor | KeyValues:
        return self.prompts(x.shape[0] // self.windows_per_image)


class ImagePromptKeys(PromptKeys):
    """Prompts that depend on the image, as the keys and values of a block's attention.

    Args:
        prompts: Module that maps the tokens of a block, after its first norm, (batch, n, d) to prompts (batch, p, d).
        norm: The block's first norm, applied to the prompts.
        windows_per_image: Number of rows of x that belong to one image (windows): `prompts` gets all tokens of an
            image in one row. Default: 1.
        gate: As for `PromptKeys`.
    """

    def _prompts_of(self, x: Tensor) -> Tensor | KeyValues:
        return self.prompts(x.unflatten(0, (-1, self.windows_per_image)).flatten(1, 2))


def inject_keys(
    trunk: nn.Module,
    layout: BackboneLayout,
    prompts: Mapping[int, nn.Module],
    *,
    gates: Mapping[int, nn.Parameter] | None = None,
    per_image: bool = False,
) -> dict[str, Callable[[nn.Module], nn.Module]]:
    """Return wrappers that give blocks prompts as keys and values.

    Args:
        trunk: The trunk.
        layout: Its layout.
        prompts: Index of a block, from 0 -> its prompts: a module from the batch size, or with `per_image` from the
            block's normalized tokens (batch, n, d), to (p, d), (batch, p, d) or `KeyValues`.
        gates: Index of a block -> the gate of its prompts, which then have a softmax of their own. Default: none.
        per_image: The prompts depend on the image. Default: False.

    Returns:
        Path of an attention -> wrapper, for `Injection.wrappers`.

    Raises:
        UnsupportedError: The attention of this backbone cannot take prompts as keys and values.
    """
    require_kv_prompts(trunk, layout)
    wrappers: dict[str, Callable[[nn.Module], nn.Module]] = {}
    for index, block_prompts in prompts.items():
        block, block_layout = prompted_block(trunk, layout, index)
        keys = partial(ImagePromptKeys if per_image else PromptKeys, block_prompts, gate=(gates or {}).get(index))
        windows = windows_per_image(block) if layout.kind == "windows" else None
        wrap = partial(_wrap_attention, block=block, norm=block_layout.norm1, keys=keys, windows_per_image=windows)
        wrappers[f"{layout.blocks[index]}.{block_layout.attention}"] = wrap
    return wrappers


def require_kv_prompts(trunk: nn.Module, layout: BackboneLayout) -> None:
    """Refuse a backbone whose attention cannot take prompts as keys and values.

    Args:
        trunk: The trunk.
        layout: Its layout.

    Raises:
        UnsupportedError: The attention cannot take them.
    """
    if not layout.has_token_blocks:
        raise UnsupportedError(describe_missing_tokens(trunk))
    if not layout.supports_kv_prompts:
        raise UnsupportedError(
            f"the blocks of {type(trunk).__name__} do not compute one attention of a known kind, so prompts cannot be "
            "its keys and values; vpt concatenates its own there"
        )


def prompted_block(trunk: nn.Module, layout: BackboneLayout, index: int) -> tuple[Any, BlockLayout]:
    """Return a block of a trunk that `require_kv_prompts` accepts.

    Args:
        trunk: The trunk.
        layout: Its layout.
        index: Index of the block, from 0.

    Returns:
        The block and the names of its parts.
    """
    block = trunk.get_submodule(layout.blocks[index])
    block_layout = layout.block_layout(block)
    assert block_layout is not None  # or attention would not take prompts
    return block, block_layout


def check_takes_prompts(attention: nn.Module) -> None:
    """Check that no other method of a sum has given an attention its prompts.

    Args:
        attention: The attention module as it is before it is wrapped.

    Raises:
        UnsupportedError: The attention carries prompts already.
    """
    if isinstance(attention, (KVAttention, KVWindowAttention, PromptedWindowAttention)):
        raise UnsupportedError(
            "the attention of this block already carries the prompts of another term, and it takes those of one method "
            "only; keep one of the two terms, or give them different blocks"
        )


def windows_per_image(block: Any) -> int:
    """Return the number of windows that a Swin block cuts an image into."""
    return math.prod(
        math.ceil(side / window) for side, window in zip(block.input_resolution, block.window_size, strict=True)
    )


def _wrap_attention(
    attention: nn.Module, block: nn.Module, norm: str, keys: Callable[..., nn.Module], windows_per_image: int | None
) -> nn.Module:
    check_takes_prompts(attention)
    # The norm is looked up now, when the module is wrapped: another method may have replaced it.
    if windows_per_image is None:
        return KVAttention(attention, kv_prompts=keys(norm=getattr(block, norm)))
    return KVWindowAttention(attention, keys(norm=getattr(block, norm), windows_per_image=windows_per_image))
