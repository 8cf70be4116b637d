"""Several models on one frozen backbone, in one forward pass (paper, section 4.3, "prompt ensembling")."""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from vpt.attention.forward_state import empty_caches
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
    classes; only what they have learned differs. Raises SpecError where they differ in more, naming it. They are not
    changed: the ensemble holds copies of what they have learned, so it can be moved and cast apart from them. It stays
    in eval mode, as it trains nothing.
    """

    def __init__(self, models: Sequence[TunedModel]) -> None:
        super().__init__()
        for model in models:
            model.require_classifier("an ensemble")
        first = _require_compatible(models)
        template = TunedModel(first.backbone, first.method, first.num_classes, first.classes, first.readout)
        learned = [learned_modules(model) for model in models]
        whole = any(each is None for each in learned)
        pairs = zip(models, learned, strict=True)
        copies = [_copy_learned(model, template, model.network if whole else each) for model, each in pairs]
        # Networks and wrappers refer to added modules, which are in the tree by this place alone.
        self.members: nn.ModuleList = nn.ModuleList(member.added_modules for member in copies)
        self.network: nn.Module
        if whole:
            self.members.extend(member.learned for member in copies)
            self.network = BatchParts([(1, member.learned) for member in copies])
        else:
            self.network = template.network
            paths = {id(module): path for path, module in template.network.named_modules()}
            for path in copies[0].learned:
                parts = [(1, member.learned[path]) for member in copies]
                self.members.extend(module for _, module in parts)
                wrapper = template.wrappers()[path]
                if isinstance(wrapper, KVAttention) and wrapper.kv_prompts is not None:
                    wrapper.kv_prompts = PromptParts(parts)
                else:
                    joined = BatchParts(parts)
                    for hook in wrapper._forward_hooks.values():  # a head may read the outputs of blocks
                        joined.register_forward_hook(hook)
                    for _, module in parts:
                        module._forward_hooks.clear()  # those of the members' own heads
                    template.network.set_submodule(paths[id(wrapper)], joined)
        self.heads: nn.ModuleList = nn.ModuleList(member.head for member in copies)
        self._kinds = [model.label_kind for model in models]
        self.classes: tuple[str, ...] | None = first.classes
        self.to(next(first.parameters()).device)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode: `train` would reach modules of the backbone that the members share.

        Args:
            mode: Has no effect. Default: True.

        Returns:
            This ensemble.
        """
        return super().train(False)

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


@dataclass(frozen=True)
class _Learned:
    """What a model has learned: its head, and `learned` as `learned_modules` returns it, or the whole network."""

    added_modules: nn.Module
    head: nn.Module
    learned: Any


def _copy_learned(model: TunedModel, template: TunedModel, learned: Any) -> _Learned:
    """Return copies of what a model has learned; what they refer to of the frozen modules is the template's."""
    trained = {id(tensor) for tensor in model.trainable_state_dict().values()}
    originals, theirs = model._original_modules, template._original_modules
    known = {id(module) for module in originals.values()}
    memo: dict[int, Any] = empty_caches(model)  # identity of a module or tensor -> what stands for it in the copy
    for path, module in originals.items():
        own, other = dict(_own_tensors(module)), dict(_own_tensors(theirs[path]))
        memo |= {id(tensor): other[name] for name, tensor in own.items() if id(tensor) not in trained and name in other}
        if not any(_is_changed(inner, known, trained) for inner in module.modules()):
            memo[id(module)] = theirs[path]
    return _Learned(*copy.deepcopy((model.added_modules, model.head, learned), memo))


def _is_changed(module: nn.Module, originals: set[int], trained: set[int]) -> bool:
    """Return whether a module was injected, trains, or has hooks, which would call the members' modules."""
    hooked = bool(module._forward_hooks or module._forward_pre_hooks)
    return id(module) not in originals or hooked or any(id(tensor) in trained for _, tensor in _own_tensors(module))


def _own_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(recurse=False, remove_duplicate=False)
    yield from module.named_buffers(recurse=False, remove_duplicate=False)


def _require_compatible(models: Sequence[TunedModel]) -> TunedModel:
    if len(models) < 2:
        raise SpecError(f"{len(models)} models make no ensemble; give at least two")
    for position, model in enumerate(models, 1):
        if model.label_kind.name != "single_label":
            raise SpecError(
                f"model {position} predicts {model.label_kind.name}, and an ensemble averages the probabilities of one "
                "class for each image; average the predictions of the models instead"
            )
    first = models[0]
    for position, model in enumerate(models[1:], 2):
        if model.backbone.module is not first.backbone.module:
            raise SpecError(
                f"model {position} stands on another backbone object than the first; load them on the same one"
            )
        if model.backbone.preprocessing != first.backbone.preprocessing:
            raise SpecError(
                f"model {position} reads images by {model.backbone.preprocessing}, the first by "
                f"{first.backbone.preprocessing}; all members see the same images, so load them with one preprocessing"
            )
        if model.method != first.method:
            raise SpecError(f"model {position} is {model.method}, the first is {first.method}; they must be the same")
        if model.readout != first.readout:
            raise SpecError(
                f"model {position} has the head {model.readout}, the first has {first.readout}; they must be the same"
            )
        if (model.num_classes, model.classes) != (first.num_classes, first.classes):
            raise SpecError(f"model {position} has other classes than the first; all members must have the same")
    return first
