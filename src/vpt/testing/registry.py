"""The checks of the contract, in the order in which they run."""

from collections.abc import Callable
from typing import Protocol

from vpt.methods.base import Method
from vpt.testing.case import BackboneLike, Case


class Check(Protocol):
    """A check of a method on a backbone; raises AssertionError with the fault."""

    __name__: str

    def __call__(self, method: str | Method, backbone: BackboneLike, head: str | None = None) -> None:
        """Check a method, or its text, on a backbone with a head; by default a linear one on the pooled feature."""


CHECKS: list[Check] = []


def register(function: Callable[[Case], None]) -> Check:
    """Make a `Check` of a function of one case, and add it to `CHECKS`.

    Args:
        function: Checks a case; raises AssertionError with the fault.

    Returns:
        The check.
    """

    def check(method: str | Method, backbone: BackboneLike, head: str | None = None) -> None:
        function(Case(method, backbone, head))

    check.__name__, check.__qualname__, check.__doc__ = function.__name__, function.__qualname__, function.__doc__
    CHECKS.append(check)
    return check
