"""What large backbones need: activations computed again, and weights in bf16."""

from __future__ import annotations

import copy
import gc
import weakref
from itertools import product
from typing import Any

import pytest
import timm
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from helpers.families import TINY, backbone_of, images
from vpt import TunedModel, attach, load_backbone
from vpt.errors import DataError
from vpt.model.ensemble import Ensemble

LABELS = torch.tensor([0, 1, 2, 1])


def run_step(model: TunedModel) -> tuple[list[Tensor], int]:
    """Logits and gradients of one step, and the bytes kept for its backward pass besides weights."""
    weights = {weight.data_ptr() for weight in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(images())
        loss = cross_entropy(logits, LABELS)
    return [logits.detach(), *torch.autograd.grad(loss, model.trainable_parameters())], sum(kept.values())


@pytest.mark.parametrize("method", ["vpt(length=3, dropout=0.5)", "vpt(depth=shallow)", "full"])
@pytest.mark.parametrize("family", ["vit", "dinov3", "swin"])
def test_activation_checkpointing_in_training_saves_memory_and_equals_plain(family: str, method: str) -> None:
    results = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = attach(backbone_of(family), method, 3, activation_checkpointing=checkpointing).train()
        results.append(run_step(model))
    (plain, kept), (recomputed, kept_then) = results
    for actual, expected in zip(recomputed, plain, strict=True):
        assert torch.allclose(actual, expected, rtol=1e-5, atol=1e-6)
    assert kept_then < 0.5 * kept


@pytest.mark.parametrize(("family", "method"), [("vit", "cross"), ("vit", "adaptive"), ("swin", "vpt(depth=shallow)")])
def test_step_with_activation_checkpointing_leaves_no_graph_and_a_model_to_copy(family: str, method: str) -> None:
    model = attach(backbone_of(family), method, 3, activation_checkpointing=True).train()
    outputs: list[weakref.ref[Tensor]] = []

    def note(_: Any, __: Any, output: Any) -> None:
        if isinstance(output, Tensor) and not output.is_leaf:
            outputs.append(weakref.ref(output))

    for module in model.network.modules():
        module.register_forward_hook(note)
    cross_entropy(model(images()), LABELS).backward()
    gc.collect()
    assert outputs and not [output for output in outputs if output() is not None]
    copy.deepcopy(model)


def test_model_that_keeps_biases_with_their_graph_in_eval_mode_is_copied() -> None:
    backbone = load_backbone(timm.create_model("levit_128s", pretrained=False))
    model, other = (attach(backbone, "full", 3).eval() for _ in range(2))
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    for each in (model, other):
        expected = each(pixels).detach()  # with gradients on
    copied = copy.deepcopy(other)
    for same in (copied, other.plain()):
        torch.testing.assert_close(same(pixels).detach(), expected)
    copied(pixels).sum().backward()
    biases = [weight for name, weight in copied.named_parameters() if name.endswith("attention_biases")]
    assert biases and all(weight.grad is not None for weight in biases)
    assert Ensemble([model, other])(pixels).isfinite().all()


def test_activation_checkpointing_of_a_model_leaves_the_backbone_unchanged() -> None:
    backbone = backbone_of("vit")
    attach(backbone, "vpt", 3, activation_checkpointing=True)
    assert not any("forward" in vars(module) for module in backbone.module.modules())


@pytest.mark.parametrize("method", ["vpt(length=2) + ssf + partial(k=1)", "prefix(length=2) + partial(k=1)"])
def test_plain_of_a_bf16_backbone_whose_last_block_trains_equals_the_model(method: str) -> None:
    backbone = load_backbone(backbone_of("vit").module.to(torch.bfloat16))
    model = attach(backbone, method, 3).eval()
    with torch.no_grad():
        torch.testing.assert_close(model.plain()(images()), model(images()), rtol=0.05, atol=0.05)


FIXED = ["adaptive", "vpt(location=add)", "vpt(location=concat_channel, depth=shallow)"]


@pytest.mark.parametrize("method", [*FIXED, "vpt(location=add_1)", "cross", "linear"])
def test_images_of_another_size_are_refused_by_methods_of_one_size_alone(method: str) -> None:
    vit = timm.create_model("vit_base_patch16_224", num_classes=0, dynamic_img_size=True, **TINY)
    model = attach(vit, method, 3).eval()
    if method in FIXED:
        with pytest.raises(DataError, match=r"images are 64x64 px, and .* for the patches of 32x32 px; resize them"):
            model(torch.randn(1, 3, 64, 64))
    else:
        assert model(torch.randn(1, 3, 64, 64)).isfinite().all()


@pytest.mark.parametrize(
    ("family", "method"),
    [
        *product(["vit", "swin"], ["vpt(length=3, dropout=0)", "linear", "ssf", "lora", "adapter", "adaptformer"]),
        *product(["convnext"], ["linear", "ssf"]),  # its blocks are not those of a transformer
    ],
)
def test_tuned_model_on_bf16_backbone_is_close_to_fp32(family: str, method: str) -> None:
    module = backbone_of(family).module
    backbone = load_backbone(copy.deepcopy(module).to(torch.bfloat16))
    assert {weight.dtype for weight in backbone.module.parameters()} == {torch.bfloat16}
    rounded, exact = (attach(one, method, 3).eval() for one in (backbone, load_backbone(module)))
    exact.load_state_dict(rounded.state_dict())
    assert {weight.dtype for weight in rounded.trainable_parameters()} == {torch.float32}
    actual, expected = rounded(images()), exact(images())
    assert actual.dtype == torch.float32
    assert float((actual - expected).detach().norm() / expected.detach().norm()) < 0.05
    cross_entropy(actual, LABELS).backward()
    assert all(bool(weight.grad.isfinite().all()) for weight in rounded.trainable_parameters())
