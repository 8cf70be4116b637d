"""Loading of tuned files in commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vpt.model.tuned_model import TunedModel


def load_tuned_model(file: Path, backbone: str | None, weights: Path | None, device: str = "auto") -> TunedModel:
    """Load a tuned file.

    Args:
        file: The tuned file.
        backbone: Name of the backbone, or None for the one that the file names.
        weights: File with local weights of the backbone, or None.
        device: "auto", "cpu", "cuda" or "mps". Default: "auto".

    Returns:
        The model, on the device.
    """
    from vpt.model.tuned_file import backbone_for, inspect, load
    from vpt.training import distributed

    target = distributed.resolve_device(device)
    return load(file, backbone_for(file, inspect(file), name=backbone, weights=weights)).to(target)
