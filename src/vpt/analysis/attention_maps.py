"""Where a tuned transformer looks in one image, beside the frozen backbone it stands on, and what prompts take part.

Attention says what a block reads, not what decides the answer: a map shows where information could come from.
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

from vpt.attention.detection import Features, trunk_of
from vpt.attention.kv_attention import Attend
from vpt.backbones.layout import Sites
from vpt.data.dataset import Split
from vpt.data.images import decode
from vpt.errors import FitError, SpecError
from vpt.model.tuned_model import TunedModel
from vpt.plots import figures

Floats = NDArray[np.float64]

DRAWN = 3  # prompts in a picture: those with the largest shares


@dataclass(frozen=True, eq=False)
class Gaze:
    """What one model makes of one image in one block; shares between 0 and 1, means over the heads.

    attention: (h, w), what the asked token takes of each patch. prefix: what it takes of CLS and registers.
    prompts: (p,), what it takes of each prompt. All of these together are 1.
    rollout: (h, w), attention rollout of the asked token, from the image through this block.
    listeners: (p, h, w), what each patch takes of each prompt.
    looks: (t, h, w), what each prompt takes of each patch. Only prompts that travel through the block ask: the
        first t of p. Those that are keys alone read nothing.
    """

    attention: Floats
    prefix: float
    prompts: Floats
    rollout: Floats
    listeners: Floats
    looks: Floats


@dataclass(frozen=True, eq=False)
class Explanation:
    """The gaze of a tuned model and of its frozen backbone.

    image: uint8 (size, size, 3), as the backbone gets it. answer: the most likely class and its probability.
    block: from 1. asked: the token whose attention is shown: what the head reads, "class token", or
    "mean over patches" where the head does not read a class token.
    """

    image: NDArray[np.uint8]
    answer: tuple[str, float]
    block: int
    asked: str
    frozen: Gaze
    tuned: Gaze


@dataclass(frozen=True, eq=False)
class Seen:
    """One block while it read one image.

    entered: how many tokens the block was given; what its attention has beyond them was put in after the prefix.
    weights: (tokens, tokens + keys), mean over the heads: how much each token takes of each. The order is prefix,
        prompts that travel, patches, and then prompts that are keys alone.
    """

    entered: int
    weights: Floats


@torch.no_grad()
def explain(model: TunedModel, image: Path, block: int | None = None) -> Explanation:
    """Compare the attention of `model` with that of its frozen backbone, on one image file.

    block: from 1; None is the last. There, where the head reads CLS alone, what patches and prompts take is worked
        out for this picture only: nothing reads it. The model is not touched, and may be in train mode.
    Raises FitError where the backbone is no plain transformer, SpecError for a block that is not there, and
    DataError for an image that cannot be read.
    """
    model.demand_classifier("explain")
    sites = model.sites
    if sites.kind != "tokens" or not sites.open:
        raise FitError(
            f"{model.backbone.name} has no attention from a class token or patches to patches that could be shown; "
            "plain transformers do: ViT, DeiT, CLIP, SigLIP, DINOv2, DINOv3, EVA-02 and BEiT"
        )
    block = len(sites.blocks) if block is None else block
    if not 1 <= block <= len(sites.blocks):
        raise SpecError(f"block is {block}; {model.backbone.name} has blocks 1 to {len(sites.blocks)}")
    split = Split((image,), np.zeros(1, dtype=np.int64))
    pixels = decode(split, model.backbone.preprocessing).images
    device = next(model.parameters()).device
    inputs = model.backbone.preprocessing.normalise(torch.from_numpy(pixels).to(device))

    tuned = trunk_of(model)
    assert isinstance(tuned, TunedModel)
    frozen = Features(trunk_of(model.backbone.module)).to(device)
    before, after = watch(frozen.trunk, sites), watch(tuned.trunk, sites)
    frozen(inputs)
    shares = tuned(inputs)[0].float().softmax(0)
    best = int(shares.argmax())
    by_class_token = _reads_class_token(tuned)
    return Explanation(
        image=pixels[0].transpose(1, 2, 0),
        answer=(model.classes[best] if model.classes else str(best), float(shares[best])),
        block=block,
        asked="class token" if by_class_token else "mean over patches",
        frozen=_gaze(before[:block], sites, by_class_token),
        tuned=_gaze(after[:block], sites, by_class_token),
    )


def watch(trunk: nn.Module, sites: Sites) -> list[Seen]:
    """Record every block of `trunk` from now on, for one image; the list fills as the model runs.

    trunk: with whatever hangs on it, and the caller's own (`trunk_of`): hooks stay on it.
    """
    entered: list[int] = []
    seen: list[Seen] = []

    def enter(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        entered.append(args[0].shape[1])

    def record(attention: nn.Module, args: tuple[Tensor, ...], context: dict[str, Any]) -> None:
        reader = attention if isinstance(attention, Attend) else Attend(attention)
        weights = reader.weights(*args, **context)[0].double().mean(0)
        seen.append(Seen(entered[-1], weights.cpu().numpy()))

    for path in sites.blocks:
        place = trunk.get_submodule(path)
        # What hangs around a block stands in its place, with the block somewhere inside.
        block, layout = next((part, found) for part in place.modules() if (found := sites.layout(part)) is not None)
        place.register_forward_pre_hook(enter)
        block.get_submodule(layout.attention).register_forward_pre_hook(record, with_kwargs=True)
    return seen


def rollout(seen: Sequence[Seen], prefix: int, patches: int) -> Floats:
    """Attention rollout (Abnar and Zuidema, 2020): the product of (A + I) / 2 over the blocks, A averaged over heads.

    Returns (tokens in the last of these blocks, prefix + patches): how much of each token stems from each token of
    the image. What a row lacks of 1 stems from prompts. The rows of (A + I) / 2 sum to 1 as they are.
    """
    flow = np.eye(prefix + patches)
    for block in seen:
        tokens = len(block.weights)
        # Between blocks prompts leave and enter, always right behind the prefix. New ones hold nothing of the image.
        new = np.zeros((tokens - block.entered, prefix + patches))
        flow = np.concatenate([flow[:prefix], new, flow[prefix + len(flow) - block.entered :]])
        flow = (block.weights[:, :tokens] + np.eye(tokens)) / 2 @ flow
    return flow


def draw(found: Explanation, path: Path) -> None:
    """Write the maps as a picture, .png or .svg; of the prompts, the few that are attended to most."""
    most = np.argsort(-found.tuned.prompts, kind="stable")[:DRAWN]
    asking = found.tuned.looks
    rows: list[Mapping[str, Floats]] = [
        {"attention, frozen backbone": found.frozen.attention, "attention, tuned": found.tuned.attention},
        {"rollout, frozen backbone": found.frozen.rollout, "rollout, tuned": found.tuned.rollout},
        {f"patches to prompt {i + 1} ({100 * found.tuned.prompts[i]:.1f} %)": found.tuned.listeners[i] for i in most},
        {f"prompt {i + 1} to patches": asking[i] for i in most if i < len(asking)},
    ]
    name, share = found.answer
    title = f"{name}, {100 * share:.1f} %; {found.asked}, block {found.block}"
    figures.maps(path, found.image, [row for row in rows if row], title)


def _reads_class_token(model: TunedModel) -> bool:
    features = next(part for part in model.network.modules() if isinstance(part, Features))
    if features.pool is not None:
        return getattr(features.pool, "output", None) == "cls"
    return model.sites.prefix > 0 and getattr(features.trunk, "global_pool", None) == "token"


def _gaze(seen: Sequence[Seen], sites: Sites, by_class_token: bool) -> Gaze:
    """What stands in the last of these blocks."""
    weights = seen[-1].weights
    tokens, patches = len(weights), sites.tokens - sites.prefix
    first = tokens - patches  # prefix, prompts that travel, patches
    grid = (math.isqrt(patches),) * 2  # backbones take square images
    asked = slice(0, 1) if by_class_token else slice(first, tokens)
    prompts = [*range(sites.prefix, first), *range(tokens, weights.shape[1])]
    taken = weights[asked].mean(0)
    flow = rollout(seen, sites.prefix, patches)[asked].mean(0)
    return Gaze(
        attention=taken[first:tokens].reshape(grid),
        prefix=float(taken[: sites.prefix].sum()),
        prompts=taken[prompts],
        rollout=flow[sites.prefix :].reshape(grid),
        listeners=weights[first:, prompts].T.reshape(-1, *grid),
        looks=weights[sites.prefix : first, first:tokens].reshape(-1, *grid),
    )
