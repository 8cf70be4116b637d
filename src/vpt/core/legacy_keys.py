"""Keys of files that earlier versions wrote, and the names that the code gives them now.

Only this module knows the old names. A reader passes what it parsed through `upgrade` before it uses a key.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_TABLES: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))

# Kind of file -> its old keys and their names now, at any depth.
_KEYS: dict[str, dict[str, str]] = {
    kind: {old: new for table in tables for old, new in _TABLES["keys"][table].items()}
    for kind, tables in _TABLES["files"].items()
}
_VALUES: dict[str, dict[str, str]] = _TABLES["values"]
_METHOD_FIELD = re.compile(rf"\b({'|'.join(_TABLES['method_fields'])})(\s*=\s*)([\"']?)(\w+)")
# The beginning of a full text without a field that came later -> the same with this field.
_ADDED_FIELDS = {
    rf"\b{method}\((?![^)]*\b{name}=)": f"{method}({name}={value}, "
    for method, fields in _TABLES["added_method_fields"].items()
    for name, value in fields.items()
}
_METHOD_TEXTS = frozenset({"method", "spec"})  # keys whose value is the text of a method

# Options of classification that configurations of segmentation had without effect.
_OTHER_TASK = ("epochs", "warmup_epochs", "probe_epochs", "probe_weight_decay")

# Mappings that stay as they are: keys that users chose (classes, packages, metrics), or that no earlier version wrote.
_CURRENT = frozenset({"metrics", "per_class", "scores", "search", "versions"})


def upgrade(kind: str, mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of parsed file contents with current keys and values, at any depth.

    Args:
        kind: A key of the table of files, such as "job" or "result".
        mapping: Parsed contents. Keys that are current already stay; a renamed key wins over a current one.

    Returns:
        The upgraded copy.
    """
    keys = _KEYS[kind]
    renamed: dict[str, Any] = {}
    for old, value in sorted(mapping.items(), key=lambda item: item[0] in keys):
        key = keys.get(old, old)
        renamed[key] = value if key in _CURRENT else _upgrade_value(kind, key, value)
    if {"iterations", *_OTHER_TASK} <= renamed.keys():  # as vpt wrote them; a user's key is left to be refused
        for key in _OTHER_TASK:
            del renamed[key]
    return {key: renamed[key] for key in (keys.get(old, old) for old in mapping) if key in renamed}


def upgrade_result(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a result.json in today's form, with one mapping of metrics for every task."""
    result = upgrade("result", values)
    if "metrics" in result or result["status"] != "done":
        return result
    is_dense = "miou" in result
    names = ("miou", "pixel_accuracy") if is_dense else ("top1", "mean_per_class")
    metrics = {f"{result['eval_split']}_{name}": result.pop(name) for name in names}
    return {
        "head": None,
        "head_parameters": None,
        "run_dir": str(Path(result["file"]).with_suffix(".run")),
        **result,
        "task": "segmentation" if is_dense else "classification",
        "metric": next(iter(metrics)),
        "metrics": metrics,
    }


def upgrade_method(text: str) -> str:
    """Return the text of a method with current fields and values.

    Args:
        text: A method, such as `vpt(form=exact) + bias`.

    Returns:
        The same method, such as `vpt(impl=kv) + bias`.
    """

    def renamed(match: re.Match[str]) -> str:
        old, equals, quote, value = match.groups()
        field = _TABLES["method_fields"][old]
        return f"{field['name']}{equals}{quote}{field.get('values', {}).get(value, value)}"

    return _METHOD_FIELD.sub(renamed, text)


def _upgrade_value(kind: str, key: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return upgrade(kind, value)
    if isinstance(value, list | tuple):
        return [_upgrade_value(kind, key, item) for item in value]
    if not isinstance(value, str):
        return value
    if key not in _METHOD_TEXTS:
        return _VALUES.get(key, {}).get(value, value)
    if kind == "tuned_file":  # whose method has every field
        for pattern, replacement in _ADDED_FIELDS.items():
            value = re.sub(pattern, replacement, value)
    return upgrade_method(value)


def upgrade_run_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the record of a benchmark run in format 2.

    Args:
        record: A record in format 1.

    Returns:
        The upgraded copy.
    """
    config = {"crop_version" if key == "crops" else key: value for key, value in record["config"].items()}
    scores = upgrade("result", record.get("scores", {}))
    upgraded = upgrade("run_record", {**record, "config": config})
    return {**upgraded, "method": record["method"], "scores": scores, "format": 2}  # the name of a row, not a text


def upgrade_experiment(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a resolved plan with current keys and values.

    Args:
        values: The contents of plan.json.

    Returns:
        The upgraded copy.
    """
    return upgrade("experiment", values) if "entries" in values else dict(values)


def upgrade_plan_file(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the tables of a plan file with current keys and values.

    Args:
        values: Parsed TOML. Values that are not tables are unchanged.

    Returns:
        The upgraded copy.
    """
    upgraded = {"training" if key == "recipe" else key: value for key, value in values.items()}
    for key in ("training", "segmentation", "tasks", "methods"):
        if key in upgraded:
            upgraded[key] = _upgrade_value("plan_file", key, upgraded[key])
    if isinstance(upgraded.get("grids"), Mapping):  # its own keys are names that users chose
        upgraded["grids"] = {name: _upgrade_value("plan_file", name, grid) for name, grid in upgraded["grids"].items()}
    return upgraded
