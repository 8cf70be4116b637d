"""Opening a tuned file for a command: with the backbone it names, or with local weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vpt.model.tuned_model import TunedModel


def load_tuned_model(file: Path, backbone: str | None, weights: Path | None) -> TunedModel:
    """The tuned model in `file`, on this process's device."""
    from vpt.model.tuned_file import backbone_for, inspect, load
    from vpt.training import distributed

    return load(file, backbone_for(file, inspect(file), name=backbone, weights=weights)).to(distributed.local_device())
