"""What is timed: forms of deep prompts on ViT-S/16, a training step and a forward pass."""

from __future__ import annotations

import copy
from collections.abc import Callable

import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from textbook import FrozenViT, TextbookViT
from vpt import attach

CLASSES = 100
VIT = "vit_small_patch16_224"


def make_vit(batch: int) -> tuple[nn.Module, Tensor, Tensor]:
    """The backbone with random weights, images and labels."""
    model = timm.create_model(VIT, num_classes=0).eval()
    return model, torch.randn(batch, 3, 224, 224), torch.arange(batch) % CLASSES


def make_variant(variant: str, length: int, model: nn.Module, dropout: float = 0.0) -> nn.Module:
    """One form of deep prompts on a model of its own."""
    torch.manual_seed(0)
    if variant == "frozen":
        return FrozenViT(copy.deepcopy(model), CLASSES)
    if variant == "linear":
        return attach(model, "linear", CLASSES)
    if variant == "vpt":
        return attach(model, f"vpt(length={length}, dropout={dropout})", CLASSES)
    return TextbookViT(copy.deepcopy(model), length, CLASSES, fused=variant == "fused", dropout=dropout)


def make_step(network: nn.Module, images: Tensor, labels: Tensor, precision: str = "fp32") -> Callable[[], None]:
    """A whole iteration: forward, loss, backward and SGD. precision: "fp32", or "bf16" under autocast."""
    network.train()
    optimizer = torch.optim.SGD([w for w in network.parameters() if w.requires_grad], lr=1e-3, momentum=0.9)

    def run() -> None:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = network(images)
        cross_entropy(logits.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return run


def make_inference(network: nn.Module, images: Tensor, precision: str = "fp32") -> Callable[[], None]:
    """A forward pass that keeps nothing for a gradient. precision: as of `make_step`."""
    network.eval()

    def run() -> None:
        autocast = torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16")
        with torch.inference_mode(), autocast:
            network(images)

    return run
