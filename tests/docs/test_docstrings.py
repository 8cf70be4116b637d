"""The names that `import vpt` offers are documented in full: every argument, what is returned, every public method."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import vpt

# What a class gets from elsewhere, such as `nn.Module` or `dict`, is not ours to document.
_OURS = "vpt"


def is_written_in_python(member: object) -> bool:
    """Return whether a member of a class is a function or, of a class method, bound to it."""
    return inspect.isfunction(member) or inspect.ismethod(member)


def public_callables() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the functions of `vpt`, and the public methods of its classes, by name."""
    for name in vpt.__all__:
        value = getattr(vpt, name)
        if inspect.isfunction(value):
            yield name, value
        elif inspect.isclass(value):
            for method, function in inspect.getmembers(value, is_written_in_python):
                inherited = any(method in vars(base) for base in value.__mro__[1:])  # documented there
                if not method.startswith("_") and function.__module__.startswith(_OURS) and not inherited:
                    yield f"{name}.{method}", function


CALLABLES = dict(public_callables())


@pytest.mark.parametrize("name", CALLABLES)
def test_docstring_names_every_argument_and_the_result(name: str) -> None:
    function = CALLABLES[name]
    text = inspect.getdoc(function)
    assert text, f"vpt.{name} has no docstring"
    signature = inspect.signature(function)
    documented = set(
        re.findall(r"^    (\*{0,2}\w+): ", text.partition("Args:\n")[2].partition("\n\n")[0], re.MULTILINE)
    )
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    expected = {stars.get(p.kind, "") + p.name for p in signature.parameters.values() if p.name not in ("self", "cls")}
    assert documented == expected, f"vpt.{name}: Args names {sorted(documented)}, the signature has {sorted(expected)}"
    returns_something = signature.return_annotation not in (None, "None", inspect.Signature.empty)
    assert not returns_something or re.search(r"^(Returns|Yields):", text, re.MULTILINE) or "\n" not in text, (
        f"vpt.{name} does not say what it returns"
    )


@pytest.mark.parametrize("name", sorted(set(vpt.__all__) - {"METHODS", "__version__"}))
def test_docstring_of_public_name_begins_with_one_sentence(name: str) -> None:
    text = inspect.getdoc(getattr(vpt, name))
    assert text
    first = text.partition("\n\n")[0]
    assert first.endswith("."), f"vpt.{name}: {first!r}"
    assert not re.match(r"(What|Where|Whether|How|Who)\b", first), f"vpt.{name}: {first!r}"
