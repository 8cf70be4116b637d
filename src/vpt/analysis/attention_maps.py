"""Where a tuned transformer looks in one image, beside the frozen backbone it stands on, and what prompts take part.

Attention says what a block reads, not what decides the prediction: a map shows where information could come from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vpt.attention.detection import FeatureExtractor, structural_copy
from vpt.attention.kv_attention import KVAttention
from vpt.backbones.layout import BackboneLayout
from vpt.data.dataset import Split
from vpt.data.images import decode
from vpt.errors import SpecError, UnsupportedError
from vpt.model.readout import MultiBlock
from vpt.model.tuned_model import TunedModel
from vpt.plots import figures

Floats = NDArray[np.float64]

MAX_DRAWN_PROMPTS = 3  # prompts in a picture: those with the largest shares


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """What one model makes of one image in one block; shares between 0 and 1, means over the heads.

    attention: (h, w), what the query token takes of each patch. prefix: what it takes of CLS and registers.
    prompts: (p,), what it takes of each prompt. All of these together are 1.
    rollout: (h, w), attention rollout of the query token, from the image through this block.
    patch_to_prompt: (p, h, w), what each patch takes of each prompt.
    prompt_to_patch: (t, h, w), what each prompt takes of each patch. Only prompts that travel through the block ask: the
        first t of p. Those that are keys alone read nothing.
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

    image: uint8 (size, size, 3), as the backbone gets it. prediction: the most likely class and its probability.
    block: from 1. query: the token whose attention is shown: what the head reads, "class token", or
    "mean over patches" where the head does not read a class token.
    """

    image: NDArray[np.uint8]
    prediction: tuple[str, float]
    block: int
    query: str
    frozen: AttentionMaps
    tuned: AttentionMaps


@dataclass(frozen=True, eq=False)
class BlockAttention:
    """One block while it read one image.

    num_input_tokens: how many tokens the block was given; what its attention has beyond them was put in after the prefix.
    weights: (tokens, tokens + keys), mean over the heads: how much each token takes of each. The order is prefix,
        prompts that travel, patches, and then prompts that are keys alone.
    """

    num_input_tokens: int
    weights: Floats


@torch.no_grad()
def explain(model: TunedModel, image: Path, block: int | None = None) -> Explanation:
    """Compare the attention of `model` with that of its frozen backbone, on one image file.

    block: from 1; None is the last. There, where the head reads CLS alone, what patches and prompts take is worked
        out for this picture only: nothing reads it. The model is not touched, and may be in train mode.
    Raises UnsupportedError where the backbone is no plain transformer, SpecError for a block that is not there, and
    DataError for an image that cannot be read.
    """
    model.require_classifier("explain")
    layout = model.layout
    if layout.kind != "tokens" or not layout.supports_kv_prompts:
        raise UnsupportedError(
            f"{model.backbone.name} has no attention from a class token or patches to patches that could be shown; "
            "plain transformers do: ViT, DeiT, CLIP, SigLIP, DINOv2, DINOv3, EVA-02 and BEiT"
        )
    block = len(layout.blocks) if block is None else block
    if not 1 <= block <= len(layout.blocks):
        raise SpecError(f"block is {block}; {model.backbone.name} has blocks 1 to {len(layout.blocks)}")
    split = Split((image,), np.zeros(1, dtype=np.int64))
    pixels = decode(split, model.backbone.preprocessing).images
    device = next(model.parameters()).device
    inputs = model.backbone.preprocessing.normalize(torch.from_numpy(pixels).to(device))

    tuned = structural_copy(model)
    assert isinstance(tuned, TunedModel)
    frozen = FeatureExtractor(structural_copy(model.backbone.module)).to(device)
    before, after = record_attention(frozen.trunk, layout), record_attention(tuned.trunk, layout)
    frozen(inputs)
    probabilities = tuned(inputs)[0].float().softmax(0)
    best = int(probabilities.argmax())
    by_class_token = _reads_class_token(tuned)
    return Explanation(
        image=pixels[0].transpose(1, 2, 0),
        prediction=(model.classes[best] if model.classes else str(best), float(probabilities[best])),
        block=block,
        query="class token" if by_class_token else "mean over patches",
        frozen=_attention_maps(before[:block], layout, by_class_token),
        tuned=_attention_maps(after[:block], layout, by_class_token),
    )


def record_attention(trunk: nn.Module, layout: BackboneLayout) -> list[BlockAttention]:
    """Record every block of `trunk` from now on, for one image; the list fills as the model runs.

    trunk: with whatever hangs on it, and the caller's own (`structural_copy`): hooks stay on it.
    """
    input_lengths: list[int] = []
    attentions: list[BlockAttention] = []

    def enter(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        input_lengths.append(args[0].shape[1])

    def record(attention: nn.Module, args: tuple[Tensor, ...], context: dict[str, Any]) -> None:
        reader = attention if isinstance(attention, KVAttention) else KVAttention(attention)
        weights = reader.attention_weights(*args, **context)[0].double().mean(0)
        attentions.append(BlockAttention(input_lengths[-1], weights.cpu().numpy()))

    for path in layout.blocks:
        wrapped = trunk.get_submodule(path)
        # What hangs around a block stands in its place, with the block somewhere inside.
        block, block_layout = next(
            (module, found) for module in wrapped.modules() if (found := layout.block_layout(module)) is not None
        )
        wrapped.register_forward_pre_hook(enter)
        block.get_submodule(block_layout.attention).register_forward_pre_hook(record, with_kwargs=True)
    return attentions


def rollout(attentions: Sequence[BlockAttention], prefix: int, patches: int) -> Floats:
    """Attention rollout (Abnar and Zuidema, 2020): the product of (A + I) / 2 over the blocks, A averaged over heads.

    Returns (tokens in the last of these blocks, prefix + patches): how much of each token stems from each token of
    the image. What a row lacks of 1 stems from prompts. The rows of (A + I) / 2 sum to 1 as they are.
    """
    flow = np.eye(prefix + patches)
    for block in attentions:
        tokens = len(block.weights)
        # Between blocks prompts leave and enter, always right behind the prefix. New ones hold nothing of the image.
        new = np.zeros((tokens - block.num_input_tokens, prefix + patches))
        flow = np.concatenate([flow[:prefix], new, flow[prefix + len(flow) - block.num_input_tokens :]])
        flow = (block.weights[:, :tokens] + np.eye(tokens)) / 2 @ flow
    return flow


def draw(explanation: Explanation, path: Path) -> None:
    """Write the maps as a picture, .png or .svg; of the prompts, the few that are attended to most."""
    top_prompts = np.argsort(-explanation.tuned.prompts, kind="stable")[:MAX_DRAWN_PROMPTS]
    prompt_to_patch = explanation.tuned.prompt_to_patch
    rows: list[Mapping[str, Floats]] = [
        {"attention, frozen backbone": explanation.frozen.attention, "attention, tuned": explanation.tuned.attention},
        {"rollout, frozen backbone": explanation.frozen.rollout, "rollout, tuned": explanation.tuned.rollout},
        {
            f"patches to prompt {i + 1} ({100 * explanation.tuned.prompts[i]:.1f} %)": explanation.tuned.patch_to_prompt[
                i
            ]
            for i in top_prompts
        },
        {f"prompt {i + 1} to patches": prompt_to_patch[i] for i in top_prompts if i < len(prompt_to_patch)},
    ]
    name, probability = explanation.prediction
    title = f"{name}, {100 * probability:.1f} %; {explanation.query}, block {explanation.block}"
    figures.heatmaps(path, explanation.image, [row for row in rows if row], title)


def _reads_class_token(model: TunedModel) -> bool:
    if isinstance(model.readout, MultiBlock):
        return model.readout.features == "cls"
    features = next(module for module in model.network.modules() if isinstance(module, FeatureExtractor))
    if features.pool is not None:
        return getattr(features.pool, "output", None) == "cls"
    return model.layout.num_prefix_tokens > 0 and getattr(features.trunk, "global_pool", None) == "token"


def _attention_maps(
    attentions: Sequence[BlockAttention], layout: BackboneLayout, by_class_token: bool
) -> AttentionMaps:
    """What stands in the last of these blocks."""
    weights = attentions[-1].weights
    tokens, patches = len(weights), layout.num_tokens - layout.num_prefix_tokens
    first = tokens - patches  # prefix, prompts that travel, patches
    grid = (math.isqrt(patches),) * 2  # backbones take square images
    query = slice(0, 1) if by_class_token else slice(first, tokens)
    prompts = [*range(layout.num_prefix_tokens, first), *range(tokens, weights.shape[1])]
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
