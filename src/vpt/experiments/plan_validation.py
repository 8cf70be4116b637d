"""Validation of the tables of a plan file, with all errors at once and in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from vpt.core.text import did_you_mean
from vpt.experiments.plan_schema import PlanTable

_REMOVED = object()


def validate(model: type[PlanTable], values: dict[str, Any], source: str) -> tuple[PlanTable | None, list[str]]:
    """Validate parsed tables; values that cannot be used are left out, so that the rest can be checked too.

    Args:
        model: Model of the file.
        values: Parsed tables. They change: values that cannot be used are removed.
        source: Name of the file for messages.

    Returns:
        The validated tables, None where nothing is left to validate, and one text for each error.
    """
    texts: list[str] = []
    while True:
        try:
            return model.model_validate(values), texts
        except ValidationError as errors:
            before = len(texts)
            for error in errors.errors():
                text = f"{source}: {_describe(error, model)}"
                if text not in texts:
                    texts.append(text)
                if not _discard(values, error["loc"], whole_item=error["type"] != "extra_forbidden"):
                    return None, texts
            _drop_removed(values)
            if len(texts) == before:
                return None, texts


def _describe(error: ErrorDetails, model: type[PlanTable]) -> str:
    """Return an error in words: the key with its value, why it cannot be used, and what to do."""
    *table_path, key = error["loc"]
    table, location, value = _table_at(model, table_path), _dotted(error["loc"]), error["input"]
    where = _dotted(table_path) or getattr(model, "kind", "the file")
    if error["type"] == "extra_forbidden":
        return f"{where} has the key {key!r}, which has no meaning here; {did_you_mean(str(key), table.model_fields)}"
    if error["type"] == "missing":
        return f"{where} has no {key}; add one"
    if error["type"] == "literal_error":
        choices = map(str, get_args(_literal_of(table.model_fields[str(key)].annotation)))
        return f"{location} is {value!r}; {did_you_mean(str(value), choices)}"
    if error["type"] == "too_short":
        return f"{location} is an empty list; give it a value, or leave it out"
    reason = error["msg"].replace("Input should be", "it must be")
    return f"{location}: {reason}" if error["type"] == "vpt" else f"{location} is {value!r}; {reason}"


def _dotted(path: Any) -> str:
    """Return a path such as ("methods", 1, "spec") as text: methods[2].spec."""
    text = ""
    for step in path:
        text += f"[{step + 1}]" if isinstance(step, int) else f".{step}"
    return text.lstrip(".")


def _table_at(model: type[BaseModel], path: Any) -> type[BaseModel]:
    """Return the model of the table at a path."""
    for step in path:
        if step in model.model_fields:
            model = _table_in(model.model_fields[step].annotation) or model
    return model


def _table_in(annotation: Any) -> type[BaseModel] | None:
    """Return the first model within an annotation such as dict[str, Table]."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for found in map(_table_in, get_args(annotation)) if found is not None), None)


def _literal_of(annotation: Any) -> Any:
    """Return the Literal within an annotation such as Literal["a", "b"] | None."""
    choices = (part for part in get_args(annotation) if get_args(part))
    return next(choices, annotation)


def _discard(values: Any, path: Any, *, whole_item: bool) -> bool:
    """Remove the value at a path, or the item of the list that holds it; return False where there is none."""
    for step, following in zip(path, (*path[1:], None), strict=True):
        if isinstance(values, Mapping) and step not in values:
            return False
        child = values[step]
        if following is None or not isinstance(child, dict | list) or (whole_item and isinstance(step, int)):
            if isinstance(values, list):
                values[step] = _REMOVED
            else:
                del values[step]
            return True
        if child is _REMOVED:
            return True
        values = child
    return False


def _drop_removed(values: Any) -> None:
    if isinstance(values, list):
        values[:] = [value for value in values if value is not _REMOVED]
    for value in values.values() if isinstance(values, dict) else values if isinstance(values, list) else ():
        _drop_removed(value)
