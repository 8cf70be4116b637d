"""The text of a method is read as data, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from vpt import METHODS, VPT, Full, Linear, parse_method, spec
from vpt.errors import SpecError


@dataclass(frozen=True)
class Thing:
    count: int = 1
    rate: float = 0.5
    flag: bool = False
    word: str = "a b"
    limit: int | None = None
    layers: tuple | None = None
    mode: Literal["one", "two"] = "one"


KNOWN = {"thing": Thing, "vpt": VPT}


def refusal(text: str) -> str:
    with pytest.raises(SpecError) as caught:
        spec.parse(text, KNOWN)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vpt", VPT()),
        ("vpt()", VPT()),
        ("  vpt( length = 20 )\n", VPT(length=20)),
        ('vpt(length=20, depth="shallow", dropout=0.0)', VPT(20, "shallow", 0.0)),
        ("vpt(depth=shallow)", VPT(depth="shallow")),
        ("vpt(dropout=0)", VPT(dropout=0.0)),
        ("linear", Linear()),
        ("full()", Full()),
    ],
)
def test_methods_are_parsed(text, expected):
    assert parse_method(text) == expected
    assert type(parse_method(text)) is type(expected)


def test_a_method_object_is_given_back():
    method = VPT(length=3)
    assert parse_method(method) is method


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("thing(flag=True)", Thing(flag=True)),
        ("thing(flag=true)", Thing(flag=True)),
        ("thing(flag=false)", Thing()),
        ("thing(limit=None)", Thing()),
        ("thing(limit=none)", Thing()),
        ("thing(limit=4)", Thing(limit=4)),
        ("thing(limit=-4)", Thing(limit=-4)),
        ("thing(layers=(1, 2))", Thing(layers=(1, 2))),
        ("thing(word=hello)", Thing(word="hello")),
        ("thing(word='true')", Thing(word="true")),
        ("thing(mode=two)", Thing(mode="two")),
        ("thing(rate=1e-3)", Thing(rate=0.001)),
    ],
)
def test_values(text, expected):
    assert spec.parse(text, KNOWN) == expected
    assert spec.parse(spec.show(expected, "thing", full=True), KNOWN) == expected


def test_an_int_for_a_float_becomes_one():
    assert type(spec.parse("thing(rate=1)", KNOWN).rate) is float


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("vtp", ("'vtp'", "did you mean 'vpt'?", "known: thing, vpt")),
        ("vpt(lenght=3)", ("'lenght'", "did you mean 'length'?", "depth, dropout, form, length")),
        ("vpt(3)", ("write 3 as field=value", "length")),
        ("vpt(length=3, length=4)", ("length",)),
        ("vpt(length=3.5)", ("length", "3.5", "float", "must be int")),
        ("vpt(length=True)", ("length", "True", "bool")),
        ("vpt(length=many)", ("length", "'many'", "must be int")),
        ("vpt(depth=deap)", ("depth", "'deap'", "did you mean 'deep'?")),
        ("vpt(depth=1)", ("depth", "is 1", "deep, shallow")),
        ("vpt(length=0)", ("length is 0", "at least one")),
        ("vpt(dropout=1)", ("dropout is 1", "below 1")),
        ("vpt(dropout=-0.1)", ("dropout is -0.1",)),
        ("thing(flag=1)", ("flag", "is 1", "must be bool")),
        ("thing(flag=maybe)", ("flag", "'maybe'", "must be bool")),
        ("thing(mode=three)", ("mode", "'three'", "one, two")),
        ("thing(limit=4.5)", ("limit", "must be int or None")),
        ("vpt(length=3", ("cannot be read", "vpt(length=10)")),
        ("", ("cannot be read",)),
        ("vpt length=3", ("cannot be read",)),
        ("vpt(length=3); vpt", ("cannot be read",)),
        ("vpt\0", ("cannot be read",)),
        ("3", ("does not begin with a name",)),
        ("vpt(**{'length': 3})", ("no field",)),
        ("(" * 300 + "vpt" + ")" * 300, ("cannot be read",)),
        ("vpt(length=" + "-" * 5000 + "3)", ("vpt",)),
    ],
)
def test_refusals_say_what_and_what_else(text, parts):
    message = refusal(text)
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    "text",
    [
        "vpt(length=__import__('os').system('touch {}'))",
        "vpt(length=open('{}', 'w'))",
        "vpt(length=(lambda: open('{}', 'w'))())",
        "vpt(length=[open('{}', 'w') for _ in 'a'][0])",
        "__import__('os').system('touch {}')",
        "(vpt := open('{}', 'w'))",
        "vpt.__class__()",
        "vpt(length=f'{{1}}')",
    ],
)
def test_nothing_is_ever_run(text, tmp_path):
    trace = tmp_path / "trace"
    refusal(text.format(trace))
    assert not trace.exists()


@pytest.mark.parametrize("name", METHODS)
def test_round_trip_of_every_method(name):
    method = METHODS[name]()
    assert str(method) == name
    assert parse_method(str(method)) == method
    assert parse_method(spec.show(method, name, full=True)) == method


def test_show_gives_what_differs_or_everything():
    method = VPT(length=50, depth="shallow")
    assert str(method) == 'vpt(length=50, depth="shallow")'
    assert spec.show(method, "vpt", full=True) == 'vpt(length=50, depth="shallow", dropout=0.1, form="exact")'


@pytest.mark.parametrize("word", ['"', "'", "\\", "a\\", "\"'", "\n", "ü", "none", "true"])
def test_words_of_any_kind_come_back(word):
    thing = Thing(word=word)
    assert spec.parse(spec.show(thing, "thing"), KNOWN) == thing


def test_errors_have_one_base():
    from vpt import VptError

    assert issubclass(SpecError, VptError)
