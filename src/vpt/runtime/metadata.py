"""What a graph or the file of a task says of itself, checked: a stranger may have written it."""

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from vpt.data.preprocessing import Preprocessing
from vpt.errors import SpecError, TunedFileError

_FORMAT = 1
_KIND_KEYS = {"single_label": {"temperature"}, "multi_label": {"thresholds"}, "regression": {"mean", "std"}}


def read_metadata(text: str, path: str | Path, *, is_model: bool, num_outputs: int | None = None) -> dict[str, Any]:
    """Read and check the metadata of a file that `vpt export` wrote.

    Args:
        text: The metadata as JSON.
        path: The file, for messages.
        is_model: True for the graph or the file of a task, which names classes; False for the graph of a backbone.
        num_outputs: Number of outputs of the model. Default: not compared.

    Returns:
        The metadata.

    Raises:
        TunedFileError: The text is not JSON, a key is missing, or a value cannot be used.
    """
    try:
        values = json.loads(text)
        _require(isinstance(values, dict), "its metadata", values, "an object")
        _require(values["format"] == _FORMAT, "format", values["format"], f"{_FORMAT}, which this version reads")
        for name in ("backbone", "fingerprint"):
            _require(isinstance(values[name], str), name, values[name], "text")
        _check_preprocessing(values["preprocessing"])
        if is_model:
            _check_outputs(values["classes"], values["label_kind"], num_outputs)
    except KeyError as error:
        raise TunedFileError(f"{path} is damaged: its metadata has no {error.args[0]}; export it again") from error
    except (ValueError, RecursionError) as error:
        raise TunedFileError(f"{path} is damaged: {error}; export it again") from error
    return dict(values)


def _check_preprocessing(values: Any) -> None:
    """Check the types of JSON, and leave the rest to `Preprocessing`."""
    _require(isinstance(values, dict), "preprocessing", values, "an object")
    names = {field.name for field in fields(Preprocessing)}
    _require(values.keys() <= names, "preprocessing", values, f"of the keys {', '.join(sorted(names))} alone")
    _require(type(values["size"]) is int, "size", values["size"], "a whole number")
    _require(_is_number(values["crop_fraction"]), "crop_fraction", values["crop_fraction"], "a number")
    for name in ("resize", "interpolation"):
        _require(isinstance(values[name], str), name, values[name], "text")
    for name in ("mean", "std"):
        numbers = values[name]
        is_list = isinstance(numbers, list) and len(numbers) in (1, 3) and all(map(_is_number, numbers))
        _require(is_list, name, numbers, "one or three numbers")
    limits = values.get("value_range")
    is_range = isinstance(limits, list) and len(limits) == 2 and all(map(_is_number, limits)) and limits[0] < limits[1]
    _require(limits is None or is_range, "value_range", limits, "two numbers, the smaller first")
    try:
        read_preprocessing(values)
    except SpecError as error:
        raise ValueError(str(error)) from error


def read_preprocessing(values: Mapping[str, Any]) -> Preprocessing:
    """Return the preprocessing that a graph or the file of a task records.

    Args:
        values: Field name to value, as `read_metadata` has checked them.

    Returns:
        The preprocessing.
    """
    return Preprocessing.from_dict({name: value for name, value in values.items() if value is not None})


def _check_outputs(classes: Any, kind: Any, num_outputs: int | None) -> None:
    count = num_outputs
    if classes is not None:
        is_list = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
        _require(is_list, "classes", classes, "a list of names, or null")
        _require(count in (None, len(classes)), "classes", classes, f"{count} names, one for each output")
        count = len(classes)
    _require(isinstance(kind, Mapping), "label_kind", kind, "an object")
    name = kind["name"]
    _require(isinstance(name, str) and name in _KIND_KEYS, "label_kind.name", name, f"one of {', '.join(_KIND_KEYS)}")
    _require(kind.keys() <= _KIND_KEYS[name] | {"name"}, "label_kind", dict(kind), f"of the keys of {name} alone")
    if name == "regression":
        _require(count in (None, 1), "label_kind.name", name, f"a kind of {count} outputs, and this is one of a number")
        _require(_is_number(kind["mean"]), "label_kind.mean", kind["mean"], "a finite number")
        _require(_is_number(kind["std"]) and kind["std"] > 0, "label_kind.std", kind["std"], "a number above 0")
    elif name == "multi_label":
        thresholds = kind["thresholds"]
        is_list = isinstance(thresholds, list) and all(map(_is_number, thresholds))
        _require(is_list, "label_kind.thresholds", thresholds, "a list of numbers")
        fits = not thresholds or count in (None, len(thresholds))
        _require(fits, "label_kind.thresholds", thresholds, f"{count} numbers, one for each class")
    else:
        temperature = kind.get("temperature", 1.0)
        is_valid = _is_number(temperature) and temperature > 0
        _require(is_valid, "label_kind.temperature", temperature, "a number above 0")


def _require(is_valid: bool, name: str, value: Any, wanted: str) -> None:
    if not is_valid:
        raise ValueError(f"{name} is {value!r:.80}; it must be {wanted}")


def _is_number(value: Any) -> bool:
    """Return True for a finite number of JSON that float64 holds."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False
