"""Expectations and the states that they compare."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def expect(condition: bool, message: str) -> None:
    """Raise AssertionError with `message` unless `condition` is true; unlike `assert`, also under `python -O`."""
    if not condition:
        raise AssertionError(message)


def expect_close(actual: Tensor, expected: Tensor, tolerance: float, message: str) -> None:
    """Raise AssertionError if the relative difference of two tensors exceeds `tolerance`."""
    error = float((actual - expected).norm() / expected.norm())
    expect(error <= tolerance, f"{message} (relative difference {error:.2g}, allowed {tolerance:g})")


def clone_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a copy of a state dict."""
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def equal_states(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Return True if two state dicts have the same names and the same bits."""
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def requires_grad_flags(module: nn.Module) -> dict[str, bool]:
    """Return name of a parameter -> requires_grad."""
    return {name: weight.requires_grad for name, weight in module.named_parameters()}


def training_modes(network: nn.Module) -> dict[str, bool]:
    """Return name and class of a module -> training."""
    return {f"{name}: {type(module).__name__}": module.training for name, module in network.named_modules()}
