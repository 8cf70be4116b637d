"""Verification of an injection: a module that never takes part would silently train nothing."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from vpt.attention.detection import probe_image, structural_copy
from vpt.backbones.backbone import Backbone
from vpt.errors import UnsupportedError
from vpt.model.injection import Injected, supported_methods


def check_all_called(injected: Injected, trunk: nn.Module, method: str, backbone: Backbone) -> None:
    """Run one image and check that every injected module takes part.

    Args:
        injected: The injected network.
        trunk: The trunk inside it.
        method: The method's text, for the message.
        backbone: The backbone without the injection, for the message.

    Raises:
        UnsupportedError: An injected module is never called, and the features do not depend on its weights.
    """
    if not injected.wrappers:
        return
    image = probe_image(trunk, injected.layout.preprocessing.size)
    called = _called_modules(injected.network, injected.wrappers.values(), image)
    never_called = [
        path
        for path, module in injected.wrappers.items()
        if id(module) not in called and not _affects_output(injected.network, module, image)
    ]
    if never_called:
        raise UnsupportedError(
            f"{method} is injected at {', '.join(never_called)} of {backbone.name}, but the model never calls these "
            f"modules, so nothing would train; {supported_methods(structural_copy(backbone.module), injected.layout)}"
        )


@torch.no_grad()
def _called_modules(network: nn.Module, modules: Iterable[nn.Module], image: Tensor) -> set[int]:
    """Return the identities of the modules that a forward pass calls."""
    called: set[int] = set()
    with ExitStack() as hooks:
        for module in modules:
            hooks.enter_context(module.register_forward_hook(lambda module, *_: called.add(id(module))))
        network(image)
    return called


def _affects_output(network: nn.Module, module: nn.Module, image: Tensor) -> bool:
    """Return True if the features depend on a module that is not called: attention may read its weight instead."""
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    if not weights:
        return False
    with torch.enable_grad():
        total = sum(features.sum() for features in network(image))  # over samples, or over maps
        gradients = torch.autograd.grad(total, weights, allow_unused=True)
    return any(gradient is not None for gradient in gradients)
