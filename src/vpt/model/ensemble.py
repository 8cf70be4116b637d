"""Several prompt sets on one frozen backbone, in one forward pass (paper, section 4.3, "prompt ensembling")."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vpt.errors import SpecError
from vpt.methods.vpt import VPT
from vpt.model.tuned_model import TunedModel


class Ensemble(nn.Module):
    """Normalized images (batch, 3, size, size) -> logits (batch, classes): the log of the members' mean probability.

    The images run through the backbone once per member, all in one batch: one pass, one backbone in memory.

    models: tuned models on the very same backbone, with the same `vpt(...)` and the same classes; only what they have
    learned differs. They are not changed. Raises SpecError where they differ in more, naming it.
    """

    def __init__(self, models: Sequence[TunedModel]) -> None:
        super().__init__()
        for model in models:
            model.require_classifier("an ensemble")
        first = _require_compatible(models)
        template = TunedModel(first.backbone, first.method, first.num_classes, first.classes, first.readout)
        for index, prompts in enumerate(template.added_modules["prompts"].children()):
            members = [list(model.added_modules["prompts"].children())[index] for model in models]
            stacked = _StackedPrompts(members)
            # One module of prompts can be read at several blocks, where these share it.
            for parent in list(template.modules()):
                for name, child in list(parent.named_children()):
                    if child is prompts:
                        setattr(parent, name, stacked)
        self.network: nn.Module = template.network
        self.heads: nn.ModuleList = nn.ModuleList(model.head for model in models)
        self.classes: tuple[str, ...] | None = first.classes
        self.to(next(first.parameters()).device)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of the ensemble.

        Args:
            images: Normalized images (batch, 3, size, size).

        Returns:
            Log of the mean probability over the members (batch, classes).
        """
        features = self.network(images.repeat(len(self.heads), 1, 1, 1)).chunk(len(self.heads))
        log_probs = [head(x).log_softmax(-1) for head, x in zip(self.heads, features, strict=True)]
        return torch.stack(log_probs).logsumexp(0) - math.log(len(log_probs))


class _StackedPrompts(nn.Module):
    """Replacement of prompts: those of each member for its part of the batch, (members * batch, p, d)."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, batch: int) -> Tensor:
        per_member = batch // len(self.members)
        return torch.cat([member(per_member).expand(per_member, -1, -1) for member in self.members])


def _require_compatible(models: Sequence[TunedModel]) -> TunedModel:
    if len(models) < 2:
        raise SpecError(f"{len(models)} models make no ensemble; give at least two")
    first = models[0]
    if not isinstance(first.method, VPT) or first.method.location not in ("prepend", "add", "add_1"):
        raise SpecError(
            f"an ensemble in one pass needs models of one vpt(...) with prompts as tokens, not {first.method}"
        )
    for position, model in enumerate(models[1:], 2):
        if model.backbone.module is not first.backbone.module:
            raise SpecError(
                f"model {position} stands on another backbone object than the first; load them on the same one"
            )
        if model.method != first.method:
            raise SpecError(f"model {position} is {model.method}, the first is {first.method}; they must be the same")
        if model.readout != first.readout:
            raise SpecError(
                f"model {position} has the head {model.readout}, the first has {first.readout}; they must be the same"
            )
        if (model.num_classes, model.classes) != (first.num_classes, first.classes):
            raise SpecError(f"model {position} has other classes than the first; an ensemble answers one question")
    return first
