"""Properties of what is written and read again, and of readers that are given anything."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

pytest.importorskip("hypothesis", reason="hypothesis is not installed")
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostile import targets
from vpt.core.spec import Parsable, parse
from vpt.data.preprocessing import Preprocessing
from vpt.data.tables.list_files import read_list_files
from vpt.model.header import Header
from vpt.model.label_kinds import Regression, SingleLabel

FEW = settings(max_examples=40, deadline=None, database=None, derandomize=True,
               suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])  # fmt: skip
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
names = st.text("aZ09 _-é漢🌼", min_size=1, max_size=12).map(lambda text: f"x{text}x.png")
numbers = st.floats(allow_nan=False, allow_infinity=False)


@dataclass(frozen=True)
class Example(Parsable):
    """A part of every type that fields have."""

    name: ClassVar[str] = "example"
    count: int = 1
    rate: float = 0.5
    label: str = "x"
    is_on: bool = False
    limit: int | None = None


counts = st.integers(-1_000_000, 1_000_000)
examples = st.builds(Example, counts, numbers, texts, st.booleans(), st.none() | counts)


@FEW
@given(examples, st.booleans())
def test_spec_of_any_fields_is_parsed_to_the_same(example: Example, full: bool) -> None:
    assert parse(example.spec(full=full), {"example": Example}) == example


headers = st.builds(
    Header,
    method=texts,
    backbone=texts,
    fingerprint=st.just(f"sha256:{64 * '0'}"),
    preprocessing=st.builds(Preprocessing, size=st.integers(1, 2048), crop_fraction=st.floats(0.01, 1)),
    num_classes=st.just(3),
    classes=st.none() | st.tuples(texts, texts, texts),
    save_dtype=st.sampled_from(["fp32", "fp16"]),
    scores=st.dictionaries(
        texts, numbers | st.integers(-(2**53), 2**53) | texts | st.none() | st.booleans(), max_size=3
    ),
    versions=st.dictionaries(texts, texts, max_size=3),
    parameter_counts=st.dictionaries(texts, st.integers(0, 2**53), max_size=3),
    label_kind=st.builds(SingleLabel, temperature=st.floats(0.01, 100))
    | st.builds(Regression, numbers, st.floats(0.01, 9)),
    protocol=st.none() | texts,
    license=st.none() | texts,
)


@FEW
@given(headers)
def test_header_with_any_values_is_read_as_the_same(header: Header) -> None:
    assert Header.from_json(header.to_json(), Path("a")) == header


@FEW
@given(st.lists(names, min_size=4, max_size=8, unique_by=lambda name: name.casefold()))
def test_list_of_any_names_is_read_as_the_same(listed: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in listed:
            (root / name).touch()
        rows = [(name, index % 2) for index, name in enumerate(listed)]
        (root / "train.txt").write_text("".join(f"{name} {label}\n" for name, label in rows), encoding="utf-8")
        train = read_list_files(root).train
    assert sorted(zip(train.names, map(int, train.labels), strict=True)) == sorted(rows)


@pytest.mark.parametrize("name", targets.TARGETS)
@FEW
@given(st.data())
def test_reader_of_any_bytes_raises_errors_of_vpt_alone(tmp_path: Path, name: str, data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from(targets.seeds(name)))
    cut = data.draw(st.integers(0, len(seed)))
    targets.use_folder(tmp_path)
    targets.TARGETS[name](seed[:cut] + data.draw(st.binary(max_size=20)) + seed[cut + data.draw(st.integers(0, 9)) :])
