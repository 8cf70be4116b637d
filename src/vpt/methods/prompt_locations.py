"""Locations of prompts: as tokens of blocks, added to tokens, as channels or as a frame of the image."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from vpt.attention.kv_attention import KVAttention
from vpt.backbones.layout import BackboneLayout
from vpt.errors import UnsupportedError
from vpt.heads.pooling import make_pool
from vpt.methods.base import NETWORK, Injection, Wrapper, compose
from vpt.methods.kv_prompts import check_takes_prompts, inject_keys, prompted_block, require_kv_prompts
from vpt.methods.pixels import ConcatChannel, FramePrompt
from vpt.methods.prompt_tokens import AddPrompts, InsertPrompts, RemovePrompts
from vpt.methods.prompts import xavier_range


def prepend_tokens(
    trunk: nn.Module,
    layout: BackboneLayout,
    prompts: Sequence[nn.Module],
    *,
    first: int,
    length: int,
    output: str = "default",
    kv: bool = True,
    drop_after: bool = False,
) -> Injection:
    """Prepend prompts to the patches of consecutive blocks; those of the last propagate through the remaining blocks.

    Args:
        trunk: The trunk of a plain transformer.
        layout: Its layout.
        prompts: The prompts of the blocks, from the first.
        first: Index of the first block with prompts, from 0.
        length: Number of prompts of a block.
        output: Tokens that the head reads, see `make_pool`. Default: the backbone's own.
        kv: Compute prompts whose outputs are discarded as keys and values only. Default: True.
        drop_after: Drop the prompts behind the last of these blocks. Default: False.

    Returns:
        The injection.

    Raises:
        UnsupportedError: Attention ties tokens to positions in an unknown way, or the output does not exist.
    """
    last = first + len(prompts) - 1
    pool = make_pool(output, layout, 0 if drop_after else length)
    outputs_are_read = pool is not None or not layout.reads_class_token  # those of the last block
    wrappers: dict[str, Wrapper] = {}
    for index, path in enumerate(layout.blocks[first : last + 1 if drop_after else None], first):
        is_last = index == len(layout.blocks) - 1
        discard_outputs = index < last or drop_after or (is_last and pool is None)
        block_prompts = prompts[index - first] if index <= last else None
        if kv and block_prompts is not None and discard_outputs and layout.supports_kv_prompts:
            wrappers.update(inject_keys(trunk, layout, {index: block_prompts}))
            continue
        wrappers.update(_positionless_attention(trunk.get_submodule(path), layout, path, length))
        steps: list[Wrapper] = []
        if block_prompts is not None:
            steps.append(partial(InsertPrompts, prompts=block_prompts, num_prefix_tokens=layout.num_prefix_tokens))
        if discard_outputs and (outputs_are_read or not is_last):  # else nothing reads the tokens after the class token
            steps.append(partial(RemovePrompts, length=length, num_prefix_tokens=layout.num_prefix_tokens))
        if steps:
            wrappers[path] = compose(*steps)
    return Injection(modules={"prompts": nn.ModuleList(dict.fromkeys(prompts))}, wrappers=wrappers, pool=pool)


def gate_prompts(
    trunk: nn.Module, layout: BackboneLayout, prompts: Sequence[nn.Module], *, first: int, output: str = "default"
) -> Injection:
    """Give consecutive blocks prompts as keys and values, with a softmax of their own and gates that begin at 0.

    Args:
        trunk: The trunk.
        layout: Its layout.
        prompts: The prompts of the blocks, from the first.
        first: Index of the first block with prompts, from 0.
        output: Tokens that the head reads, see `make_pool`. Default: the backbone's own.

    Returns:
        The injection.

    Raises:
        UnsupportedError: The attention of this backbone cannot take prompts as keys and values.
    """
    require_kv_prompts(trunk, layout)
    by_block, gates = dict(enumerate(prompts, first)), dict[int, nn.Parameter]()
    for index in by_block:
        block, block_layout = prompted_block(trunk, layout, index)
        gates[index] = nn.Parameter(torch.zeros(getattr(block, block_layout.attention).num_heads))
    wrappers = inject_keys(trunk, layout, by_block, gates=gates)
    modules = {"prompts": nn.ModuleList(dict.fromkeys(prompts))}
    return Injection(modules=modules, wrappers=wrappers, pool=make_pool(output, layout, 0))


def add_to_tokens(
    layout: BackboneLayout, prompts: Sequence[nn.Module], *, first: int, length: int, output: str = "default"
) -> Injection:
    """Add prompts to the tokens of consecutive blocks.

    Args:
        layout: The layout of a plain transformer.
        prompts: The prompts of the blocks, from the first.
        first: Index of the first block with prompts, from 0.
        length: Number of prompts of a block: one for each token, or one for all.
        output: Tokens that the head reads, see `make_pool`. Default: the backbone's own.

    Returns:
        The injection.
    """
    paths = layout.blocks[first : first + len(prompts)]
    return Injection(
        modules={"prompts": nn.ModuleList(dict.fromkeys(prompts))},
        wrappers={path: partial(AddPrompts, prompts=own) for path, own in zip(paths, prompts, strict=True)},
        pool=make_pool(output, layout, 0),
        fixed_image_size=length > 1,
    )


def frame_image(layout: BackboneLayout, width: int, output: str = "default") -> Injection:
    """Put learned pixels around the image.

    Args:
        layout: The layout of any backbone.
        width: Width of the frame in pixels.
        output: Tokens that the head reads, see `make_pool`. Default: the backbone's own.

    Returns:
        The injection.

    Raises:
        UnsupportedError: The frame covers the whole image.
    """
    if 2 * width >= layout.preprocessing.size:
        raise UnsupportedError(f"a frame of {width} pixels leaves nothing of an image of {layout.preprocessing.size}")
    frame = partial(FramePrompt, width=width, preprocessing=layout.preprocessing, grow_input=layout.kind == "maps")
    return Injection(wrappers={NETWORK: frame}, pool=make_pool(output, layout, 0))


def concat_channels(layout: BackboneLayout, channels: int, output: str = "default") -> Injection:
    """Add learned channels to red, green and blue.

    Args:
        layout: The layout of a transformer.
        channels: Number of further channels.
        output: Tokens that the head reads, see `make_pool`. Default: the backbone's own.

    Returns:
        The injection.

    Raises:
        UnsupportedError: The patches are not made by one convolution.
    """
    if layout.stem is None:
        raise UnsupportedError("its patches are not made by one convolution")
    size, init_range = layout.preprocessing.size, xavier_range(layout.patch_size, layout.width)
    wrapper = partial(ConcatChannel, channels=channels, image_size=size, init_range=init_range)
    return Injection(
        trainable=(layout.stem,),
        wrappers={layout.stem: wrapper},
        pool=make_pool(output, layout, 0),
        fixed_image_size=True,
    )


def _positionless_attention(block: nn.Module, layout: BackboneLayout, path: str, length: int) -> dict[str, Wrapper]:
    """Return the wrapper of a block's attention that gives the prompts in its sequence no position."""
    if layout.family is None or not layout.family.uses_positions:
        return {}
    block_layout = layout.block_layout(block)
    if layout.supports_kv_prompts and block_layout is not None:
        return {f"{path}.{block_layout.attention}": partial(_without_positions, length=length)}
    raise UnsupportedError(
        f"{type(block).__name__} ties every token to a place in the image in a way that is not known here, "
        "so prompts cannot be told apart from patches"
    )


def _without_positions(attention: nn.Module, length: int) -> nn.Module:
    check_takes_prompts(attention)
    return KVAttention(attention, num_positionless=length)
