"""The registry: methods by their names."""

from vpt.core import spec
from vpt.errors import SpecError
from vpt.methods.adapter import Adapter as Adapter
from vpt.methods.adaptformer import AdaptFormer as AdaptFormer
from vpt.methods.adaptive import Adaptive as Adaptive
from vpt.methods.base import Injection as Injection
from vpt.methods.base import Method as Method
from vpt.methods.base import Sum as Sum
from vpt.methods.bias import Bias as Bias
from vpt.methods.class_token import ClassToken as ClassToken
from vpt.methods.cross import Cross as Cross
from vpt.methods.full import Full as Full
from vpt.methods.gated import Gated as Gated
from vpt.methods.head2toe import Head2Toe as Head2Toe
from vpt.methods.linear import Linear as Linear
from vpt.methods.lora import LoRA as LoRA
from vpt.methods.mlp import MLP as MLP
from vpt.methods.norm import Norm as Norm
from vpt.methods.partial import Partial as Partial
from vpt.methods.prefix import Prefix as Prefix
from vpt.methods.sidetune import SideTune as SideTune
from vpt.methods.ssf import SSF as SSF
from vpt.methods.vpt import VPT as VPT

_KINDS = (
    VPT, Cross, Prefix, Adaptive, Gated, ClassToken,
    Linear, Head2Toe, MLP, Partial, Bias, Norm, Adapter, AdaptFormer, LoRA, SSF, SideTune, Full,
)  # fmt: skip
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
