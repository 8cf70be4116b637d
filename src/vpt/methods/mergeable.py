"""Re-parameterizations: replacements of a layer that change its weight linearly and can be merged into it."""

from abc import abstractmethod
from typing import Any

from torch import Tensor, nn

from vpt.errors import UnsupportedError


class Mergeable(nn.Module):
    """Base of replacements of a layer.

    Shows the weight and bias that the layer would need to do the same, so that whoever reads them (attention that
    projects keys alone; `TunedModel.merge`) gets the tuned ones.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        if not isinstance(getattr(layer, "weight", None), Tensor):
            raise UnsupportedError("an earlier term of the sum has replaced the layer; write that term last")
        self.layer: Any = layer

    @property
    @abstractmethod
    def weight(self) -> Tensor:
        """The weight with the change merged in."""

    @property
    def bias(self) -> Tensor | None:
        """The bias with the change merged in."""
        found: Tensor | None = self.layer.bias
        return found

    def merged_state(self) -> dict[str, Tensor]:
        """The layer's state with the change merged in."""
        inside = self.layer.merged_state() if isinstance(self.layer, Mergeable) else self.layer.state_dict()
        bias = self.bias
        return {**inside, "weight": self.weight} | ({} if bias is None else {"bias": bias})

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "layer":
                raise
            return getattr(self.layer, name)  # in_features, normalized_shape, ...: as the layer says
