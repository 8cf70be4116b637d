"""Opening a tuned file for a command: with the backbone it names, or with local weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vpt.model import TunedModel


def load_tuned(file: Path, backbone: str | None, weights: Path | None) -> TunedModel:
    """The tuned model in `file`, on this process's device."""
    from vpt.artifact import inspect, load
    from vpt.backbone import Backbone, load_backbone
    from vpt.training import distributed

    at_hand: str | Backbone | None = backbone
    if weights is not None:
        header = inspect(file)
        name = backbone or header.backbone
        at_hand = load_backbone(name, weights=weights)
        if at_hand.preprocessing.size != header.preprocessing.size:
            at_hand = load_backbone(name, weights=weights, image_size=header.preprocessing.size)
    return load(file, at_hand).to(distributed.local_device())
