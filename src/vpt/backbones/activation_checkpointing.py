"""Activation checkpointing: a block's activations are not kept for the backward pass but computed again there.

A third more operations for a fraction of the memory (Chen et al., 2016): what large backbones (ViT-H/14, DINOv2-g) and
large images need. Exact: dropout draws the same again.
"""

from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop


def enable_activation_checkpointing(trunk: nn.Module, blocks: Iterable[str]) -> None:
    """Recompute the blocks at these paths of `trunk` in the backward pass, with all modules injected into them.

    The modules stay where they are, so names, hooks and what a tuned model owns stay as they were. Twice does no more
    than once.
    """
    for path in blocks:
        block = trunk.get_submodule(path)
        if "forward" not in vars(block):
            vars(block)["forward"] = _CheckpointedForward(block)


class _CheckpointedForward:
    """Shadows the forward of one block; outside of training it is that forward."""

    def __init__(self, block: nn.Module) -> None:
        self.block = block

    def __call__(self, *args: Any, **context: Any) -> Any:
        original_forward = type(self.block).forward
        if not torch.is_grad_enabled():
            return original_forward(self.block, *args, **context)
        # Stopped early, a recomputation would leave what a module hands on to another, and the graph of its gradient.
        # The compiler, which does not run through Python again, traces no such switch.
        with nullcontext() if torch.compiler.is_compiling() else set_checkpoint_early_stop(False):
            return checkpoint(original_forward, self.block, *args, use_reentrant=False, **context)
