"""SGD and AdamW for many models at once, each with a learning rate and a weight decay of its own.

The arithmetic is that of torch's optimizers, on weights whose first two dimensions, (groups, settings), are the models.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor


class StackedOptimizer(ABC):
    """Base of the optimizers of many models."""

    def __init__(self, weights: Sequence[Tensor], weight_decay: Tensor) -> None:
        """Create the state of the optimizer.

        Args:
            weights: Weights, each (groups, settings, ...).
            weight_decay: Weight decay of each model, (groups, settings).
        """
        self.weights = weights
        self.weight_decay = weight_decay
        self.steps: int = 0

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], lrs: Tensor) -> None:
        """Update the weights in place.

        Args:
            gradients: Gradient of each weight, of its shape.
            lrs: Learning rate of each model, (groups, settings).
        """
        self.steps += 1
        for index, (weight, gradient) in enumerate(zip(self.weights, gradients, strict=True)):
            broadcast_shape = (*lrs.shape, *[1] * (weight.dim() - 2))
            self._update(index, weight, gradient, lrs.view(broadcast_shape), self.weight_decay.view(broadcast_shape))

    @abstractmethod
    def _update(self, index: int, weight: Tensor, gradient: Tensor, lr: Tensor, weight_decay: Tensor) -> None: ...


class SGD(StackedOptimizer):
    """SGD with momentum 0.9."""

    def __init__(self, weights: Sequence[Tensor], weight_decay: Tensor) -> None:
        """Create the momentum buffers.

        Args:
            weights: Weights, each (groups, settings, ...).
            weight_decay: Weight decay of each model, (groups, settings).
        """
        super().__init__(weights, weight_decay)
        self.momentum_buffers: list[Tensor] = [torch.zeros_like(weight) for weight in weights]

    def _update(self, index: int, weight: Tensor, gradient: Tensor, lr: Tensor, weight_decay: Tensor) -> None:
        momentum_buffer = self.momentum_buffers[index]
        torch.add(gradient, momentum_buffer, alpha=0.9, out=momentum_buffer).addcmul_(
            weight, weight_decay
        )  # one pass over memory less
        weight.addcmul_(momentum_buffer, lr, value=-1)


class AdamW(StackedOptimizer):
    """AdamW with torch's defaults: betas 0.9 and 0.999, epsilon 1e-8."""

    def __init__(self, weights: Sequence[Tensor], weight_decay: Tensor) -> None:
        """Create the moment estimates.

        Args:
            weights: Weights, each (groups, settings, ...).
            weight_decay: Weight decay of each model, (groups, settings).
        """
        super().__init__(weights, weight_decay)
        self.exp_avgs: list[Tensor] = [torch.zeros_like(weight) for weight in weights]
        self.exp_avg_sqs: list[Tensor] = [torch.zeros_like(weight) for weight in weights]

    def _update(self, index: int, weight: Tensor, gradient: Tensor, lr: Tensor, weight_decay: Tensor) -> None:
        exp_avg = self.exp_avgs[index].lerp_(gradient, 0.1)
        exp_avg_sq = self.exp_avg_sqs[index].mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        weight.mul_(1 - lr * weight_decay)
        denominator = exp_avg_sq.sqrt().div_((1 - 0.999**self.steps) ** 0.5).add_(1e-8)
        weight.addcmul_(exp_avg / denominator, lr / (1 - 0.9**self.steps), value=-1)


OPTIMIZERS: dict[str, type[StackedOptimizer]] = {"sgd": SGD, "adamw": AdamW}
