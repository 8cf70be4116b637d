"""The methods: one file each, listed in the catalogue."""

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
from vpt.methods.registry import METHODS, parse_method
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
