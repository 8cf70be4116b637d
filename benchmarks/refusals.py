"""A judge of refusals: is what vpt says of a model true? It reads the module tree alone, and imports nothing of vpt."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

_ATTENTION = re.compile(r"attn|attention|mhsa|mqa", re.IGNORECASE)
_BETWEEN_LINEARS = re.compile(r"act|norm|drop|gelu|relu|silu|glu|identity|conv|dw", re.IGNORECASE)


def contradiction(model: nn.Module, reason: str) -> str | None:
    """What of the module tree says otherwise; None where the reason is true. A reason that no rule knows is false."""
    for pattern, contradict in _RULES:
        if said := re.search(pattern, reason):
            return contradict(model, said)
    return "no rule judges this reason"


def _classifier(model: Any) -> tuple[str, ...]:
    names = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _inner_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All modules but the classifier's."""
    outside = _classifier(model)
    for path, module in model.named_modules():
        if not any(f"{path}.".startswith(f"{prefix}.") for prefix in outside):
            yield path, module


def _first_linear(model: nn.Module, said: re.Match[str]) -> str | None:
    return next((path for path, module in _inner_modules(model) if isinstance(module, nn.Linear)), None)


def _first_linear_of_attention(model: nn.Module, said: re.Match[str]) -> str | None:
    for path, module in _inner_modules(model):
        if _ATTENTION.search(type(module).__name__):
            for name, inner in module.named_modules():
                if isinstance(inner, nn.Linear):
                    return f"{path}.{name}"
    return None


def _first_mlp(model: nn.Module, said: re.Match[str]) -> str | None:
    """Two linear layers, out and back in width, with nothing but an activation, a norm and the like between them."""
    for path, module in _inner_modules(model):
        if re.search("block", type(module).__name__, re.IGNORECASE) or _ATTENTION.search(type(module).__name__):
            continue  # queries, keys and values out, and back by the output projection; or a whole block, norm and all
        children = [child for child in module.children() if not isinstance(child, nn.Identity)]
        linears = [child for child in children if isinstance(child, nn.Linear)]
        plain = all(isinstance(c, nn.Linear) or _BETWEEN_LINEARS.search(type(c).__name__) for c in children)
        if path and len(linears) >= 2 and plain and linears[0].in_features == linears[-1].out_features:
            return path
    return None


def _first_attention(model: nn.Module, said: re.Match[str]) -> str | None:
    return next((path for path, module in _inner_modules(model) if _ATTENTION.search(type(module).__name__)), None)


def _no_attention(model: nn.Module, said: re.Match[str]) -> str | None:
    return None if _first_attention(model, said) else "no module is attention"


def _first_bias(model: nn.Module, said: re.Match[str]) -> str | None:
    names = (f"{path}.bias" for path, module in _inner_modules(model) if getattr(module, "bias", None) is not None)
    return next(names, None)


def _first_scalable_layer(model: nn.Module, said: re.Match[str]) -> str | None:
    for path, module in _inner_modules(model):
        known = isinstance(module, (nn.Linear, nn.Conv2d)) or "Norm" in type(module).__name__
        if known and all(getattr(module, name, None) is not None for name in ("weight", "bias")):
            return path
    return None


def _plain_classifier(model: nn.Module, said: re.Match[str]) -> str | None:
    """One linear layer by that name is a place for a linear head."""
    names = _classifier(model)
    single = len(names) == 1 and isinstance(dict(model.named_modules()).get(names[0]), nn.Linear)
    return names[0] if single else None


def _square(model: Any, said: re.Match[str]) -> str | None:
    height, width = model.pretrained_cfg["input_size"][-2:]
    return None if height != width else f"the input has {height}x{width} px"


def _token_mixing(model: nn.Module, said: re.Match[str]) -> str | None:
    """A block that mixes tokens by a weight of its own has as many of them as that weight has."""
    return None if _first_attention(model, said) is None else "attention takes any number of tokens"


def _weights_that_change(model: nn.Module, said: re.Match[str]) -> str | None:
    """A scale is lost in layers that standardize their weights, and a classifier of several layers starts at random."""
    without: Any = copy.deepcopy(model)
    without.reset_classifier(0)
    known, inside = set(without.state_dict()), tuple(f"{name}." for name in _classifier(model))
    further = [name for name in model.state_dict() if name not in known and not name.startswith(inside)]
    standardized = any("Std" in type(module).__name__ for module in model.modules())
    return None if further or standardized else "a linear change of weights is one of the model's own"


_Rule = Callable[[Any, re.Match[str]], str | None]
_RULES: tuple[tuple[str, _Rule], ...] = (
    (r"has no linear layers in attention", _first_linear_of_attention),
    (r"has no linear layers", _first_linear),
    (r"has no MLP of linear layers", _first_mlp),
    (r"prompts need transformer blocks, and none are known", lambda model, said: None),
    (r"the windows of \w+ attend in a way that is not known", _no_attention),
    (r"ties every token to a place in the image in a way that is not known", _no_attention),
    (r"its layers have no biases", _first_bias),
    (r"no layers whose output could be scaled and shifted", _first_scalable_layer),
    (r"has a head for which timm has no place", _plain_classifier),
    (r"timm gives other logits", _weights_that_change),
    (r"only square inputs are supported", _square),
)
