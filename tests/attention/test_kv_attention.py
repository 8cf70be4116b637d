"""The two ways in which attention is computed apart from the textbook, each against one plain softmax."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from vpt.attention.absorbed import attend_absorbed
from vpt.attention.joint_attention import attend_with_prompts

HEADS, K = 2, 8


def random_tensor(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def plain_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
    return (scale * q @ k.transpose(-2, -1) + bias).softmax(-1) @ v


def assert_same_values_and_gradients(ours: Tensor, theirs: Tensor, inputs: list[Tensor]) -> None:
    gradient = random_tensor(*ours.shape, seed=9).detach()
    for actual, expected in [
        (ours, theirs),
        *zip(torch.autograd.grad(ours, inputs, gradient), torch.autograd.grad(theirs, inputs, gradient), strict=True),
    ]:
        assert torch.allclose(actual, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shared", [1, 3, 6])  # prompts for all rows, for two rows each, for each row
@pytest.mark.parametrize("learned", [False, True])
def test_attend_with_prompts_with_bias_equals_concatenation(shared: int, learned: bool) -> None:
    q, k, v = (random_tensor(6, 5, HEADS, K, seed=seed).transpose(1, 2) for seed in range(3))
    prompts = [random_tensor(shared, 4, HEADS, K, seed=seed).transpose(1, 2) for seed in (3, 4)]
    bias = random_tensor(HEADS, 5, 5, seed=5)
    ours = attend_with_prompts(q, k, v, *prompts, scale=0.3, bias=bias if learned else bias.detach())
    wide_k, wide_v = (
        torch.cat([own, prompt.repeat_interleave(6 // shared, 0)], 2)
        for own, prompt in zip((k, v), prompts, strict=True)
    )
    theirs = plain_attention(q, wide_k, wide_v, torch.nn.functional.pad(bias, (0, 4)), 0.3)
    assert_same_values_and_gradients(ours, theirs, [q, k, v, *prompts, *([bias] if learned else [])])


def test_attend_with_prompts_of_frozen_tokens_equals_concatenation() -> None:
    q, k, v = (random_tensor(2, 5, HEADS, K, seed=seed).transpose(1, 2).detach() for seed in range(3))
    prompts = [random_tensor(1, 4, HEADS, K, seed=seed).transpose(1, 2) for seed in (3, 4)]
    ours = attend_with_prompts(q, k, v, *prompts, scale=0.3)
    joined = (torch.cat([own, prompt.expand(2, -1, -1, -1)], 2) for own, prompt in zip((k, v), prompts, strict=True))
    assert_same_values_and_gradients(ours, scaled_dot_product_attention(q, *joined, scale=0.3), prompts)


@pytest.mark.parametrize("prompt_shape", [None, (4,), (3, 4)], ids=["none", "shared", "own"])
def test_attend_absorbed_with_and_without_prompts_equals_plain_attention(prompt_shape: tuple[int, ...] | None) -> None:
    d = HEADS * K
    x, q = random_tensor(3, 5, d, seed=0), random_tensor(3, HEADS, 2, K, seed=1)
    weight_k, weight_v, bias_k, bias_v = (
        random_tensor(*shape, seed=s) for s, shape in enumerate([(d, d), (d, d), (d,), (d,)], 2)
    )
    bias = random_tensor(1, HEADS, 2, 5, seed=6).detach()
    tokens, p = x, 0
    prompts = None if prompt_shape is None else random_tensor(*prompt_shape, d, seed=7)
    if prompts is not None:
        tokens, p = torch.cat([x, prompts.expand(3, 4, d)], 1), 4
    k, v = (
        (tokens @ w.T + b).unflatten(-1, (HEADS, K)).transpose(1, 2)
        for w, b in ((weight_k, bias_k), (weight_v, bias_v))
    )
    theirs = plain_attention(q, k, v, torch.nn.functional.pad(bias, (0, p)), 0.3)
    ours = attend_absorbed(q, x, prompts, weight_k, weight_v, bias_v, scale=0.3, bias=bias)
    assert_same_values_and_gradients(
        ours, theirs, [q, x, weight_k, weight_v, bias_v, *([] if prompts is None else [prompts])]
    )
