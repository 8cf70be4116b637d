"""The contract of a method, as checks that anyone can run on a method of their own.

For example with pytest::

    @pytest.mark.parametrize("check", vpt.testing.CHECKS)
    def test_mine(check):
        check(Mine(), my_backbone)

A check takes a head too: `check(Mine(), my_backbone, "setr_pup")`. A method that is saved and loaded must be in
`vpt.METHODS` under its name. The checks do not need pytest: they raise AssertionError with the fault.
"""

from vpt.methods.base import Method
from vpt.testing.case import BackboneLike
from vpt.testing.files import (
    check_detach,
    check_fp16_file,
    check_merge,
    check_plain,
    check_save_and_load,
    check_state_dict,
)
from vpt.testing.registry import CHECKS, Check
from vpt.testing.training import (
    check_compile,
    check_counts,
    check_deepcopy,
    check_frozen,
    check_identity_at_init,
    check_learns,
    check_mixed_precision,
    check_modes,
    check_only_trainable_gets_gradients,
    check_seed,
    check_shapes,
    check_trainable_weights_matter,
    check_two_tasks,
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
    "check_plain",
    "check_save_and_load",
    "check_seed",
    "check_shapes",
    "check_state_dict",
    "check_trainable_weights_matter",
    "check_two_tasks",
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
