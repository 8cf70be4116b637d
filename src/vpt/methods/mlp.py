"""MLP-k: a deeper head on the frozen feature (paper, section 4, baseline "Mlp-k")."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from vpt.backbones.layout import BackboneLayout
from vpt.errors import SpecError
from vpt.methods.base import Injection, Method

_MAX_LAYERS = 1000


@dataclass(frozen=True)
class MLP(Method, name="mlp", learning_rate=0.1, identity_at_init=True):
    """A head of `layers` layers: all but the last are Linear d -> d, ReLU, BatchNorm, Dropout.

    The paper's MLP-3, its best, has two hidden layers.

    Args:
        layers: Number of layers. Default: 3.
        dropout: Dropout behind each hidden layer, in training. Default: 0.1.
    """

    layers: int = 3
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if not 2 <= self.layers <= _MAX_LAYERS:
            raise SpecError(
                f"layers is {self.layers}; an MLP has at least 2 (one layer alone: `linear`), and at most {_MAX_LAYERS}"
            )
        if not 0 <= self.dropout < 1:
            raise SpecError(f"dropout is {self.dropout}; it must be at least 0 and below 1")

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        """Plan an MLP head in place of the linear head."""
        return Injection(make_head=self._make_head)

    def _make_head(self, width: int, num_classes: int) -> nn.Module:
        layers: list[nn.Module] = []
        for _ in range(self.layers - 1):
            layers += [nn.Linear(width, width), nn.ReLU(), _BatchNorm(width), nn.Dropout(self.dropout)]
        return nn.Sequential(*layers, nn.Linear(width, num_classes))


class _BatchNorm(nn.BatchNorm1d):
    """A batch of one image, as the last of an epoch can be, has no spread: it is normalized by what is known so far."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(x)
