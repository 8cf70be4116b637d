"""The text of a method is read as data, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from vpt import METHODS, VPT, Full, Linear, parse_method
from vpt.core import spec
from vpt.errors import SpecError
from vpt.methods import Bias, LoRA, Norm, Sum


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
        ("vpt(depth=2-3)", VPT(depth="2-3")),
        ("vpt(projection=none)", VPT()),
        ("vpt(length=5) + bias", VPT(length=5) + Bias()),
        ("lora(rank=2)+ vpt +norm", Sum((LoRA(rank=2), VPT(), Norm()))),
    ],
)
def test_parse_method_of_each_text_returns_the_method(text, expected):
    assert parse_method(text) == expected
    assert type(parse_method(text)) is type(expected)


def test_parse_method_of_method_object_returns_it():
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
def test_spec_parse_of_each_value_type_round_trips(text, expected):
    assert spec.parse(text, KNOWN) == expected
    assert spec.parse(spec.format_spec(expected, "thing", full=True), KNOWN) == expected


def test_spec_parse_of_int_for_float_field_is_float():
    assert type(spec.parse("thing(rate=1)", KNOWN).rate) is float


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("vtp", ("'vtp'", "did you mean 'vpt'?", "known: thing, vpt")),
        (
            "vpt(lenght=3)",
            ("'lenght'", "did you mean 'length'?", "attention, depth, drop_after, dropout, expansion, fourier, frozen"),
        ),
        ("vpt(3)", ("write 3 as field=value", "length")),
        ("vpt(length=3, length=4)", ("length",)),
        ("vpt(length=3.5)", ("length", "3.5", "float", "must be int")),
        ("vpt(length=True)", ("length", "True", "bool")),
        ("vpt(length=many)", ("length", "'many'", "must be int")),
        ("vpt(depth=deap)", ("depth", "'deap'", "did you mean 'deep'?")),
        ("vpt(depth=1)", ("depth", "is 1", "must be str")),
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
def test_spec_parse_of_invalid_text_names_fault_and_choices(text, parts):
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
def test_spec_parse_of_code_runs_nothing(text, tmp_path):
    trace = tmp_path / "trace"
    refusal(text.format(trace))
    assert not trace.exists()


@pytest.mark.parametrize("name", METHODS)
def test_parse_method_of_each_spec_round_trips(name):
    method = METHODS[name]()
    assert str(method) == name
    assert parse_method(str(method)) == method
    assert parse_method(spec.format_spec(method, name, full=True)) == method


def test_spec_of_method_shows_changed_or_all_fields():
    method = VPT(length=50, depth="shallow")
    assert str(method) == 'vpt(length=50, depth="shallow")'
    assert spec.format_spec(method, "vpt", full=True).startswith(
        'vpt(length=50, depth="shallow", dropout=0.1, impl="kv", '
    )
    assert parse_method(method.spec(full=True)) == method


@pytest.mark.parametrize("word", ['"', "'", "\\", "a\\", "\"'", "\n", "ü", "none", "true"])
def test_spec_of_any_string_round_trips(word):
    thing = Thing(word=word)
    assert spec.parse(spec.format_spec(thing, "thing"), KNOWN) == thing


def test_spec_error_is_a_vpt_error():
    from vpt import VptError

    assert issubclass(SpecError, VptError)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("vpt + vpt(length=3)", ("names vpt twice",)),
        ("vpt + linear", ("linear adds nothing",)),
        ("vpt + nothing", ("'nothing'", "known:")),
        ("vpt(location=pad)", ("pad changes the image", "depth=shallow")),
        ("vpt(location=prepend_pixel)", ("depth=shallow",)),
        ("vpt(location=add, length=3)", ("leave length out",)),
        ("vpt(location=pad, depth=shallow, shared=all)", ("prompts that are tokens",)),
        ("vpt(location=add, output=prompt_mean)", ("no prompt comes out", "image_mean")),
        ("vpt(init=prototypes, projection=4)", ("whole tokens",)),
        ("vpt(init=prototypes, location=add)", ("location=prepend",)),
        ("vpt(frozen=true, projection=4)", ("a projection trains",)),
        ("vpt(depth=0-3)", ("'0-3'", "range of blocks")),
        ("vpt(depth=4-3)", ("'4-3'",)),
        ("vpt(projection=0)", ("projection is 0",)),
        ("partial(k=0)", ("k is 0", "`linear`")),
        ("mlp(layers=1)", ("at least 2", "`linear`")),
        ("adapter(reduction=0)", ("reduction is 0",)),
        ("lora(rank=0)", ("rank is 0",)),
        ("lora(alpha=0)", ("alpha is 0",)),
        ("adaptformer(bottleneck=0)", ("bottleneck is 0",)),
        ("adaptformer(scale=0)", ("scale is 0",)),
        ("adaptformer(dropout=1)", ("dropout is 1",)),
        ("sidetune(pretrained=true, weights=a)", ("weights is 'a'", "keep one")),
        ("vpt(depth=1-2, drop_after=true, output=prompt_mean)", ("output=prompt_mean reads them",)),
        ("vpt(location=add, drop_after=true)", ("add adds none",)),
        ("gated(gate=1)", ("gate is 1",)),
        ("gated(length=0)", ("length is 0",)),
    ],
)
def test_parse_method_of_contradicting_options_names_the_alternative(text, parts):
    with pytest.raises(SpecError) as caught:
        parse_method(text)
    for part in parts:
        assert part in str(caught.value)


def test_sum_of_methods_uses_the_defaults_of_its_first_term():
    both = parse_method("vpt(length=5) + bias")
    assert str(both) == "vpt(length=5) + bias"
    assert parse_method(both.spec(full=True)) == both
    assert (both.optimizer, both.learning_rate) == (VPT.optimizer, VPT.learning_rate)
    assert both + Norm() == Sum((VPT(length=5), Bias(), Norm()))
