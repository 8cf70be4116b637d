"""The methods as their source files describe them, for commands that start at once: importing them takes torch."""

import ast
from dataclasses import field, make_dataclass
from importlib.resources import files
from typing import Any

from vpt.core.spec import later_field


def read_methods() -> dict[str, type]:
    """Read the source files of `vpt.methods`.

    Returns:
        Name to a dataclass with the fields, defaults and docstring of the method, in the order of the registry.
    """
    sources = [file for file in files("vpt").joinpath("methods").iterdir() if file.name.endswith(".py")]
    statements = [statement for file in sources for statement in ast.parse(file.read_bytes()).body]
    classes = {statement.name: statement for statement in statements if isinstance(statement, ast.ClassDef)}
    assigned = {ast.unparse(each.targets[0]): each.value for each in statements if isinstance(each, ast.Assign)}
    kinds = assigned["_KINDS"]  # of the registry
    assert isinstance(kinds, ast.Tuple)
    methods = [_read_class(classes[ast.unparse(kind)]) for kind in kinds.elts]
    return {method.__name__: method for method in methods}


def _read_class(definition: ast.ClassDef) -> type:
    """Return the dataclass of a class statement, called as in the method's text."""
    (name,) = (ast.literal_eval(keyword.value) for keyword in definition.keywords if keyword.arg == "name")
    fields = [
        (ast.unparse(statement.target), Any, _read_default(statement.value))
        for statement in definition.body
        if isinstance(statement, ast.AnnAssign)
        and statement.value is not None
        and not ast.unparse(statement.annotation).startswith("ClassVar")
    ]
    return make_dataclass(name, fields, namespace={"__doc__": ast.get_docstring(definition)})


def _read_default(value: ast.expr) -> Any:
    """Return the field of a default: a plain value, or one in `later_field`."""
    if isinstance(value, ast.Call):
        return later_field(ast.literal_eval(value.args[0]))
    return field(default=ast.literal_eval(value))
