"""Tuned models with weights that matter, and their comparison with a formula written out with plain tensors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from helpers.families import backbone_of, images
from vpt import TunedModel, attach

LABELS = torch.tensor([0, 1, 2, 1])


def tuned(family: str, method: str, scale: float = 1.0, *, head: str | None = None) -> TunedModel:
    """A tuned model whose own weights are large enough to matter."""
    torch.manual_seed(0)
    model = attach(backbone_of(family), method, 3, head=head).eval()
    with torch.no_grad():
        for weight in model.trainable_parameters():
            weight.add_(scale * torch.randn_like(weight))
    return model


def trainable_tensors(model: TunedModel, part: str) -> list[Tensor]:
    return [tensor for name, tensor in model.trainable_state_dict().items() if part in name]


def compare(model: TunedModel, reference: Callable[[Tensor], Tensor]) -> None:
    """Same logits, loss and gradients for all that is owned, to 1e-5."""
    results = []
    for network in (model, reference):
        logits = network(images().to(next(model.parameters()).dtype))
        loss = cross_entropy(logits, LABELS)
        gradients = torch.autograd.grad(loss, model.trainable_parameters())
        results.append([logits.detach(), loss.detach(), *gradients])
    for actual, wanted in zip(*results, strict=True):
        assert actual.shape == wanted.shape
        assert float(wanted.norm()) > 0
        assert float((actual - wanted).norm() / wanted.norm()) < 1e-5
