"""The extension points of a method, each used by a small method that exists only here."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.extensions import P
from helpers.families import backbone_of, model_of
from helpers.references import tuned
from vpt import attach
from vpt.errors import UnsupportedError
from vpt.testing import CHECKS, Check, check_compile
from vpt.training import Examples, collect_block_inputs, collect_init_inputs

pytestmark = pytest.mark.usefixtures("extensions")


def examples(count: int = 10) -> Examples:
    rng = np.random.default_rng(0)
    return Examples(rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8), np.arange(count) % 3)


CASES = [
    *((method, family) for method in ("penalized", "from_tokens") for family in ("vit", "swin")),
    # A gate of 0 gives its prompts no gradient in the first step, so the checks begin above it.
    *(("gated_keys(gate=0.5)", family) for family in ("vit", "dinov3", "eva02-unfused", "beit", "swin")),
    *(("of_image", family) for family in ("vit", "dinov3", "beit", "swin")),
    ("penalized + bias", "vit"),
]


@pytest.mark.parametrize(("method", "family"), CASES, ids=lambda value: value)
@pytest.mark.parametrize("check", [c for c in CHECKS if c is not check_compile], ids=lambda check: check.__name__)
def test_extension_on_each_family_keeps_the_contract(check: Check, method: str, family: str) -> None:
    check(method, backbone_of(family))


@pytest.mark.parametrize("method", ["gated_keys(gate=0.5)", "of_image"])
def test_extension_when_compiled_is_one_graph(method: str) -> None:
    check_compile(method, backbone_of("vit"))


@pytest.mark.parametrize(
    ("method", "family", "path"),
    [
        ("other_keys + vpt(length=3)", "vit", r"blocks\.0\.attn"),
        ("of_image + other_keys", "beit", r"blocks\.0\.attn"),
        ("other_keys + vpt(length=3)", "swin", r"layers\.0\.blocks\.0\.attn"),
        ("other_keys + vpt(length=3, depth=shallow)", "dinov3", r"blocks\.0\.attn"),
        ("other_keys + vpt(length=3, depth=shallow)", "swin", r"layers\.0\.blocks\.0"),
    ],
)
def test_sum_of_two_methods_with_prompts_in_one_attention_is_refused(method: str, family: str, path: str) -> None:
    with pytest.raises(
        UnsupportedError,
        match=rf"cannot be injected at {path}: .* already carries the prompts of another term.*keep one",
    ):
        attach(backbone_of(family), method, 3)


def test_block_widths_of_each_family_equal_its_stage_widths() -> None:
    for family, widths in (("vit", [32, 32, 32]), ("swin", [16, 16, 32, 32])):
        model = attach(backbone_of(family), "linear", 3)
        assert model.layout.block_widths(model_of(family)) == widths
    layout = attach(backbone_of("resnet"), "linear", 3).layout
    with pytest.raises(UnsupportedError, match="and ResNet has no blocks with attention"):
        layout.block_widths(model_of("resnet"))


def test_penalty_of_method_without_one_is_none() -> None:
    assert attach(backbone_of("vit"), "vpt", 3).penalty() is None


def test_penalty_of_prompts_equals_their_squared_norm() -> None:
    model = tuned("vit", "penalized", 0.5)
    prompts = [weight for name, weight in model.trainable_state_dict().items() if name.startswith("prompts.")]
    expected = sum(float(weight.detach().square().sum()) for weight in prompts)
    penalty = model.penalty()
    assert penalty is not None and float(penalty.detach()) == pytest.approx(expected, rel=1e-5)
    (gradient,) = torch.autograd.grad(penalty, prompts[:1])
    assert torch.allclose(gradient, 2 * prompts[0])
    copied = copy.deepcopy(model)
    with torch.no_grad():
        prompts[0].zero_()
    assert copied.penalty() == penalty.detach() and model.penalty() < penalty.detach()


def test_initialize_from_tokens_copies_the_tokens_of_each_block() -> None:
    model = attach(backbone_of("vit"), "from_tokens", 3)
    inputs = collect_init_inputs(model, examples(), seed=3)
    assert inputs.prototypes is None and set(inputs.tokens) == {0, 1, 2}
    model.initialize(inputs)
    for index in range(3):
        assert torch.equal(model.trainable_state_dict()[f"prompts.{index}.tokens"], inputs.tokens[index][:P])


@pytest.mark.parametrize(("family", "width"), [("vit", 32), ("dinov2-reg", 32), ("swin", 16), ("convnext", 8)])
def test_collect_block_inputs_of_each_family_returns_tokens_of_the_block(family: str, width: int) -> None:
    """Every sampled token is one of those that timm's own forward pass gives to the block."""
    backbone, data = backbone_of(family), examples()
    model = attach(backbone, "linear", 3)
    found = collect_block_inputs(model, data, [0], max_tokens=20, batch_size=4, seed=1)[0]
    entered: list[Tensor] = []
    timms: Any = model_of(family)
    timms.get_submodule(model.layout.blocks[0]).register_forward_pre_hook(lambda block, args: entered.append(args[0]))
    with torch.no_grad():
        timms.forward_features(backbone.preprocessing.normalize(torch.from_numpy(data.pixels)))
    x = entered[0]
    if family in ("vit", "dinov2-reg"):
        x = x[:, timms.num_prefix_tokens :]
    elif family == "swin":
        x = x.flatten(1, 2)
    else:
        x = x.flatten(2).transpose(1, 2)
    assert found.shape == (20, width)
    distances = torch.cdist(found, x.flatten(0, 1), compute_mode="donot_use_mm_for_euclid_dist")
    assert float(distances.amin(1).max()) < 1e-4
    again = collect_block_inputs(model, data, [0], max_tokens=20, batch_size=4, seed=1)[0]
    other = collect_block_inputs(model, data, [0], max_tokens=20, batch_size=4, seed=2)[0]
    assert torch.equal(found, again) and not torch.equal(found, other)
    assert collect_block_inputs(model, data, [0], max_tokens=4)[0].shape == (4, width)
