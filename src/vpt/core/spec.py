"""Spec strings: `vpt(length=10, depth="deep")` as text and as an object.

The same text names a method on the command line, in files, in tables and inside a tuned file. It looks like a
Python call and is read as data: names, keywords and literals, never evaluated.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from vpt.errors import SpecError, nearest

T = TypeVar("T")

# What Python's parser and literal_eval raise, by their documentation, for text of any kind.
_UNREADABLE = (SyntaxError, ValueError, TypeError, MemoryError, RecursionError)


def parse(text: str, catalogue: Mapping[str, type[T]]) -> T:
    """Read `name(field=value, ...)`, or a bare `name`, into the dataclass that `catalogue` has under that name.

    Bare words count as strings, so `depth=deep` needs no quotes (handy in a shell).
    Raises SpecError with the fields that exist, and the nearest one, when the text does not fit.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except _UNREADABLE as error:
        raise SpecError(f"{text!r} cannot be read; write it like {_example(catalogue)}") from error
    call = tree if isinstance(tree, ast.Call) else ast.Call(func=tree, args=[], keywords=[])
    if not isinstance(call.func, ast.Name):
        raise SpecError(f"{text!r} does not begin with a name; write it like {_example(catalogue)}")
    name = call.func.id
    if name not in catalogue:
        raise SpecError(f"{name!r} in {text!r} is unknown; {nearest(name, catalogue)}")
    kind = catalogue[name]
    if call.args:
        raise SpecError(f"{text!r}: write {_words(text, call.args[0])} as field=value; {_fields(name, kind)}")
    values: dict[str, Any] = {}
    hints = typing.get_type_hints(kind)
    known = {field.name for field in _init_fields(kind)}
    for keyword in call.keywords:
        if keyword.arg is None or keyword.arg not in known:
            raise SpecError(f"{text!r} has no field {keyword.arg!r}; {_fields(name, kind, keyword.arg)}")
        if keyword.arg in values:
            raise SpecError(f"{text!r} gives {keyword.arg!r} twice; give it once")
        value = _literal(keyword.value, text)
        values[keyword.arg] = _checked(value, hints[keyword.arg], f"{keyword.arg} in {text!r}")
    return kind(**values)


def terms(text: str) -> list[str]:
    """The parts of a sum, `a(x=1) + b`, in order; a text that cannot be read is left whole for `parse` to explain."""
    try:
        tree: ast.expr = ast.parse(text.strip(), mode="eval").body
    except _UNREADABLE:
        return [text]
    found: list[str] = []
    while isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.Add):
        found.insert(0, _words(text, tree.right))
        tree = tree.left
    return [_words(text, tree), *found] if found else [text]


def show(spec: Any, name: str, *, full: bool = False) -> str:
    """The text of a dataclass instance: fields that differ from their default, or every field when `full`."""
    parts = []
    for field in _init_fields(type(spec)):
        value = getattr(spec, field.name)
        if full or value != field.default:
            parts.append(f"{field.name}={_quoted(value)}")
    return f"{name}({', '.join(parts)})" if parts else name


def _quoted(value: Any) -> str:
    # A JSON string is a Python string too, in double quotes throughout.
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _init_fields(kind: type) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(kind) if field.init]


def _words(text: str, node: ast.expr) -> str:
    """What the user wrote there."""
    return ast.get_source_segment(text.strip(), node) or text


def _literal(node: ast.expr, text: str) -> Any:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub):  # a range, 3-6, in a shell without quotes
        first, last = _literal(node.left, text), _literal(node.right, text)
        if type(first) is int and type(last) is int:
            return f"{first}-{last}"
    try:
        return ast.literal_eval(node)
    except _UNREADABLE as error:
        raise SpecError(
            f"{_words(text, node)!r} in {text!r} is not a plain value (number, word, true or false)"
        ) from error


def _checked(value: Any, hint: Any, where: str) -> Any:
    """`value` if it has the type the field asks for; an int may stand for a float."""
    if typing.get_origin(hint) is typing.Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise SpecError(f"{where} is {value!r}; {nearest(str(value), map(str, choices))}")
        return value
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if value in ("true", "false") and bool in kinds and str not in kinds:
        return value == "true"
    if value == "none" and type(None) in kinds:
        return None
    for kind in kinds:
        if kind is float and type(value) in (int, float):
            return float(value)
        if type(value) is (typing.get_origin(kind) or kind):
            return value
    wanted = " or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds)
    raise SpecError(f"{where} is {value!r}, which is {type(value).__name__}; it must be {wanted}")


def _fields(name: str, kind: type, word: str | None = None) -> str:
    fields = [field.name for field in _init_fields(kind)]
    if not fields:
        return f"{name} takes no fields"
    return nearest(word, fields) if word else f"the fields of {name}: {', '.join(fields)}"


def _example(catalogue: Mapping[str, type[Any]]) -> str:
    name = "vpt" if "vpt" in catalogue else next(iter(catalogue), "name")
    return f"{name}(length=10)" if name == "vpt" else f"{name}(field=value)"
