"""The extension points of a method, each used by a small method that exists only here."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from helpers.families import backbone_of, images, model_of
from vpt import METHODS, Injection, Method, TunedModel, attach
from vpt.attention.class_token_block import ClassTokenBlock
from vpt.backbones.layout import BackboneLayout
from vpt.errors import UnsupportedError
from vpt.methods.base import InitInput, InitInputs
from vpt.methods.kv_prompts import inject_keys
from vpt.methods.prompts import make_prompts
from vpt.serving.multi_task import MultiTaskBackbone, TaskAdapter
from vpt.testing import CHECKS, Check, check_compile
from vpt.training import Examples, collect_block_inputs, collect_init_inputs

P = 3


@dataclass(frozen=True)
class Penalized(Method):
    """Deep prompts whose squared norm is added to the loss."""

    name = "penalized"

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        prompts = nn.ModuleList(make_prompts(layout.block_widths(trunk), layout, P))
        wrappers = inject_keys(trunk, layout, dict(enumerate(prompts)))
        return Injection(modules={"prompts": prompts}, wrappers=wrappers, penalty=partial(squared_norm, prompts))


def squared_norm(module: nn.Module) -> Tensor:
    return torch.stack([weight.square().sum() for weight in module.parameters()]).sum()


@dataclass(frozen=True)
class FromTokens(Penalized):
    """Deep prompts that begin as the first sampled tokens of their block."""

    name = "from_tokens"

    @property
    def init_inputs(self) -> frozenset[InitInput]:
        return frozenset({"tokens"})

    def initialize(self, inputs: InitInputs, modules: nn.ModuleDict) -> None:
        for index, prompts in enumerate(modules["prompts"].children()):
            prompts.tokens.copy_(inputs.tokens[index][:P])


@dataclass(frozen=True)
class GatedKeys(Method):
    """Deep prompts with a softmax of their own and a gate per block."""

    name = "gated_keys"
    identity_at_init = True

    gate: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "identity_at_init", self.gate == 0)

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        prompts = nn.ModuleList(make_prompts(layout.block_widths(trunk), layout, P))
        gates = nn.ParameterList([nn.Parameter(torch.tensor(self.gate)) for _ in prompts])
        wrappers = inject_keys(trunk, layout, dict(enumerate(prompts)), gates=dict(enumerate(gates)))
        return Injection(modules={"prompts": prompts, "gates": gates}, wrappers=wrappers)


class PromptsOfMean(nn.Module):
    """The mean of a block's tokens, through a linear layer, as p prompts."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, P * width)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.mean(1)).unflatten(1, (P, -1))


@dataclass(frozen=True)
class OfImage(Method):
    """Prompts that depend on the image."""

    name = "of_image"

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        prompts = nn.ModuleList([PromptsOfMean(width) for width in layout.block_widths(trunk)])
        wrappers = inject_keys(trunk, layout, dict(enumerate(prompts)), per_image=True)
        return Injection(modules={"prompts": prompts}, wrappers=wrappers)


@dataclass(frozen=True)
class OtherKeys(Method):
    """Deep prompts whose module has a name of its own."""

    name = "other_keys"

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        keys = nn.ModuleList(make_prompts(layout.block_widths(trunk), layout, P))
        return Injection(modules={"keys": keys}, wrappers=inject_keys(trunk, layout, dict(enumerate(keys))))


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for kind in (Penalized, FromTokens, GatedKeys, OfImage, OtherKeys):
        monkeypatch.setitem(METHODS, kind.name, kind)
    yield


def tuned(family: str, method: str) -> TunedModel:
    torch.manual_seed(0)
    model = attach(backbone_of(family), method, 3).eval()
    with torch.no_grad():
        for weight in model.trainable_parameters():
            weight.add_(0.5 * torch.randn_like(weight))
    return model


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
    with pytest.raises(UnsupportedError, match="no blocks with tokens are known in ResNet"):
        layout.block_widths(model_of("resnet"))


def test_penalty_of_method_without_one_is_none() -> None:
    assert attach(backbone_of("vit"), "vpt", 3).penalty() is None


def test_penalty_of_prompts_equals_their_squared_norm() -> None:
    model = tuned("vit", "penalized")
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


def concat_reference(model: TunedModel, timms: Any, gated: bool) -> Tensor:
    """Blocks written out: keys of prompts and tokens side by side, weights by hand, timm's layers one by one."""
    prefix, state = timms.num_prefix_tokens, model.trainable_state_dict()
    x = timms.norm_pre(timms._pos_embed(timms.patch_embed(images())))
    for index, block in enumerate(timms.blocks):
        attn, normed = block.attn, block.norm1(x)
        if gated:
            own = state[f"prompts.{index}.tokens"].expand(len(x), -1, -1)
        else:
            layer = (state[f"prompts.{index}.layer.weight"], state[f"prompts.{index}.layer.bias"])
            own = nn.functional.linear(normed.mean(1), *layer).unflatten(1, (P, -1))
        joined = torch.cat([block.norm1(own), normed], dim=1)
        q, k, v = attn.qkv(joined).unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) * attn.scale
        if gated:
            weights = torch.cat(
                [state[f"gates.{index}"] * scores[..., :P].softmax(-1), scores[..., P:].softmax(-1)], dim=-1
            )
        else:
            weights = scores.softmax(-1)
        out = (weights @ v)[:, :, P:].transpose(1, 2).flatten(2)
        x = x + block.ls1(attn.proj(out))
        x = x + block.ls2(block.mlp(block.norm2(x)))
    assert prefix
    return model.head(timms.forward_head(timms.norm(x), pre_logits=True))


