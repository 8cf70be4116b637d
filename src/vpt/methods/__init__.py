"""The methods: one file each, listed in the catalogue."""

from vpt.methods.base import Method, Plan
from vpt.methods.catalogue import METHODS, parse_method
from vpt.methods.full import Full
from vpt.methods.linear import Linear
from vpt.methods.vpt import VPT

__all__ = ["METHODS", "VPT", "Full", "Linear", "Method", "Plan", "parse_method"]
