"""Many heads of one shape as one batched model, and its optimizers.

The heads of a group read the same inputs and draw the same dropout masks, as runs of one seed do. Each head has a
learning rate and a weight decay of its own; the arithmetic is that of torch's optimizers.
"""

from collections.abc import Callable, Sequence
from functools import singledispatch

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from vpt.errors import UnsupportedError

State = dict[str, Tensor]


class StackedHeads:
    """Heads of groups x settings models, whose weights are stacked, each (groups, settings, ...)."""

    def __init__(self, heads: Sequence[Sequence[nn.Module]]) -> None:
        """Stack the weights of heads.

        Args:
            heads: The heads of each group, all of one shape.

        Raises:
            UnsupportedError: A head has a layer that cannot be stacked.
        """
        self.heads = heads
        first = heads[0][0]
        self.layers: list[tuple[str, nn.Module]] = [("", first)]
        if isinstance(first, nn.Sequential):
            self.layers = [(f"{name}.", layer) for name, layer in first.named_children()]
        for kind in (type(layer) for _, layer in self.layers):
            if _run_layer.dispatch(kind) is _run_layer.dispatch(object):
                raise UnsupportedError(f"heads with {kind.__name__} cannot train together; train them one by one")
        states = [[head.state_dict() for head in group] for group in heads]
        self.state: State = {
            name: torch.stack([torch.stack([state[name] for state in group]) for group in states])
            for name in states[0][0]
        }
        self.weights: list[Tensor] = [self.state[name].requires_grad_() for name, _ in first.named_parameters()]

    def __call__(self, x: Tensor, generators: Sequence[Generator] | None = None) -> Tensor:
        """Compute the logits of all heads.

        Args:
            x: Features (groups, batch, d).
            generators: Random generator of dropout of each group in training, or None in evaluation. Default: None.

        Returns:
            Logits (groups, batch, settings, classes).
        """
        x = x.unsqueeze(2)  # the same for all settings, until a layer makes them differ
        for prefix, layer in self.layers:
            x = _run_layer(layer, {name: self.state[prefix + name] for name in layer.state_dict()}, x, generators)
        return x

    @torch.no_grad()
    def unstack(self) -> None:
        """Copy the weights and statistics back into every head."""
        for group_index, group in enumerate(self.heads):
            for setting_index, head in enumerate(group):
                head.load_state_dict({name: tensor[group_index, setting_index] for name, tensor in self.state.items()})


@singledispatch
def _run_layer(layer: nn.Module, params: State, x: Tensor, generators: Sequence[Generator] | None) -> Tensor:
    """Compute many copies of a layer at once: (groups, batch, settings, d), with 1 for equal settings."""
    raise NotImplementedError(type(layer).__name__)


@_run_layer.register
def _run_linear(layer: nn.Linear, params: State, x: Tensor, generators: Sequence[Generator] | None) -> Tensor:
    out = torch.einsum("gbsd,gscd->gbsc", x, params["weight"])
    return out + params["bias"].unsqueeze(1) if "bias" in params else out


@_run_layer.register
def _run_relu(layer: nn.ReLU, params: State, x: Tensor, generators: Sequence[Generator] | None) -> Tensor:
    return F.relu(x)


@_run_layer.register
def _run_dropout(layer: nn.Dropout, params: State, x: Tensor, generators: Sequence[Generator] | None) -> Tensor:
    if generators is None or layer.p == 0:
        return x
    shape = (x.shape[1], x.shape[3])
    masks = [torch.empty(shape, dtype=x.dtype).bernoulli_(1 - layer.p, generator=generator) for generator in generators]
    return x * torch.stack(masks).unsqueeze(2).to(x.device) / (1 - layer.p)


@_run_layer.register
def _run_norm(layer: nn.BatchNorm1d, params: State, x: Tensor, generators: Sequence[Generator] | None) -> Tensor:
    batch = x.shape[1]
    if generators is None or batch == 1:  # a batch of one image has no spread
        mean, var = params["running_mean"].unsqueeze(1), params["running_var"].unsqueeze(1)
    else:
        var, mean = torch.var_mean(x, dim=1, correction=0, keepdim=True)
        with torch.no_grad():
            assert layer.momentum is not None
            params["running_mean"].lerp_(mean.squeeze(1), layer.momentum)
            params["running_var"].lerp_(var.squeeze(1) * (batch / (batch - 1)), layer.momentum)
            params["num_batches_tracked"] += 1
    return (x - mean) * (var + layer.eps).rsqrt() * params["weight"].unsqueeze(1) + params["bias"].unsqueeze(1)


class StackedOptimizer:
    """SGD with momentum 0.9, or AdamW with torch's defaults (betas 0.9 and 0.999, epsilon 1e-8), for many models."""

    def __init__(self, name: str, weights: Sequence[Tensor], weight_decays: Sequence[Tensor]) -> None:
        """Create the state of the optimizer.

        Args:
            name: "sgd" or "adamw".
            weights: Weights, each (groups, settings, ...).
            weight_decays: Weight decay of each weight in each model, (groups, settings).
        """
        self.weights = weights
        self.weight_decays = weight_decays
        self._update, num_averages = _UPDATES[name]
        self._averages = [[torch.zeros_like(weight) for _ in range(num_averages)] for weight in weights]
        self._steps = 0

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], lrs: Tensor) -> None:
        """Update the weights in place.

        Args:
            gradients: Gradient of each weight, of its shape.
            lrs: Learning rate of each model, (groups, settings).
        """
        self._steps += 1
        rows = zip(self.weights, gradients, self.weight_decays, self._averages, strict=True)
        for weight, gradient, decay, averages in rows:
            shape = (*lrs.shape, *[1] * (weight.dim() - 2))
            self._update(weight, gradient, lrs.view(shape), decay.view(shape), self._steps, *averages)


def _update_sgd(weight: Tensor, gradient: Tensor, lr: Tensor, decay: Tensor, step: int, momentum: Tensor) -> None:
    torch.add(gradient, momentum, alpha=0.9, out=momentum).addcmul_(weight, decay)  # one pass over memory less
    weight.addcmul_(momentum, lr, value=-1)


def _update_adamw(
    weight: Tensor, gradient: Tensor, lr: Tensor, decay: Tensor, step: int, exp_avg: Tensor, exp_avg_sq: Tensor
) -> None:
    exp_avg.lerp_(gradient, 0.1)
    exp_avg_sq.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
    weight.mul_(1 - lr * decay)
    denominator = exp_avg_sq.sqrt().div_((1 - 0.999**step) ** 0.5).add_(1e-8)
    weight.addcmul_(exp_avg / denominator, lr / (1 - 0.9**step), value=-1)


# Name -> the rule, and the number of running averages that it keeps of each weight.
_UPDATES: dict[str, tuple[Callable[..., None], int]] = {"sgd": (_update_sgd, 1), "adamw": (_update_adamw, 2)}
