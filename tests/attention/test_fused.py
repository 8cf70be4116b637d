"""Fused attention: left out where its backward pass is slow, and the same to rounding."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import timm
import torch

from helpers.two_processes import CONFIG, examples, model
from vpt.attention.fused import without_fused_attention
from vpt.tasks.classification import train
from vpt.training import Callback


@pytest.fixture(autouse=True)
def timm_fuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default of timm, whatever the environment says."""
    monkeypatch.setattr("timm.layers.config._USE_FUSED_ATTN", 1)


def flags(network: torch.nn.Module) -> list[bool]:
    return [module.fused_attn for module in network.modules() if hasattr(module, "fused_attn")]


def test_flags_of_fused_attention_return_after_an_error() -> None:
    tuned: Any = model("full")
    assert len(flags(tuned)) > 1 and all(flags(tuned))
    last = [module for module in tuned.modules() if hasattr(module, "fused_attn")][-1]
    last.fused_attn = False  # somebody's choice
    with pytest.raises(RuntimeError), without_fused_attention(tuned):
        assert not any(flags(tuned))
        raise RuntimeError
    assert all(flags(tuned)[:-1]) and last.fused_attn is False


@pytest.mark.parametrize(("precision", "fused"), [("bf16", False), ("fp32", True)])
def test_training_on_a_cpu_fuses_attention_in_fp32_alone(precision: str, fused: bool) -> None:
    tuned: Any = model("vpt(length=3)")
    seen = list[bool]()
    attention = next(module for module in tuned.modules() if hasattr(module, "fused_attn"))

    def note(*_: Any) -> None:
        if torch.is_grad_enabled():  # a step, not the look at the loss after the last one
            seen.append(attention.fused_attn)

    attention.proj.register_forward_hook(note)
    after = list[bool]()

    class Watch(Callback):
        def on_step(self, *args: Any) -> None:
            after.extend(flags(tuned))

    train(tuned, examples(), CONFIG.replace(precision=precision, epochs=1), callback=Watch())
    assert seen and set(seen) == {fused} and after and all(after)


def test_training_fuses_attention_over_many_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    tuned: Any = model("vpt(length=3)")
    monkeypatch.setattr("vpt.training.loop._MOST_TOKENS", tuned.layout.num_tokens - 1)
    attention = next(module for module in tuned.modules() if hasattr(module, "fused_attn"))
    seen = list[bool]()
    attention.proj.register_forward_hook(lambda module, args, output: seen.append(attention.fused_attn))
    train(tuned, examples(), CONFIG.replace(precision="bf16", epochs=1))
    assert seen and all(seen)


@pytest.mark.parametrize("method", ["vpt(length=3)", "lora(rank=2)", "full"])
def test_gradients_without_fused_attention_are_the_same(method: str) -> None:
    tuned = model(method)
    images = torch.randn(2, 3, tuned.backbone.preprocessing.size, tuned.backbone.preprocessing.size)
    found = []
    for fused in (True, False):
        tuned.zero_grad()
        if fused:
            tuned(images).square().sum().backward()
        else:
            with without_fused_attention(tuned):
                tuned(images).square().sum().backward()
        found.append([weight.grad.clone() for weight in tuned.trainable_parameters() if weight.grad is not None])
    assert found[0] and len(found[0]) == len(found[1])
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)


def test_bf16_gradients_without_fused_attention_are_those_of_timm() -> None:
    """The peer is timm's own attention after `set_fused_attn(False)`."""
    images, gradients = torch.randn(2, 3, 160, 160), []
    for ours in (True, False):
        timm.layers.set_fused_attn(ours)  # undone by the fixture
        torch.manual_seed(0)
        network = timm.create_model("test_vit", num_classes=3)
        with without_fused_attention(network) if ours else nullcontext(), torch.autocast("cpu", torch.bfloat16):
            assert not any(flags(network))
            network(images).float().square().sum().backward()
        gradients.append([weight.grad for weight in network.parameters()])
    assert all(torch.equal(first, second) for first, second in zip(*gradients, strict=True))
