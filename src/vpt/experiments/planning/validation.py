"""Reading and validation of plan files, with all errors at once and in words."""

import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from vpt.core.input_files import OUTSIDE_ADVICE, lies_outside, require_regular_file
from vpt.core.legacy_keys import upgrade_plan_file
from vpt.core.text import bullets, did_you_mean
from vpt.errors import SpecError, VptError
from vpt.experiments.planning.schema import PlanTable

Tables = TypeVar("Tables", bound=PlanTable)


class ErrorCollector:
    """The errors of one plan."""

    def __init__(self, source: str) -> None:
        """Start without errors.

        Args:
            source: Name of the plan for the message.
        """
        self.source = source
        self.errors: list[VptError] = []

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Keep a VptError of the `with` block, and continue after it."""
        try:
            yield
        except VptError as error:
            self.errors.append(error)

    def raise_collected(self) -> None:
        """Raise the errors.

        Raises:
            VptError: There are errors: a single one as it is, several as one of the first one's class that lists all.
        """
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            texts = list(dict.fromkeys(map(str, self.errors)))
            raise type(self.errors[0])(f"{self.source} has {len(texts)} errors:{bullets(texts, limit=len(texts))}")


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file with today's keys.

    Args:
        path: The file.

    Returns:
        The tables of a TOML file with today's keys.

    Raises:
        SpecError: The file cannot be read, or is not TOML.
    """
    require_regular_file(path, "plan", "give a TOML file", SpecError)
    try:
        return upgrade_plan_file(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}; check the path and its permissions") from error
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits
        raise SpecError(f"{path} is not TOML: {error}; correct the file") from error


def named_path(name: str, file: Path, plan: Path) -> Path:
    """Return a path that a plan names.

    Args:
        name: The path, relative to the file that names it.
        file: That file: the plan, or one with tasks for it.
        plan: The plan, or a name of what stands for one.

    Returns:
        The path.

    Raises:
        SpecError: It leads out of the folder of the plan.
    """
    path = file.parent / name
    if plan.is_file() and lies_outside(path, plan.parent):  # what no file names is the user's own
        raise SpecError(f"{file}: {name!r} lies outside the folder of the plan; {OUTSIDE_ADVICE}")
    return path


def validate(model: type[Tables], values: dict[str, Any], source: str, collector: ErrorCollector) -> Tables:
    """Validate parsed tables; values that cannot be used are left out, so that the rest can be checked too.

    Args:
        model: Model of the file.
        values: Parsed tables. They change: values that cannot be used are removed.
        source: Name of the file for messages.
        collector: Receives every error.

    Returns:
        The validated tables.
    """
    while True:
        try:
            return model.model_validate(values)
        except ValidationError as errors:
            texts = dict.fromkeys(f"{source}: {_describe(error, model)}" for error in errors.errors())
            collector.errors += map(SpecError, texts)
            located = (_locate(values, error) for error in errors.errors())
            unusable = {(id(container), key): container for container, key in located}
            for (_, key), container in reversed(unusable.items()):  # from the end of a list, so that no item moves
                del container[key]


def _describe(error: ErrorDetails, model: type[PlanTable]) -> str:
    """Return an error in words: the key with its value, why it cannot be used, and what to do."""
    *table_path, key = error["loc"]
    location, value = _dotted(error["loc"]), error["input"]
    where = _dotted(table_path) or getattr(model, "kind", "the file")
    match error["type"]:
        case "extra_forbidden":
            known = _table_at(model, table_path).model_fields
            initials = {"".join(word[0] for word in name.split("_")): name for name in known}  # such as lr
            hint = did_you_mean(initials.get(str(key), str(key)), known)
            return f"{where} has the key {key!r}, which has no meaning here; {hint}"
        case "missing":
            return f"{where} has no {key}; add one"
        case "literal_error":
            choices = re.findall("'(.*?)'", error["ctx"]["expected"])
            return f"{location} is {value!r}; {did_you_mean(str(value), choices)}"
        case "too_short":
            return f"{location} is an empty list; give it a value, or leave it out"
        case "model_type":
            return f"{location} is {value!r}; it must be a table"
        case "vpt":
            return f"{location}: {error['msg']}"
        case _:
            return f"{location} is {value!r}; {error['msg'].replace('Input should be', 'it must be')}"


def _dotted(path: Any) -> str:
    """Return a path such as ("methods", 1, "spec") as text: methods[2].spec."""
    return "".join(f"[{step + 1}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


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


def _locate(values: Any, error: ErrorDetails) -> tuple[Any, Any]:
    """Return the table or the list with what cannot be used, and its key: a whole item of a list, else a value."""
    whole_item = error["type"] != "extra_forbidden"
    container, key = values, error["loc"][0]
    for key in error["loc"]:
        container, values = values, values[key]
        if not isinstance(values, dict | list) or (whole_item and isinstance(key, int)):
            break
    return container, key
