"""Tests are named `test_<unit>_<condition>_<result>`, no name occurs twice in a module, and slow ones are there."""

from __future__ import annotations

import ast
import runpy
from collections import Counter
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
MODULES = {path.relative_to(TESTS).as_posix(): path for path in sorted(TESTS.rglob("test_*.py"))}
ARTICLES = {"a", "an", "the"}
MAX_LENGTH = 80


def names_of_tests(path: Path) -> list[str]:
    """Return the names of the test functions and test methods of a module, in their order."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    body += [method for node in body if isinstance(node, ast.ClassDef) for method in node.body]
    return [node.name for node in body if isinstance(node, ast.FunctionDef) and node.name.startswith("test")]


@pytest.mark.parametrize("module", MODULES)
def test_names_in_each_module_have_unit_condition_and_result(module: str) -> None:
    names = names_of_tests(MODULES[module])
    assert names, f"{module} has no test"
    for name in names:
        words = name.removeprefix("test_").split("_")
        assert name.startswith("test_") and all(words), f"{module}: {name} is not test_<unit>_<condition>_<result>"
        assert len(words) >= 3, f"{module}: {name} lacks a unit, a condition or a result"
        assert words[0] not in ARTICLES, f"{module}: {name} begins with an article; begin with the unit under test"
        assert len(name) <= MAX_LENGTH, f"{module}: {name} has {len(name)} characters; use at most {MAX_LENGTH}"


@pytest.mark.parametrize("module", MODULES)
def test_names_in_each_module_are_unique(module: str) -> None:
    repeated = [name for name, count in Counter(names_of_tests(MODULES[module])).items() if count > 1]
    assert not repeated, f"{module} defines {', '.join(repeated)} more than once, so only the last one runs"


@pytest.mark.parametrize("start", runpy.run_path(str(TESTS / "conftest.py"))["SLOW"])
def test_start_of_slow_names_begins_the_id_of_a_test(start: str) -> None:
    modules = [name for name in MODULES if name.startswith(start.partition("::")[0])]
    ids = [f"{name}::{test}" for name in modules for test in names_of_tests(MODULES[name])]
    assert any(each.startswith(start) for each in ids), f"tests/conftest.py: no test begins with {start}"


def test_names_of_all_modules_are_unique() -> None:
    repeated = [name for name, count in Counter(path.name for path in MODULES.values()).items() if count > 1]
    assert not repeated, f"pytest cannot import two modules of one name: {', '.join(repeated)}"
