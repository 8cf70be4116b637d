"""Many heads of one shape as one batched model.

The heads of a group read the same inputs and draw the same dropout masks, as runs of one seed do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
        self.layers: list[tuple[str, nn.Module]] = _named_layers(heads[0][0])
        for _, layer in self.layers:
            if _layer_type(layer) not in _LAYER_FUNCTIONS:
                raise UnsupportedError(
                    f"heads with {type(layer).__name__} cannot train together; train them one by one"
                )
        states = [[head.state_dict() for head in group] for group in heads]
        self.state: State = {
            name: torch.stack([torch.stack([state[name] for state in group]) for group in states])
            for name in states[0][0]
        }
        self.weights: list[Tensor] = [self.state[name].requires_grad_() for name, _ in heads[0][0].named_parameters()]

    def __call__(self, x: Tensor, generators: Sequence[torch.Generator] | None = None) -> Tensor:
        """Compute the logits of all heads.

        Args:
            x: Features (groups, batch, d).
            generators: Random generator of dropout of each group in training, or None in evaluation. Default: None.

        Returns:
            Logits (groups, batch, settings, classes).
        """
        x = x.unsqueeze(2)  # the same for all settings, until a layer makes them differ
        for prefix, layer in self.layers:
            params = {
                name: self.state[prefix + name] for name, _ in (*layer.named_parameters(), *layer.named_buffers())
            }
            x = _LAYER_FUNCTIONS[_layer_type(layer)](layer, params, x, generators)
        return x

    @torch.no_grad()
    def unstack(self) -> None:
        """Copy the weights and statistics back into every head."""
        for group_index, group in enumerate(self.heads):
            for setting_index, head in enumerate(group):
                head.load_state_dict({name: tensor[group_index, setting_index] for name, tensor in self.state.items()})


LayerFunction = Callable[[nn.Module, State, Tensor, Sequence[torch.Generator] | None], Tensor]


def _linear(layer: nn.Module, params: State, x: Tensor, generators: Sequence[torch.Generator] | None) -> Tensor:
    out = torch.einsum("gbsd,gscd->gbsc", x, params["weight"])
    return out + params["bias"].unsqueeze(1) if "bias" in params else out


def _relu(layer: nn.Module, params: State, x: Tensor, generators: Sequence[torch.Generator] | None) -> Tensor:
    return F.relu(x)


def _dropout(layer: nn.Dropout, params: State, x: Tensor, generators: Sequence[torch.Generator] | None) -> Tensor:
    if generators is None or layer.p == 0:
        return x
    shape = (x.shape[1], x.shape[3])
    masks = [torch.empty(shape, dtype=x.dtype).bernoulli_(1 - layer.p, generator=generator) for generator in generators]
    return x * torch.stack(masks).unsqueeze(2).to(x.device) / (1 - layer.p)


def _norm(layer: nn.BatchNorm1d, params: State, x: Tensor, generators: Sequence[torch.Generator] | None) -> Tensor:
    batch = x.shape[1]
    if generators is None or batch == 1:  # a batch of one image has no spread
        mean, var = params["running_mean"].unsqueeze(1), params["running_var"].unsqueeze(1)
    else:
        var, mean = torch.var_mean(x, dim=1, correction=0, keepdim=True)
        with torch.no_grad():
            momentum = layer.momentum
            assert momentum is not None
            params["running_mean"].lerp_(mean.squeeze(1), momentum)
            params["running_var"].lerp_(var.squeeze(1) * (batch / (batch - 1)), momentum)
            params["num_batches_tracked"] += 1
    return (x - mean) * (var + layer.eps).rsqrt() * params["weight"].unsqueeze(1) + params["bias"].unsqueeze(1)


# Class of a layer, or a base of it -> the function that computes many copies of the layer at once.
_LAYER_FUNCTIONS: dict[type[nn.Module] | None, LayerFunction] = {
    nn.Linear: _linear,
    nn.ReLU: _relu,
    nn.Dropout: _dropout,  # type: ignore[dict-item]
    nn.BatchNorm1d: _norm,  # type: ignore[dict-item]
}


def _layer_type(layer: nn.Module) -> type[nn.Module] | None:
    return next((layer_type for layer_type in type(layer).__mro__ if layer_type in _LAYER_FUNCTIONS), None)


def _named_layers(head: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the layers of a head in order, with the prefix of the names of their weights."""
    children = list(head.named_children())
    return [(f"{name}.", layer) for name, layer in children] if isinstance(head, nn.Sequential) else [("", head)]
