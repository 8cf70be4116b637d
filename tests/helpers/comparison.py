"""Comparison of trained models."""

from __future__ import annotations

import torch

from vpt import TunedModel


def max_relative_difference(one: TunedModel, other: TunedModel) -> float:
    """The largest relative difference of an owned tensor."""
    pairs = zip(one.trainable_state_dict().values(), other.trainable_state_dict().values(), strict=True)
    with torch.no_grad():
        return max(float((a - b).norm() / b.norm()) for a, b in pairs)
