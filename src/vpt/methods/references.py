"""References to modules that stand elsewhere in the tree."""

from torch import nn


def refer(owner: nn.Module, **modules: object) -> None:
    """Set attributes of a module without making their values its children.

    A module that stands twice in a tree gives its tensors two names, which functional calls, sharded training and
    export do not expect. Moving to a device and copying reach the module by its one place in the tree.

    Args:
        owner: The module that uses others.
        **modules: Name of the attribute -> the module, or another callable.
    """
    owner.__dict__.update(modules)
