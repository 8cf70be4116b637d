"""Spec strings such as `vpt(length=10, depth="deep")`, parsed into dataclass instances and formatted back.

A spec names a method on the command line, in files, in tables and in tuned files. It has the syntax of a Python call
and is parsed as data: names, keywords and literals. It is never evaluated.
"""

import ast
import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from vpt.core.text import did_you_mean
from vpt.errors import SpecError

T = TypeVar("T")

# The documented errors of ast.parse and ast.literal_eval for arbitrary text.
_PARSE_ERRORS = (SyntaxError, ValueError, TypeError, MemoryError, RecursionError)
_MAX_TEXT = 4000  # characters; fewer than the digits of a number that Python does not read
_MAX_NUMBER = 1_000_000  # of tokens, channels, layers


class Parsable:
    """Base of dataclasses with a name and a text, which `parse` reads and `spec` writes."""

    name: ClassVar[str]

    def spec(self, *, full: bool = False) -> str:
        """Return the text of this object.

        Args:
            full: Write out every field. Default: only the fields that differ from their default.

        Returns:
            The text, such as `vpt(length=10)`.
        """
        return format_spec(self, self.name, full=full)

    def __str__(self) -> str:
        return self.spec()


def parse(text: str, registry: Mapping[str, type[T]]) -> T:
    """Parse `name(field=value, ...)` or a bare `name` into an instance of the dataclass of that name.

    Bare words are strings: `depth=deep` needs no quotes.

    Args:
        text: The spec.
        registry: Name to dataclass.

    Returns:
        An instance of `registry[name]`.

    Raises:
        SpecError: The text cannot be read, or a name, field or value is not valid. The message lists the valid ones.
    """
    example = "vpt(length=10)" if "vpt" in registry else f"{next(iter(registry), 'name')}(field=value)"
    if len(text) > _MAX_TEXT:
        raise SpecError(
            f"{text[:100]!r}... has {len(text):,} characters, more than {_MAX_TEXT:,}; write it like {example}"
        )
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except _PARSE_ERRORS as error:
        raise SpecError(f"{text!r} cannot be read; write it like {example}") from error
    call = tree if isinstance(tree, ast.Call) else ast.Call(func=tree, args=[], keywords=[])
    if not isinstance(call.func, ast.Name):
        raise SpecError(f"{text!r} does not begin with a name; write it like {example}")
    name = call.func.id
    if name not in registry:
        raise SpecError(f"{name!r} in {text!r} is unknown; {did_you_mean(name, registry)}")
    cls = registry[name]
    if call.args:
        raise SpecError(f"{text!r}: write {_source_text(text, call.args[0])} as field=value; {_field_hint(name, cls)}")
    values: dict[str, Any] = {}
    hints = typing.get_type_hints(cls)
    field_names = {field.name for field in _init_fields(cls)}
    for keyword in call.keywords:
        if keyword.arg is None or keyword.arg not in field_names:
            raise SpecError(f"{text!r} has no field {keyword.arg!r}; {_field_hint(name, cls, keyword.arg)}")
        if keyword.arg in values:
            raise SpecError(f"{text!r} gives {keyword.arg!r} twice; give it once")
        try:
            value = _literal(keyword.value, text)
        except RecursionError as error:
            raise SpecError(f"{keyword.arg} in {text!r} is nested too deeply; write it like {example}") from error
        values[keyword.arg] = _check_type(value, hints[keyword.arg], f"{keyword.arg} in {text!r}")
    return cls(**values)


def split_terms(text: str) -> list[str]:
    """Split a sum such as `a(x=1) + b` into its terms.

    Args:
        text: One or more specs joined by `+`.

    Returns:
        The terms in order. Text that cannot be read is returned as a single term, for `parse` to report.
    """
    try:
        tree: ast.expr = ast.parse(text.strip(), mode="eval").body
    except _PARSE_ERRORS:
        return [text]
    operands: list[str] = []
    while isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.Add):
        operands.insert(0, _source_text(text, tree.right))
        tree = tree.left
    return [_source_text(text, tree), *operands] if operands else [text]


def format_spec(spec: Any, name: str, *, full: bool = False, later: bool = False) -> str:
    """Return the spec of a dataclass instance.

    Args:
        spec: The instance.
        name: Its name in the registry.
        full: Include fields that have their default value, but for those of `later_field`. Default: False.
        later: With `full`, include those too. Default: False.

    Returns:
        The spec, such as `vpt(length=10)`.
    """
    arguments = []
    for field in _init_fields(type(spec)):
        value = getattr(spec, field.name)
        if value != field.default or (full and (later or not field.metadata.get("later"))):
            # A JSON string is a Python string too, in double quotes throughout.
            text = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
            arguments.append(f"{field.name}={text}")
    return f"{name}({', '.join(arguments)})" if arguments else name


def later_field(default: Any) -> Any:
    """Return a dataclass field that full texts leave out at its default, as those written before it came do.

    Args:
        default: The value that gives what was computed before.

    Returns:
        The field.
    """
    return dataclasses.field(default=default, metadata={"later": True})


def _init_fields(cls: type) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(cls) if field.init]


def _source_text(text: str, node: ast.expr) -> str:
    return ast.get_source_segment(text.strip(), node) or text


def _literal(node: ast.expr, text: str) -> Any:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub):  # a range, 3-6, in a shell without quotes
        first, last = _literal(node.left, text), _literal(node.right, text)
        if (type(first) is int or isinstance(node.left, ast.BinOp)) and type(last) is int:
            return f"{first}-{last}"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):  # a set, cls+mean or 3+6-9, without quotes
        return f"{_literal(node.left, text)}+{_literal(node.right, text)}"
    try:
        return ast.literal_eval(node)
    except _PARSE_ERRORS as error:
        raise SpecError(
            f"{_source_text(text, node)!r} in {text!r} is not a plain value (number, word, true or false)"
        ) from error


def _check_type(value: Any, hint: Any, location: str) -> Any:
    """Return a value converted to the type of its field. An int is accepted for a float."""
    if typing.get_origin(hint) is typing.Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise SpecError(f"{location} is {value!r}; {did_you_mean(str(value), map(str, choices))}")
        return value
    allowed_types = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if value in ("true", "false") and bool in allowed_types and str not in allowed_types:
        return value == "true"
    if value == "none" and type(None) in allowed_types:
        return None
    for cls in allowed_types:
        if cls is float and type(value) in (int, float):
            return float(value)
        if type(value) is int and abs(value) > _MAX_NUMBER:
            raise SpecError(f"{location} is {value}; it must be at most {_MAX_NUMBER:,}")
        if type(value) is (typing.get_origin(cls) or cls):
            return value
    expected = " or ".join(getattr(cls, "__name__", str(cls)) for cls in allowed_types)
    raise SpecError(f"{location} is {value!r}, which is {type(value).__name__}; it must be {expected}")


def _field_hint(name: str, cls: type, word: str | None = None) -> str:
    fields = [field.name for field in _init_fields(cls)]
    if not fields:
        return f"{name} takes no fields"
    return did_you_mean(word, fields) if word else f"the fields of {name}: {', '.join(fields)}"
