"""Several models on one frozen backbone, in one forward pass (paper, section 4.3, "prompt ensembling")."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vpt.attention.kv_attention import KVAttention
from vpt.errors import SpecError
from vpt.model.batch_parts import BatchParts, PromptParts, learned_modules
from vpt.model.plain import match_dtype
from vpt.model.tuned_model import TunedModel


class Ensemble(nn.Module):
    """Normalized images (batch, 3, size, size) -> logits (batch, classes): the log of the members' mean probability.

    The images run through the frozen backbone once per member, all in one batch: one pass, one backbone in memory. Only
    what the members have learned runs member by member: prompts, adapters, or, where a method trains weights of the
    backbone itself, the network.

    models: tuned models of one class for each image on the very same backbone, with the same method and the same
    classes; only what they have learned differs. They are not changed. Raises SpecError where they differ in more,
    naming it.
    """

    def __init__(self, models: Sequence[TunedModel]) -> None:
        super().__init__()
        for model in models:
            model.require_classifier("an ensemble")
        first = _require_compatible(models)
        template = TunedModel(first.backbone, first.method, first.num_classes, first.classes, first.readout)
        learned = [learned_modules(model) for model in models]
        # Networks and wrappers refer to added modules, which are in the tree by this place alone.
        self.members: nn.ModuleList = nn.ModuleList(model.added_modules for model in models)
        self.network: nn.Module
        if any(one is None for one in learned):
            self.members.extend(model.network for model in models)
            self.network = BatchParts([(1, model.network) for model in models])
        else:
            self.network = template.network
            paths = {id(module): path for path, module in template.network.named_modules()}
            for path in learned[0] or ():
                members = [one[path] for one in learned if one is not None]
                self.members.extend(members)
                wrapper, parts = template.wrappers()[path], [(1, member) for member in members]
                if isinstance(wrapper, KVAttention) and wrapper.kv_prompts is not None:
                    wrapper.kv_prompts = PromptParts(parts)
                else:
                    template.network.set_submodule(paths[id(wrapper)], BatchParts(parts))
        self.heads: nn.ModuleList = nn.ModuleList(model.head for model in models)
        self._kinds = [model.label_kind for model in models]
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
        members = zip(self._kinds, self.heads, features, strict=True)
        log_probs = [kind.scale(head(match_dtype(x, head))).log_softmax(-1) for kind, head, x in members]
        return torch.stack(log_probs).logsumexp(0) - math.log(len(log_probs))


def _require_compatible(models: Sequence[TunedModel]) -> TunedModel:
    if len(models) < 2:
        raise SpecError(f"{len(models)} models make no ensemble; give at least two")
    for position, model in enumerate(models, 1):
        if model.label_kind.name != "single_label":
            raise SpecError(
                f"model {position} predicts {model.label_kind.name}, and an ensemble averages the probabilities of one "
                "class for each image; average the answers of the models instead"
            )
    first = models[0]
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
