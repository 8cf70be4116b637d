"""The curves of metrics in the history of a training."""

from collections.abc import Mapping, Sequence
from typing import Any


def metric_lines(history: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Return the points of each metric, so that train and val of the same metric come together.

    Args:
        history: Metrics of each epoch, with the keys of metrics.jsonl.

    Returns:
        Metric -> split -> epochs and values. The metric of train comes first. Records of earlier versions have one
        metric, "metric", for each split, as they do not name it.
    """
    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for epoch in history:
        named = epoch.get("metrics") or {key: epoch[key] for key in ("train_metric", "val_metric")}
        for key, value in named.items():
            split, _, name = key.partition("_")
            if value is not None:
                found.setdefault(name, {}).setdefault(split, []).append((epoch["epoch"], value))
    return found
