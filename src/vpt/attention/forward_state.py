"""State of a forward pass: what one module hands to another that runs later in the same pass."""

import threading
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

T = TypeVar("T")


class ForwardState(Generic[T]):
    """A value of one forward pass, apart for each thread, so that several threads can predict with one model.

    It is no part of the model: copies and pickles of a model begin without it.
    """

    def __init__(self) -> None:
        self._local = threading.local()

    def set(self, value: T) -> None:
        """Set the value.

        Args:
            value: The value, which stays until `pop`.
        """
        self._local.value = value

    @property
    def is_set(self) -> bool:
        """Whether this thread has set a value that it has not popped."""
        return getattr(self._local, "value", None) is not None

    def pop(self) -> T:
        """Return the value that this thread set last, and forget it, with the graph of its gradient."""
        value: T = self._local.value
        self._local.value = None
        return value

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


def empty_caches(root: nn.Module) -> dict[int, Any]:
    """Return a memo with which a deep copy begins without what modules keep between passes with a graph.

    In eval mode, LeViT and its like keep the biases of their attention. Where these train and gradients are on, they
    are no leaves of a graph, which torch does not copy. Attributes that begin with "_", such as the parameters of a
    module, are no caches.

    Args:
        root: The module that is copied.

    Returns:
        Identity of a cache -> an empty one.
    """
    attributes = (item for module in root.modules() for item in vars(module).items())
    return {id(value): {} for name, value in attributes if not name.startswith("_") and _has_graph(value)}


def _has_graph(value: object) -> bool:
    values = value.values() if isinstance(value, dict) else ()
    return any(isinstance(each, Tensor) and not each.is_leaf for each in values)


class KeepInput(nn.Module):
    """Replacement of a norm, which keeps its input for a module that runs later in the same pass."""

    def __init__(self, norm: nn.Module, state: ForwardState[Tensor]) -> None:
        """Wrap a norm.

        Args:
            norm: The norm.
            state: Where the input is kept.
        """
        super().__init__()
        self.norm = norm
        self.state = state

    def forward(self, x: Tensor) -> Tensor:
        """Keep the input, and return what the norm makes of it."""
        self.state.set(x)
        return self.norm(x)  # type: ignore[no-any-return]
