"""SGD and AdamW for many models at once: each has a step size and a weight decay of its own.

The same arithmetic as torch's optimizers, on weights whose first two dimensions, (groups, settings), number the models.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor


class Optimizer(ABC):
    """weights: each (groups, settings, ...). weight_decay: (groups, settings)."""

    def __init__(self, weights: Sequence[Tensor], weight_decay: Tensor) -> None:
        self.weights = weights
        self.weight_decay = weight_decay
        self.steps = 0

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], step_sizes: Tensor) -> None:
        """One step. gradients: one per weight, of its shape. step_sizes: (groups, settings)."""
        self.steps += 1
        for number, (weight, gradient) in enumerate(zip(self.weights, gradients, strict=True)):
            wide = (*step_sizes.shape, *[1] * (weight.dim() - 2))
            self._move(number, weight, gradient, step_sizes.view(wide), self.weight_decay.view(wide))

    @abstractmethod
    def _move(self, number: int, weight: Tensor, gradient: Tensor, step_size: Tensor, decay: Tensor) -> None: ...


class SGD(Optimizer):
    """With momentum 0.9."""

    def __init__(self, weights: Sequence[Tensor], weight_decay: Tensor) -> None:
        super().__init__(weights, weight_decay)
        self.velocities = [torch.zeros_like(weight) for weight in weights]

    def _move(self, number: int, weight: Tensor, gradient: Tensor, step_size: Tensor, decay: Tensor) -> None:
        velocity = self.velocities[number]
        torch.add(gradient, velocity, alpha=0.9, out=velocity).addcmul_(weight, decay)  # one pass over memory less
        weight.addcmul_(velocity, step_size, value=-1)


class AdamW(Optimizer):
    """With torch's defaults: betas 0.9 and 0.999, epsilon 1e-8."""

    def __init__(self, weights: Sequence[Tensor], weight_decay: Tensor) -> None:
        super().__init__(weights, weight_decay)
        self.means = [torch.zeros_like(weight) for weight in weights]
        self.squares = [torch.zeros_like(weight) for weight in weights]

    def _move(self, number: int, weight: Tensor, gradient: Tensor, step_size: Tensor, decay: Tensor) -> None:
        mean = self.means[number].lerp_(gradient, 0.1)
        square = self.squares[number].mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        weight.mul_(1 - step_size * decay)
        spread = square.sqrt().div_((1 - 0.999**self.steps) ** 0.5).add_(1e-8)
        weight.addcmul_(mean / spread, step_size / (1 - 0.9**self.steps), value=-1)


OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "adamw": AdamW}
