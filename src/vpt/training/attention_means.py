"""Means over training images at the attention of each block, from which prompts can begin (VIPAMIN)."""

from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vpt.attention.detection import FeatureExtractor, structural_copy
from vpt.attention.projections import expand_kv_groups, project
from vpt.methods.init_inputs import AttentionMeans
from vpt.model.tuned_model import TunedModel
from vpt.training.batches import DeviceDataset, Examples, iter_batches

_MAX_IMAGES = 256  # drawn at random, that the means are of
_BATCH_SIZE = 64


@torch.no_grad()
def collect_attention_means(model: TunedModel, examples: Examples, *, seed: int = 0) -> dict[int, AttentionMeans]:
    """Return the means at the attention of each block of a plain transformer.

    Args:
        model: The model at its random start.
        examples: The training images.
        seed: Seed of the draw of at most 256 images. Default: 0.

    Returns:
        Index of a block -> its means in float32, on the model's device.
    """
    training = model.training
    model.eval()
    device, layout = next(model.parameters()).device, model.layout
    frozen = structural_copy(model.backbone.module).to(device)
    blocks: list[Any] = [frozen.get_submodule(path) for path in layout.blocks]
    names = [layout.block_layout(block) for block in blocks]
    attentions = [getattr(block, name.attention) for block, name in zip(blocks, names, strict=True) if name]
    norms = [getattr(block, name.norm1) for block, name in zip(blocks, names, strict=True) if name]
    sums: dict[tuple[str, int], Tensor] = {}

    def add(name: str, index: int, values: Tensor) -> None:
        sums[name, index] = sums.get((name, index), 0) + values.cpu().double().sum(0)  # MPS has no float64

    def read_block(index: int, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        tokens = inputs[0][:, layout.num_prefix_tokens :]
        add("tokens", index, tokens)
        add("keys", index, _keys(attentions[index], norms[index].forward(tokens)))

    def read_output(index: int, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        add("outputs", index, inputs[0])

    images = np.sort(np.random.default_rng((seed, len(examples))).permutation(len(examples))[:_MAX_IMAGES])
    dataset = DeviceDataset.for_model(model, examples)
    batches = list(iter_batches(images, _BATCH_SIZE))
    dataset.plan(batches)
    with ExitStack() as hooks:
        for index, (path, attention) in enumerate(zip(layout.blocks, attentions, strict=True)):
            block = model.trunk.get_submodule(path)
            hooks.enter_context(block.register_forward_pre_hook(partial(read_block, index)))
            hooks.enter_context(attention.proj.register_forward_pre_hook(partial(read_output, index)))
        for indices in batches:
            inputs = dataset.inputs(indices)
            model.network(inputs)
            FeatureExtractor(frozen)(inputs)
    model.train(training)
    found = {}
    for index, (attention, norm) in enumerate(zip(attentions, norms, strict=True)):
        width = sums["tokens", index].shape[1]
        dtype = next(attention.parameters()).dtype
        bias = _values(attention, torch.zeros(1, width, dtype=dtype, device=device))
        weight = (_values(attention, torch.eye(width, dtype=dtype, device=device)) - bias).T
        means = {name: (sums[name, index] / len(images)).float().to(device) for name in ("tokens", "keys", "outputs")}
        found[index] = AttentionMeans(
            **means,
            project_keys=partial(_project_keys, attention, norm),
            value_weight=weight.float(),
            value_bias=bias[0].float(),
        )
    return found


def _keys(attention: nn.Module, x: Tensor) -> Tensor:
    """Return the keys of normalized tokens, averaged over the heads (batch, n, d/heads)."""
    return project(attention, x, "kv")[0].mean(1)


def _project_keys(attention: nn.Module, norm: nn.Module, prompts: Tensor) -> Tensor:
    dtype = next(attention.parameters()).dtype
    return _keys(attention, norm.forward(prompts.to(dtype)))[0].float()


def _values(attention: nn.Module, x: Tensor) -> Tensor:
    """Return the values of normalized tokens (n, d)."""
    (values,) = expand_kv_groups(attention, project(attention, x, "kv")[1])
    return values.transpose(1, 2).flatten(2)[0]
