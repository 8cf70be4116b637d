"""A judge of refusals: is what vpt says of a model true? It reads the module tree alone, and imports nothing of vpt."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any, cast

from torch import nn

_ATTENTION = re.compile(r"attn|attention|mhsa|mqa|litemla|^(xca|gpsa|shsa|shma|lambdalayer)$", re.IGNORECASE)
_QUERIES = re.compile(r"(^|_)(q|qkv|qk|wq|to_q|q_proj|query)$")
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
    """All modules but the classifier's, which `reset_classifier` removes and timm names."""
    without, outside = copy.deepcopy(model), _classifier(model)
    if hasattr(model, "reset_classifier"):
        cast(Any, without).reset_classifier(0)
    kept = {path for path, _ in without.named_modules()}
    for path, module in model.named_modules():
        if path in kept and not any(f"{path}.".startswith(f"{prefix}.") for prefix in outside):
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


def _first_block_with_attention(model: nn.Module, said: re.Match[str]) -> str | None:
    """Attention that is a child of the model itself pools: there is no block around it."""
    return next((path for path, _ in _inner_modules(model) if "." in path and _is_attention(model, path)), None)


def _first_visible_block(model: nn.Module, said: re.Match[str]) -> str | None:
    """Blocks of one class, at least two, that queries from a linear layer and an MLP make look like a transformer's.

    Prompts may have a place there after all: families.toml lists those that were looked at, with what is in the way.
    """
    classes = [type(module).__name__ for _, module in _inner_modules(model)]
    if unknown := next((name for name in said[1].split(", ") if classes.count(name.split(" and ")[0]) == 0), None):
        return f"no module is of class {unknown}"
    for path, block in _inner_modules(model):
        linears = [name for name, module in block.named_modules() if isinstance(module, nn.Linear)]
        queries = [name for name in linears if _QUERIES.search(name.rpartition(".")[2])]
        of_attention = any(_is_attention(block, name.rpartition(".")[0]) for name in queries)
        repeated = classes.count(type(block).__name__) > 1 and type(block).__name__ in said[1]
        if repeated and of_attention and len(linears) >= len(queries) + 3:  # the output's, and two of the MLP
            return f"blocks of linear layers are visible at {path}"
    return None


def _is_attention(model: nn.Module, path: str) -> bool:
    return bool(path) and bool(_ATTENTION.search(type(model.get_submodule(path)).__name__))


def _too_narrow(model: nn.Module, said: re.Match[str]) -> str | None:
    """A bottleneck needs an MLP that is at least as wide as the reduction."""
    layer = next(module for module in model.get_submodule(said[2]).modules() if isinstance(module, nn.Linear))
    return None if layer.in_features < int(said[1]) else f"{said[2]} has {layer.in_features} channels"


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
    """One linear layer by that name, and no other in the classifier, is a place for a linear head."""
    names, inner = _classifier(model), {path for path, _ in _inner_modules(model)}
    linears = [path for path, module in model.named_modules() if isinstance(module, nn.Linear) and path not in inner]
    return names[0] if len(names) == 1 and linears == [*names] else None


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
    (r"has no blocks with attention", _first_block_with_attention),
    (r"has its attention in others: ([\w, ]+)", _first_visible_block),
    (r"reduction is (\d+), but (\S+) has only", _too_narrow),
    (r"the windows of \w+ attend in a way that is not known", _no_attention),
    (r"ties every token to a place in the image in a way that is not known", _no_attention),
    (r"its layers have no biases", _first_bias),
    (r"none of its layers has a bias", _first_scalable_layer),
    (r"has a head for which timm has no place", _plain_classifier),
    (r"timm gives other logits", _weights_that_change),
    (r"only square inputs are supported", _square),
)
