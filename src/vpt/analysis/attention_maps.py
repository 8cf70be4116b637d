"""Attention maps of a tuned transformer and of its frozen backbone for one image.

Attention shows which tokens a block reads, not what determines the prediction.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vpt.analysis.model_input import most_likely, read_input
from vpt.attention.detection import FeatureExtractor, structural_copy
from vpt.attention.kv_attention import KVAttention
from vpt.backbones.layout import BackboneLayout
from vpt.data.images.inputs import ImageInput
from vpt.errors import SpecError, UnsupportedError
from vpt.model.readout import MultiBlock
from vpt.model.tuned_model import TunedModel
from vpt.plots.heatmaps import heatmaps

Floats = NDArray[np.float64]

MAX_DRAWN_PROMPTS = 3  # prompts in a figure: those with the most attention


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """Attention of one model in one block for one image. Weights are in 0..1, averaged over heads.

    Only prompts that are tokens of the block attend to patches: the first t of p. Prompts that are keys and values
    only do not. Prompts with a softmax of their own (`attention=zero_init`) have weights that sum to their gate, which
    may be negative, beside weights of tokens that sum to 1. Those of `cross` are read after self-attention, and are no
    part of it.

    Args:
        attention: (h, w), attention of the query token to each patch.
        prefix: Attention of the query token to the class token and registers.
        prompts: (p,), attention of the query token to each prompt. With `attention` and `prefix`, the sum is 1, or 1
            and the gate.
        rollout: (h, w), attention rollout of the query token from the image through this block.
        patch_to_prompt: (p, h, w), attention of each patch to each prompt.
        prompt_to_patch: (t, h, w), attention of each prompt to each patch.
    """

    attention: Floats
    prefix: float
    prompts: Floats
    rollout: Floats
    patch_to_prompt: Floats
    prompt_to_patch: Floats


@dataclass(frozen=True, eq=False)
class Explanation:
    """The attention maps of a tuned model and of its frozen backbone.

    Args:
        image: uint8 (size, size, 3), the input of the backbone.
        prediction: The most likely class and its probability.
        block: Number of the block, from 1.
        query: The query token: "class token", or "mean over patches" if the head does not read a class token.
        frozen: Maps of the frozen backbone.
        tuned: Maps of the tuned model.
        prompt_shares: Share of the query token's attention that each block gives to prompts, between 0 and 1; the gate
            of prompts with a softmax of their own; 0 for those of `cross`.
    """

    image: NDArray[np.uint8]
    prediction: tuple[str, float]
    block: int
    query: str
    frozen: AttentionMaps
    tuned: AttentionMaps
    prompt_shares: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class BlockAttention:
    """Attention of one block for one image.

    Args:
        num_input_tokens: Number of tokens of the block's input. Further tokens of its attention were inserted after the
            prefix.
        weights: (tokens, tokens + keys), averaged over heads. The order is prefix, prompt tokens, patches, and prompts
            that are keys and values only.
    """

    num_input_tokens: int
    weights: Floats


def has_attention_maps(layout: BackboneLayout) -> bool:
    """Return whether every block of a backbone has attention from all patches to all patches."""
    return layout.kind == "tokens" and layout.supports_kv_prompts


@torch.no_grad()
def explain(model: TunedModel, image: ImageInput, block: int | None = None) -> Explanation:
    """Compare the attention of a tuned model with that of its frozen backbone.

    In the last block, attention of patches and prompts is computed for the maps even if the head reads the class token
    only. The model is not changed and may be in train mode. An image that cannot be read raises DataError, and a model
    that segments or predicts a number UnsupportedError.

    Args:
        model: The tuned model.
        image: An image in any form that `vpt.data.images.inputs.read_image` takes.
        block: Number of the block, from 1. Default: the last.

    Returns:
        The attention maps.

    Raises:
        UnsupportedError: The backbone is not a plain transformer.
        SpecError: The block does not exist.
    """
    pixels, inputs = read_input(model, image)
    layout = model.layout
    if not has_attention_maps(layout):
        raise UnsupportedError(
            f"{model.backbone.name} has no attention maps over all patches; take occlusion, which every backbone has "
            "(vpt.occlude, or --method occlusion), or use a plain transformer: ViT, DeiT, CLIP, SigLIP, DINOv2, "
            "DINOv3, EVA-02 or BEiT"
        )
    block = len(layout.blocks) if block is None else block
    if not 1 <= block <= len(layout.blocks):
        raise SpecError(f"block is {block}; {model.backbone.name} has blocks 1 to {len(layout.blocks)}")
    tuned = structural_copy(model, num_classes=None)
    assert isinstance(tuned, TunedModel)
    frozen = FeatureExtractor(structural_copy(model.backbone.module)).to(inputs.device)
    before, after = record_attention(frozen.trunk, layout), record_attention(tuned.trunk, layout)
    frozen(inputs)
    _, name, probability = most_likely(model, tuned(inputs)[0])
    by_class_token = _reads_class_token(tuned)
    return Explanation(
        image=pixels,
        prediction=(name, probability),
        block=block,
        query="class token" if by_class_token else "mean over patches",
        frozen=_attention_maps(before[:block], layout, by_class_token),
        tuned=_attention_maps(after[:block], layout, by_class_token),
        prompt_shares=tuple(_prompt_share(each, layout, by_class_token) for each in after),
    )


def record_attention(trunk: nn.Module, layout: BackboneLayout) -> list[BlockAttention]:
    """Register hooks that record the attention of every block for one image.

    Args:
        trunk: The network, including injected modules. Pass a `structural_copy`, because the hooks remain.
        layout: Layout of the backbone.

    Returns:
        A list that receives one entry per block when the model runs.
    """
    input_lengths: list[int] = []
    attentions: list[BlockAttention] = []

    def enter(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        input_lengths.append(args[0].shape[1])

    def keep(prompts: list[Any], _: nn.Module, args: tuple[Tensor, ...], output: Any) -> None:
        prompts.append(output)

    def record(
        prompts: list[Any], attention: nn.Module, args: tuple[Tensor, ...], context: dict[str, Any], _: Tensor
    ) -> None:
        reader = attention if isinstance(attention, KVAttention) else KVAttention(attention)
        made = prompts.pop() if prompts else None  # once in a pass: prompts may depend on its image
        weights = reader.attention_weights(args[0], made, **context)[0].cpu().double()  # MPS has no float64
        attentions.append(BlockAttention(input_lengths[-1], weights.mean(0).numpy()))

    for path in layout.blocks:
        wrapped = trunk.get_submodule(path)
        # A wrapper takes the place of the block, and the block is inside it.
        candidates = ((module, layout.block_layout(module)) for module in wrapped.modules())
        block, block_layout = next((module, found) for module, found in candidates if found is not None)
        wrapped.register_forward_pre_hook(enter)
        attention, prompts = block.get_submodule(block_layout.attention), list[Any]()
        if isinstance(attention, KVAttention) and attention.kv_prompts is not None:
            attention.kv_prompts.register_forward_hook(partial(keep, prompts))
        attention.register_forward_hook(partial(record, prompts), with_kwargs=True)
    return attentions


def rollout(attentions: Sequence[BlockAttention], prefix: int, patches: int) -> Floats:
    """Return the attention rollout (Abnar and Zuidema, 2020): the product of (A + I) / 2 over blocks.

    Prompts account for the difference of a row sum to 1. Each (A + I) / 2 already has rows that sum to 1.

    Args:
        attentions: Attention of consecutive blocks from the first.
        prefix: Number of prefix tokens.
        patches: Number of patches.

    Returns:
        (tokens of the last block, prefix + patches), contribution of each image token to each token.
    """
    flow = np.eye(prefix + patches)
    for block in attentions:
        tokens = len(block.weights)
        # Between blocks, prompts are removed and inserted after the prefix. New prompts contain nothing of the image.
        new = np.zeros((tokens - block.num_input_tokens, prefix + patches))
        flow = np.concatenate([flow[:prefix], new, flow[prefix + len(flow) - block.num_input_tokens :]])
        flow = (block.weights[:, :tokens] + np.eye(tokens)) / 2 @ flow
    return flow


def draw(explanation: Explanation, path: Path) -> None:
    """Write a figure of the maps, with the prompts that receive the most attention.

    Args:
        explanation: The maps.
        path: The figure, .png or .svg.
    """
    frozen, tuned = explanation.frozen, explanation.tuned
    top_prompts = np.argsort(-tuned.prompts, kind="stable")[:MAX_DRAWN_PROMPTS]
    prompt_to_patch = tuned.prompt_to_patch
    rows: list[Mapping[str, Floats]] = [
        {
            f"{name}, frozen backbone": before,
            f"{name}, tuned": after,
            f"{name}, tuned minus frozen": after - before,
        }
        for name, before, after in (
            ("attention", frozen.attention, tuned.attention),
            ("rollout", frozen.rollout, tuned.rollout),
        )
    ]
    rows += [
        {f"patches to prompt {i + 1} ({100 * tuned.prompts[i]:.1f} %)": tuned.patch_to_prompt[i] for i in top_prompts},
        {f"prompt {i + 1} to patches": prompt_to_patch[i] for i in top_prompts if i < len(prompt_to_patch)},
    ]
    name, probability = explanation.prediction
    title = f"{name}, {100 * probability:.1f} %; {explanation.query}, block {explanation.block}"
    signed = ("attention, tuned minus frozen", "rollout, tuned minus frozen")
    shares = explanation.prompt_shares if len(tuned.prompts) else ()
    heatmaps(path, explanation.image, [row for row in rows if row], title, signed=signed, shares=shares)


def _reads_class_token(model: TunedModel) -> bool:
    if isinstance(model.readout, MultiBlock):
        return model.readout.features == "cls"
    # A method that reads features of several blocks (`head2toe`) has no such module.
    features = next((module for module in model.network.modules() if isinstance(module, FeatureExtractor)), None)
    if features is not None and features.pool is not None:
        return getattr(features.pool, "output", None) == "cls"
    return model.layout.num_prefix_tokens > 0 and getattr(model.trunk, "global_pool", None) == "token"


def _prompts_and_query(
    attention: BlockAttention, layout: BackboneLayout, by_class_token: bool
) -> tuple[list[int], slice]:
    """Return the columns of prompts, and the rows of the query token."""
    tokens, keys = len(attention.weights), attention.weights.shape[1]
    first = tokens - (layout.num_tokens - layout.num_prefix_tokens)  # the order is prefix, prompt tokens, patches
    query = slice(0, 1) if by_class_token else slice(first, tokens)
    return [*range(layout.num_prefix_tokens, first), *range(tokens, keys)], query


def _prompt_share(attention: BlockAttention, layout: BackboneLayout, by_class_token: bool) -> float:
    """Return the share of the query token's attention that goes to prompts."""
    prompts, query = _prompts_and_query(attention, layout, by_class_token)
    return float(attention.weights[query].mean(0)[prompts].sum())


def _attention_maps(
    attentions: Sequence[BlockAttention], layout: BackboneLayout, by_class_token: bool
) -> AttentionMaps:
    """Return the maps of the last of these blocks."""
    weights = attentions[-1].weights
    tokens, patches = len(weights), layout.num_tokens - layout.num_prefix_tokens
    first = tokens - patches  # the order is prefix, prompt tokens, patches
    grid = (math.isqrt(patches),) * 2  # inputs are square
    prompts, query = _prompts_and_query(attentions[-1], layout, by_class_token)
    attention = weights[query].mean(0)
    flow = rollout(attentions, layout.num_prefix_tokens, patches)[query].mean(0)
    return AttentionMaps(
        attention=attention[first:tokens].reshape(grid),
        prefix=float(attention[: layout.num_prefix_tokens].sum()),
        prompts=attention[prompts],
        rollout=flow[layout.num_prefix_tokens :].reshape(grid),
        patch_to_prompt=weights[first:, prompts].T.reshape(-1, *grid),
        prompt_to_patch=weights[layout.num_prefix_tokens : first, first:tokens].reshape(-1, *grid),
    )
