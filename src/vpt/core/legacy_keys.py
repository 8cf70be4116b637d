"""Keys of files that earlier versions wrote, and the names that the code gives them now.

Only this module knows the old names. A reader passes what it parsed through `upgrade` before it uses a key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_TRAINING = {
    "recipe": "config",
    "accumulate": "grad_accum_steps",
    "head_rate": "head_lr_scale",
    "interval": "eval_every",
    "storage": "save_dtype",
    "ignore": "ignore_index",
    "reduce_zero": "reduce_zero_label",
    "recompute_blocks": "activation_checkpointing",
    "crops": "augment",
}
_EPOCH = {"train_top1": "train_metric", "val_top1": "val_metric", "step_size": "lr"}
_RESULT = {
    "machine": "environment",
    "scored_on": "eval_split",
    "trained_parameters": "trainable_parameters",
    "part": "split",
}

# Kind of file -> its old keys and their names now, at any depth.
_KEYS: dict[str, dict[str, str]] = {
    "tuned_file": {"storage": "save_dtype", "cut": "split_options", "parts": "parameter_counts"},
    "job": {**_TRAINING, "images": "data_digest", "begun": "started"},
    "metrics": _EPOCH,
    "result": {**_TRAINING, **_EPOCH, **_RESULT},
    "checkpoint": {**_TRAINING, **_EPOCH},
    "run_record": {**_TRAINING, **_EPOCH, **_RESULT},
    "plan_file": _TRAINING,
    "decode_cache": {"places": "indices"},
}

# Options of classification that configurations of segmentation had without effect.
_OTHER_TASK = ("epochs", "warmup_epochs", "probe_epochs", "probe_weight_decay")

# Key, by its name now -> its old values and what they are called now.
_VALUES: dict[str, dict[str, str]] = {
    "augment": {"crop": "random_crop", "resize_crop": "random_resized_crop"},
}

# Field of a method's text -> its name now, and its old values and what they are called now.
_METHOD_FIELDS: dict[str, tuple[str, dict[str, str]]] = {
    "form": ("impl", {"exact": "kv", "textbook": "concat"}),
    "share": ("shared", {}),
    "fixed": ("frozen", {}),
    "pooled": ("pool_prompts", {}),
    "tables": ("rel_pos_bias", {}),
}
_METHOD_FIELD = re.compile(rf"\b({'|'.join(_METHOD_FIELDS)})(\s*=\s*)([\"']?)(\w+)")
_METHOD_TEXTS = frozenset({"method", "spec"})  # keys whose value is the text of a method

# Stage of a benchmark run, as format 1 of its record has it -> its name now.
_STAGES = {"choose": "search"}
_PARAMETERS = {"trained": "trainable"}

# Mappings whose keys are names that users chose, such as classes; they stay as they are.
_CHOSEN_BY_USERS = frozenset({"per_class", "scores", "versions"})


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
        renamed[key] = value if key in _CHOSEN_BY_USERS else _upgrade_value(kind, key, value)
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
        field, values = _METHOD_FIELDS[old]
        return f"{field}{equals}{quote}{values.get(value, value)}"

    return _METHOD_FIELD.sub(renamed, text)


def _upgrade_value(kind: str, key: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return upgrade(kind, value)
    if isinstance(value, list | tuple):
        return [_upgrade_value(kind, key, item) for item in value]
    if not isinstance(value, str):
        return value
    return upgrade_method(value) if key in _METHOD_TEXTS else _VALUES.get(key, {}).get(value, value)


def upgrade_run_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the record of a benchmark run in format 2.

    Args:
        record: A record in format 1.

    Returns:
        The upgraded copy.
    """
    config = {"crop_version" if key == "crops" else key: value for key, value in record["config"].items()}
    training = upgrade("plan_file", config.pop("recipe"))
    stage = _STAGES.get(record["stage"], record["stage"])
    scores = {"split" if key == "part" else key: value for key, value in record.get("scores", {}).items()}
    return {
        **record,
        "stage": stage,
        "config": {**upgrade("plan_file", config), "training": training, "stage": stage},
        "scores": scores,
        "parameters": {_PARAMETERS.get(key, key): value for key, value in record.get("parameters", {}).items()},
        "history": [upgrade("metrics", epoch) for epoch in record.get("history", ())],
        "format": 2,
    }


def upgrade_experiment(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a resolved plan with current keys and values.

    Args:
        values: The contents of plan.json.

    Returns:
        The upgraded copy.
    """
    if "entries" not in values:
        return dict(values)
    methods = [
        {
            "name": entry["name"],
            "settings": [
                {"spec": upgrade_method(setting["spec"]), "config": upgrade("plan_file", setting["recipe"])}
                for setting in entry["candidates"]
            ],
            "is_head_grid": entry.get("at_once", False),
        }
        for entry in values["entries"]
    ]
    tasks = [
        upgrade("plan_file", {"mask_options" if key == "masks" else key: value for key, value in task.items()})
        for task in values["tasks"]
    ]
    segmentation = values.get("segmentation")
    return {
        **{key: value for key, value in values.items() if key != "entries"},
        "methods": methods,
        "tasks": tasks,
        "segmentation": None if segmentation is None else upgrade("plan_file", segmentation),
    }


def upgrade_plan_file(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the tables of a plan file with current keys and values.

    Args:
        values: Parsed TOML. Values that are not tables are unchanged.

    Returns:
        The upgraded copy.
    """
    upgraded = {"training" if key == "recipe" else key: value for key, value in values.items()}
    for key in ("training", "segmentation"):
        if key in upgraded:
            upgraded[key] = _upgrade_table(upgraded[key])
    if isinstance(upgraded.get("grids"), Mapping):
        upgraded["grids"] = {name: _upgrade_table(grid) for name, grid in upgraded["grids"].items()}
    for key in ("tasks", "methods"):
        if isinstance(upgraded.get(key), list):
            upgraded[key] = [_upgrade_table(row) for row in upgraded[key]]
    return upgraded


def _upgrade_table(table: Any) -> Any:
    return upgrade("plan_file", table) if isinstance(table, Mapping) else table
