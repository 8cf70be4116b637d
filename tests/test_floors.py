"""The house has floors: a module imports from the floors below it or from its own, never upward, never in a circle."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import vpt

ROOT = Path(vpt.__file__).parent
FLOORS = (
    {"errors", "_version"},
    {"core"},
    {"plots"},
    {"data"},
    {"datasets", "backbones"},
    {"attention"},
    {"heads"},
    {"methods"},
    {"model"},
    {"testing", "training"},
    {"tasks"},
    {"tuning"},
    {"analysis", "experiments", "serving"},
    {"cli"},
    {"__main__"},
)
FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
PATHS = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")
MODULES = {
    ".".join(("vpt", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path for path in PATHS
}


@cache
def imports(module: str) -> frozenset[str]:
    """Everything a module imports, wherever in it, by full name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively; write vpt.... in full"
            source = str(node.module)
            for alias in node.names:  # a name in a package, or a module of it
                inner = f"{source}.{alias.name}"
                found.add(inner if inner in MODULES else source)
    return frozenset(found)


def room(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_a_floor(module):
    assert room(module) in FLOOR, f"give {module} a floor"


@pytest.mark.parametrize("module", MODULES)
def test_imports_lead_downward(module):
    for other in imports(module) & MODULES.keys():
        same_package = room(other) == room(module)
        assert same_package or FLOOR[room(other)] <= FLOOR[room(module)], (
            f"{module} imports {other}, from a floor above"
        )


def test_no_circles():
    finished: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module in finished:
            return
        for other in imports(module) & MODULES.keys():
            visit(other, (*path, module))
        finished.add(module)

    for module in MODULES:
        visit(module, ())


@pytest.mark.parametrize("module", MODULES)
def test_third_parties_stay_in_their_rooms(module):
    packages = {name.split(".")[0] for name in imports(module)}
    assert not {"timm", "torchvision"} & packages or room(module) in ("backbones", "attention")
    assert not {"click", "rich"} & packages or room(module) == "cli"
    assert "matplotlib" not in packages or room(module) == "plots"
    assert "vpt" not in imports(module) - MODULES.keys() or room(module) == "cli", (
        "import from the module, not the face"
    )


@pytest.mark.parametrize("module", MODULES)
def test_files_are_short_and_named_for_what_they_hold(module):
    lines = len(MODULES[module].read_text(encoding="utf-8").splitlines())
    assert lines <= 400, f"{module} has {lines} lines"
    assert MODULES[module].stem not in ("utils", "util", "helpers", "common", "misc")


def test_importing_vpt_is_light():
    script = "import sys, vpt; vpt.__version__; print(sorted({'torch', 'timm', 'numpy', 'click'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_face_shows_what_it_promises():
    for name in vpt.__all__:
        assert getattr(vpt, name) is not None
    assert dir(vpt) == sorted(vpt.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        vpt.nothing  # noqa: B018
