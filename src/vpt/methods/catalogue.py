"""The catalogue: a new method is one file and one line here."""

from __future__ import annotations

from vpt import spec
from vpt.methods.base import Method
from vpt.methods.full import Full
from vpt.methods.linear import Linear
from vpt.methods.vpt import VPT

METHODS: dict[str, type[Method]] = {kind.name: kind for kind in (VPT, Linear, Full)}


def parse_method(text: str | Method) -> Method:
    """A method from its text, such as `vpt(length=10, depth="deep")`; a method object is given back as it is."""
    return text if isinstance(text, Method) else spec.parse(text, METHODS)
