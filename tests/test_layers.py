"""Layers: imports go down only, never in a circle, and each third party has its packages."""

from __future__ import annotations

import ast
import logging
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

import vpt

ROOT = Path(vpt.__file__).parent
CONTRACT = Path(__file__).parents[1] / "pyproject.toml"
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


def package(module: str) -> str:
    return module.split(".")[1]


def test_imports_of_each_layer_go_down_only(monkeypatch):
    """The contract stands in pyproject.toml: [tool.importlinter]."""
    monkeypatch.setattr(logging.getLogger("vpt"), "disabled", False)  # import-linter disables loggers; this undoes it
    assert lint_imports(str(CONTRACT)) == 0


def test_modules_have_no_circular_imports():
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


def test_third_party_imports_stay_in_their_packages():
    for module in MODULES:
        packages = {name.split(".")[0] for name in imports(module)}
        aids = ("vpt.training.weight_average", "vpt.training.layer_decay")  # timm's aids of training
        assert "timm" not in packages or package(module) in ("backbones", "attention") or module in aids, module
        assert "click" not in packages or package(module) == "cli", module
        assert "rich" not in packages or package(module) == "cli" or module == "vpt.api.progress", module
        assert "matplotlib" not in packages or package(module) == "plots", module


def test_library_modules_import_no_public_api():
    for module in MODULES:
        assert "vpt" not in imports(module) - MODULES.keys() or package(module) == "cli", module


def test_source_files_have_at_most_400_lines_and_specific_names():
    for module, path in MODULES.items():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, module
        assert path.stem not in ("utils", "util", "helpers", "common", "misc"), module


def test_import_vpt_loads_no_torch():
    script = "import sys, vpt; vpt.__version__; print(sorted({'torch', 'timm', 'numpy', 'click'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_of_vpt_exist():
    for name in vpt.__all__:
        assert getattr(vpt, name) is not None
    assert set(vpt.__all__) <= set(dir(vpt))
    assert {"testing", "training"} <= set(dir(vpt))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        vpt.nothing  # noqa: B018


def test_documented_submodules_after_import_vpt_are_available():
    script = "import sys, vpt; assert 'torch' not in sys.modules; print(len(vpt.testing.CHECKS) > 10, vpt.training.fit)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("True <function fit")
