"""The registry: methods by their names."""

from vpt.core import spec
from vpt.errors import SpecError
from vpt.methods.adapter import Adapter
from vpt.methods.adaptformer import AdaptFormer
from vpt.methods.base import Injection, Method, Sum
from vpt.methods.bias import Bias
from vpt.methods.class_token import ClassToken
from vpt.methods.full import Full
from vpt.methods.gated import Gated
from vpt.methods.linear import Linear
from vpt.methods.lora import LoRA
from vpt.methods.mlp import MLP
from vpt.methods.norm import Norm
from vpt.methods.partial import Partial
from vpt.methods.sidetune import SideTune
from vpt.methods.ssf import SSF
from vpt.methods.vpt import VPT

__all__ = [
    "METHODS",
    "MLP",
    "SSF",
    "VPT",
    "AdaptFormer",
    "Adapter",
    "Bias",
    "ClassToken",
    "Full",
    "Gated",
    "Injection",
    "Linear",
    "LoRA",
    "Method",
    "Norm",
    "Partial",
    "SideTune",
    "Sum",
    "parse_method",
]

_KINDS = (VPT, Gated, ClassToken, Linear, MLP, Partial, Bias, Norm, Adapter, AdaptFormer, LoRA, SSF, SideTune, Full)
METHODS: dict[str, type[Method]] = {kind.name: kind for kind in _KINDS}


def parse_method(text: str | Method) -> Method:
    """Return the method of a text.

    Args:
        text: Such as `vpt(length=10, depth="deep")`, or a sum of several, `vpt(length=50) + bias`. A method object is
            returned as it is.

    Returns:
        The method.

    Raises:
        SpecError: The text cannot be read, names an unknown method or option, or has a value out of range.
    """
    if isinstance(text, Method):
        return text
    if not isinstance(text, str):
        raise SpecError(f"the method is {text!r}; give its text, such as vpt(length=10), or an object")
    terms = [spec.parse(term, METHODS) for term in spec.split_terms(text)]
    return terms[0] if len(terms) == 1 else Sum(tuple(terms))
