"""Prompted attention under the transformations of others: functorch, double backward, math kernels, export, hooks."""

from __future__ import annotations

import re
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from helpers.families import images
from helpers.references import tuned

DEEP = "vpt(length=3)"
FORMS = [
    (DEEP, "vit"),
    (DEEP, "swin"),
    (DEEP, "beit"),
    (DEEP, "dinov3"),
    ("vpt(length=3, depth=shallow)", "vit"),
    ("vpt(length=3, attention=zero_init)", "vit"),
    ("prefix(length=3)", "vit"),
    ("cross(length=3)", "vit"),
    ("adaptive(length=2)", "vit"),
    ("vpt(length=3, projection=4)", "vit"),
]
WRAPPED = re.compile(r"\.(attention|block)\b|(?<=[12])\.(norm|drop_path)\b")  # names of what wrappers of ours hold
LABELS = torch.tensor([0, 2, 1, 0])


def trainable(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch's, of its own attention
@pytest.mark.parametrize(("method", "family"), FORMS)
def test_per_sample_gradients_by_vmap_equal_those_of_single_images(method: str, family: str) -> None:
    model, batch = tuned(family, method, 0.3), images()
    weights = {name: weight.detach() for name, weight in trainable(model).items()}

    def loss(weights: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, weights, (image[None],)), label[None])

    found = vmap(grad(loss), (None, 0, 0))(weights, batch, LABELS)
    for index in range(len(batch)):
        expected = torch.autograd.grad(
            F.cross_entropy(model(batch[index : index + 1]), LABELS[index : index + 1]), trainable(model).values()
        )
        for name, gradient in zip(weights, expected, strict=True):
            torch.testing.assert_close(found[name][index], gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["vit", "swin", "beit"])
def test_second_derivative_equals_that_of_the_math_kernel(family: str) -> None:
    model, batch = tuned(family, DEEP, 0.3), images()
    prompts = [weight for name, weight in trainable(model).items() if "prompts" in name]

    def second() -> tuple[Tensor, ...]:
        first = torch.autograd.grad(F.cross_entropy(model(batch), LABELS), prompts, create_graph=True)
        return torch.autograd.grad(sum(each.square().sum() for each in first), prompts)

    # Frozen attention of torch has no second derivative on the CPU either; blocks behind prompts are prompted, too.
    found = second()
    with sdpa_kernel(SDPBackend.MATH):
        expected = second()
    for actual, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(actual, reference, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "family"), [*(form for form in FORMS if form[1] != "swin"), ("lora(rank=2)", "vit")]
)
def test_attention_without_fusion_gives_the_same_logits_and_gradients(method: str, family: str) -> None:
    model, batch = tuned(family, method, 0.3), images()
    answers = []
    for fused in (True, False):
        for module in model.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = fused
        logits = model(batch)
        answers.append([logits, *torch.autograd.grad(logits.square().sum(), trainable(model).values())])
    for fused_answer, plain_answer in zip(*answers, strict=True):
        torch.testing.assert_close(plain_answer, fused_answer, rtol=1e-4, atol=3e-5)


def test_windows_without_fusion_give_the_same_logits() -> None:
    model, batch = tuned("swin", DEEP, 0.3), images()
    expected = model(batch)
    timm.layers.set_fused_attn(False)
    try:
        found = model(batch)
    finally:
        timm.layers.set_fused_attn(True)
    assert not torch.equal(found, expected)  # the weights of attention are formed
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_math_attention_steps_around_the_kernel_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from vpt.attention import joint_attention

    model, batch = tuned("vit", DEEP, 0.3), images()
    expected = model(batch)
    monkeypatch.setattr(joint_attention, "_FORWARD", None)
    with pytest.raises(TypeError):
        model(batch)
    with sdpa_kernel(SDPBackend.MATH):
        torch.testing.assert_close(model(batch), expected, rtol=1e-4, atol=1e-5)


def count_calls(network: nn.Module, trunk: nn.Module) -> dict[str, int]:
    """Calls in one pass of the hooks of layers, by timm's name of the layer."""
    calls: dict[str, int] = {}

    def count(name: str) -> Any:
        return lambda *_: calls.update({name: calls.get(name, 0) + 1})

    layers = [(path, module) for path, module in trunk.named_modules() if not [*module.children()]]
    hooks = [module.register_forward_hook(count(WRAPPED.sub("", path))) for path, module in layers]
    with torch.no_grad():
        network(images())
    for hook in hooks:
        hook.remove()
    return calls


@pytest.mark.parametrize(
    ("method", "family"),
    [
        *FORMS,
        *((DEEP, family) for family in ("vit-qknorm", "eva02", "siglip")),
        *(("cross(length=3)", family) for family in ("vit-qknorm", "beit", "swin")),
        *((method, "vit") for method in ("linear", "mlp", "head2toe", "partial", "bias", "full")),
    ],
)
def test_hook_of_each_layer_fires_once_a_pass(method: str, family: str) -> None:
    model: Any = tuned(family, method, 0.3)
    plain: Any = model.plain()
    expected = count_calls(model.backbone.module, model.backbone.module)
    # Fused attention forms no weights, and neither classifier nor what is only before it belongs to the trunk here.
    unused = [name for name in expected if re.search(r"\.(attn_drop|softmax)$|^(head|fc_norm)", name)]
    for name in unused:
        del expected[name]
    assert set(expected.values()) == {1}
    for calls in (count_calls(model, model.trunk), count_calls(plain, plain.network.trunk)):
        assert {name: calls.get(name) for name in expected} == expected


@pytest.mark.parametrize(("method", "family"), [(DEEP, "vit"), (DEEP, "swin"), ("vpt(length=3, depth=shallow)", "vit")])
def test_exported_program_takes_any_batch_size(method: str, family: str) -> None:
    model, batch = tuned(family, method, 0.3), images()
    program = torch.export.export(model, (batch,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False)
    for count in (1, 3):
        torch.testing.assert_close(program.module()(batch[:count]), model(batch[:count]), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
def test_traced_model_takes_any_batch_size() -> None:
    model, batch = tuned("vit", DEEP, 0.3), images()
    traced = torch.jit.trace(model, batch)
    torch.testing.assert_close(traced(batch[:1]), model(batch[:1]), rtol=1e-4, atol=1e-5)