@pytest.mark.parametrize("family", ["vit", "vit-avg", "dinov2-reg"])
@pytest.mark.parametrize("method", ["gated_keys(gate=0.7)", "of_image"])
def test_kv_prompts_with_gate_or_image_equal_concatenation(family: str, method: str) -> None:
    """With the class token alone in the last block (vit, dinov2-reg) and with all tokens (vit-avg)."""
    model = tuned(family, method)
    cls_only = any(isinstance(module, ClassTokenBlock) for module in model.network.modules())
    assert cls_only == (family != "vit-avg")
    results = []
    for logits in (model(images()), concat_reference(model, model_of(family), method.startswith("gated"))):
        loss = nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 1]))
        results.append([logits.detach(), *torch.autograd.grad(loss, model.trainable_parameters())])
    for actual, expected in zip(*results, strict=True):
        assert float(expected.norm()) > 0
        assert float((actual - expected).norm() / expected.norm()) < 1e-4


def test_gated_keys_on_swin_equal_reference() -> None:
    """In each window: timm's own attention, plus the gate times a softmax over prompts."""
    model, timms = tuned("swin", "gated_keys(gate=0.7)"), model_of("swin")
    state = model.trainable_state_dict()
    blocks = [block for stage in timms.layers for block in stage.blocks]

    def gated(index: int, block: Any) -> Any:
        attn = block.attn

        def forward(x: Tensor, mask: Tensor | None = None) -> Tensor:
            projected: list[Tensor] = []
            handle = attn.proj.register_forward_pre_hook(lambda layer, args: projected.append(args[0]))
            type(attn).forward(attn, x, mask=mask)
            handle.remove()
            prompts = block.norm1(state[f"prompts.{index}.tokens"])[None]
            q = attn.qkv(x).unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)[0]
            _, k, v = attn.qkv(prompts).unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
            extra = (q @ k.transpose(-2, -1) * attn.scale).softmax(-1) @ v
            return attn.proj(projected[0] + state[f"gates.{index}"] * extra.transpose(1, 2).flatten(2))

        return forward

    for index, block in enumerate(blocks):
        block.attn.forward = gated(index, block)
    with torch.no_grad():
        expected = model.head(timms.forward_head(timms.forward_features(images()), pre_logits=True))
        assert torch.allclose(model(images()), expected, rtol=1e-4, atol=1e-5)


def test_gated_keys_with_gate_of_zero_equal_the_frozen_feature() -> None:
    for family in ("vit", "swin", "beit"):
        model = attach(backbone_of(family), "gated_keys", 3).eval()
        plain = attach(backbone_of(family), "linear", 3).eval()
        with torch.no_grad():
            assert torch.allclose(model.features(images()), plain.features(images()), rtol=1e-5, atol=1e-6)


def test_attention_weights_of_gated_keys_sum_to_one_plus_the_gate() -> None:
    model = tuned("vit", "gated_keys(gate=0.7)")
    attention = model.wrappers()["blocks.0.attn"]
    gate = float(model.trainable_state_dict()["gates.0"].detach())
    weights = attention.attention_weights(torch.randn(2, 17, 32))
    assert torch.allclose(weights[..., :17].sum(-1), torch.ones(()), atol=1e-5)
    assert torch.allclose(weights[..., 17:].sum(-1), torch.full((), gate), atol=1e-5)


def test_multi_task_backbone_with_gated_keys_equals_single_models() -> None:
    backbone = backbone_of("vit")
    models = []
    for seed, method in enumerate(["gated_keys(gate=0.5)", "gated_keys(gate=0.5)", "vpt(length=3)", "linear"]):
        torch.manual_seed(seed)
        models.append(attach(backbone, method, 3).eval())
        with torch.no_grad():
            for weight in models[-1].trainable_parameters():
                weight.add_(0.5 * torch.randn_like(weight))
    tasks = [TaskAdapter.from_model(model) for model in models]
    assert all(task is not None for task in tasks)
    batch = images(8)
    answers = MultiTaskBackbone(backbone)(batch, [tasks[i % 4] for i in range(8)])
    with torch.no_grad():
        for i in range(8):
            assert torch.allclose(answers[i], models[i % 4](batch[i : i + 1])[0], rtol=1e-4, atol=1e-5)


def test_task_adapter_of_image_dependent_prompts_is_none() -> None:
    assert TaskAdapter.from_model(attach(backbone_of("vit"), "of_image", 3)) is None
