"""A backbone: a pretrained timm model, how its images look, and a fingerprint of its weights."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vpt.data.preprocessing import Preprocessing


@dataclass(frozen=True)
class Backbone:
    """A pretrained model and what is known of it. The model is never changed by vpt.

    name: the timm name it was made by, or the class name of a model made by hand.
    notes: remarks on loading, such as keys of a weights file that nothing used.
    """

    module: nn.Module
    name: str
    preprocessing: Preprocessing
    notes: tuple[str, ...] = ()

    def fingerprint(self) -> str:
        """SHA-256 over the names, shapes, types and bytes of all weights but the classifier's.

        A property of the weights as loaded: a backbone cast to another dtype, or with positions resized, differs.
        """
        digest = hashlib.sha256()
        classifier = classifier_prefixes(self.module)
        for name, tensor in sorted(self.module.state_dict().items()):
            if name.startswith(classifier):
                continue
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return f"sha256:{digest.hexdigest()}"

    def __deepcopy__(self, memo: dict[int, Any]) -> Backbone:
        return self  # frozen, and the point of it is to be shared


def classifier_prefixes(model: nn.Module) -> tuple[str, ...]:
    """Where a timm model keeps its classifier, as prefixes of weight names: pretrained_cfg["classifier"]."""
    config = getattr(model, "pretrained_cfg", None) or {}
    names = config.get("classifier") or ()
    return tuple(f"{name}." for name in ((names,) if isinstance(names, str) else names))
