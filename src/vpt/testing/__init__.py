"""The contract of a method, as checks that anyone can run on a method of their own.

For example with pytest::

    @pytest.mark.parametrize("check", vpt.testing.CHECKS)
    def test_mine(check):
        check(Mine(), my_backbone)

A check takes a head too: `check(Mine(), my_backbone, "setr_pup")`. A method that is saved and loaded must be in
`vpt.METHODS` under its name. The checks do not need pytest: they raise AssertionError with the fault.
"""

from __future__ import annotations

from typing import Protocol

from vpt.methods.base import Method
from vpt.testing.model_checks import (
    check_compile,
    check_counts,
    check_deepcopy,
    check_detach,
    check_fp16_file,
    check_merge,
    check_mixed_precision,
    check_save_and_load,
    check_state_dict,
    check_two_tasks,
)
from vpt.testing.support import BackboneLike
from vpt.testing.training_checks import (
    check_frozen,
    check_identity_at_init,
    check_learns,
    check_modes,
    check_only_trainable_gets_gradients,
    check_seed,
    check_shapes,
    check_trainable_weights_matter,
)

__all__ = [
    "CHECKS",
    "Check",
    "check_compile",
    "check_counts",
    "check_deepcopy",
    "check_detach",
    "check_fp16_file",
    "check_frozen",
    "check_identity_at_init",
    "check_learns",
    "check_merge",
    "check_method",
    "check_mixed_precision",
    "check_modes",
    "check_only_trainable_gets_gradients",
    "check_save_and_load",
    "check_seed",
    "check_shapes",
    "check_state_dict",
    "check_trainable_weights_matter",
    "check_two_tasks",
]


class Check(Protocol):
    """A check of a method on a backbone; raises AssertionError with the fault."""

    __name__: str

    def __call__(self, method: str | Method, backbone: BackboneLike, head: str | None = None) -> None:
        """Check a method on a backbone.

        Args:
            method: The method or its text.
            backbone: The backbone, or a timm model.
            head: Text of the head. Default: a linear layer on the pooled feature.

        Raises:
            AssertionError: The method breaks the contract.
        """


CHECKS: list[Check] = [
    check_shapes,
    check_seed,
    check_trainable_weights_matter,
    check_identity_at_init,
    check_merge,
    check_only_trainable_gets_gradients,
    check_frozen,
    check_modes,
    check_learns,
    check_counts,
    check_state_dict,
    check_save_and_load,
    check_fp16_file,
    check_detach,
    check_two_tasks,
    check_deepcopy,
    check_mixed_precision,
    check_compile,
]


def check_method(method: str | Method, backbone: BackboneLike, head: str | None = None) -> None:
    """Run every check; the first that fails raises AssertionError.

    Args:
        method: The method or its text.
        backbone: The backbone, or a timm model.
        head: Text of the head. Default: a linear layer on the pooled feature.
    """
    for check in CHECKS:
        check(method, backbone, head)
