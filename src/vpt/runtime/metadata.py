"""What a graph or the file of a task says of itself, checked: a stranger may have written it."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vpt.errors import TunedFileError

_FORMAT = 1
_MAX_SIZE = 8192  # px, as in the library
_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
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
    _require(isinstance(values, dict), "preprocessing", values, "an object")
    size, fraction = values["size"], values["crop_fraction"]
    _require(type(size) is int and 1 <= size <= _MAX_SIZE, "size", size, f"a whole number from 1 to {_MAX_SIZE:,}")
    for name, known in (("resize", ("squash", "crop")), ("interpolation", _INTERPOLATIONS)):
        _require(values[name] in known, name, values[name], f"one of {', '.join(known)}")
    _require(_is_number(fraction) and 0 < fraction <= 1, "crop_fraction", fraction, "above 0 and at most 1")
    if values["resize"] == "crop":  # the quotient may overflow
        least = f"at least {size / _MAX_SIZE}, so that images are scaled to at most {_MAX_SIZE:,} px"
        _require(size <= _MAX_SIZE * fraction, "crop_fraction", fraction, least)
    for name in ("mean", "std"):
        numbers = values[name]
        is_list = isinstance(numbers, list) and len(numbers) in (1, 3) and all(map(_is_number, numbers))
        _require(is_list and (name == "mean" or min(numbers) > 0), name, numbers, "one or three numbers, std above 0")
    _require(len(values["mean"]) == len(values["std"]), "std", values["std"], "as long as mean")


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
