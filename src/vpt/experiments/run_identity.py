"""What identifies a run: a hash of all that decides its result, which later versions of vpt leave as it is."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from vpt.training import TaskConfig

# Values with which earlier versions ran, which lacked these fields of a job and these training options.
LATER_FIELDS: dict[str, Any] = {
    "skip_corrupt": False, "crop_fraction": None, "normalization": "backbone", "images_per_class": None,
    "value_range": None,
}  # fmt: skip
_LATER_TRAINING: dict[str, Any] = {
    "decay": "all", "val_interval": 1, "ema": 0.0, "patience": 0, "keep": "last", "layer_decay": 1.0, "loss": "auto",
    "class_weights": None, "label_smoothing": 0.0, "balanced_sampling": False, "metric": "auto",
    "block_rates": None,
}  # fmt: skip


def run_id(config: Mapping[str, Any]) -> str:
    """Return the id of the run with this `Run.config`: a hash."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:20]


def training_options(config: TaskConfig) -> dict[str, Any]:
    """Return the training options of a run's config: without those of later versions that change nothing.

    So the ids of runs of earlier versions stay as they are.

    Args:
        config: The training configuration.

    Returns:
        The options by name.
    """
    return {name: value for name, value in config.to_dict().items() if _LATER_TRAINING.get(name) != value}
