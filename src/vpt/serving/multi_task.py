"""One forward pass of a frozen backbone for images of different tasks.

With deep prompts, a task differs from the frozen backbone in two respects: attention has further keys and values, and
the feature is read by the head of the task. A batch may therefore contain images of different tasks. The backbone runs
on the whole batch; attention runs once per shape of prompts. The results equal those of each task alone, up to
rounding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Self

import torch
from torch import Tensor, nn

from vpt.attention.detection import compute_dtype
from vpt.attention.joint_attention import GatedPrompts, KeyValues
from vpt.attention.kv_attention import KVAttention, KVPrompts, PromptGroups
from vpt.backbones import Backbone
from vpt.errors import UnsupportedError
from vpt.methods import VPT, Linear
from vpt.methods.kv_prompts import PromptKeys
from vpt.model.injection import named_tensors
from vpt.model.tuned_model import TunedModel


@dataclass(frozen=True, eq=False)
class TaskAdapter:
    """The prompts and the head of a task.

    Args:
        kv_prompts: Path of an attention module to its prompts after the block's norm: (p, d), gated ones, or
            `KeyValues`.
        head: Module from features (batch, d) to logits (batch, classes).
    """

    kv_prompts: Mapping[str, Tensor | GatedPrompts | KeyValues]
    head: nn.Module

    @classmethod
    @torch.inference_mode()
    def from_model(cls, model: TunedModel) -> Self | None:
        """Return the adapter of a tuned model, which is set to eval mode.

        Args:
            model: The tuned model.

        Returns:
            The adapter, or None if the method does more than add prompts to attention that all images share.
        """
        model.eval()
        paths = _prompt_keys(model)
        if paths is None:
            return None
        weight = next(model.trunk.parameters())
        # Keys read the dtype and the batch of their input alone.
        probe_input = torch.empty(1, 1, 1, dtype=compute_dtype(model.trunk), device=weight.device)
        return cls({path: keys(probe_input) for path, keys in paths.items()}, model.head)

    @property
    def prompt_shapes(self) -> tuple[tuple[str, int, int], ...]:
        """Path, number of prompts, and size of their gate, 0 without, -1 for keys and values.

        Samples with equal shapes share a call of attention.
        """
        return tuple((path, *_shape(prompts)) for path, prompts in sorted(self.kv_prompts.items()))


class MultiTaskBackbone:
    """A frozen backbone that predicts images of different tasks in one pass. It is not thread-safe."""

    def __init__(self, backbone: Backbone) -> None:
        """Insert a prompt slot at each attention module.

        Args:
            backbone: The frozen backbone.
        """
        self.network: nn.Module
        self.network, self._slots = _insert_prompt_slots(backbone)

    @torch.inference_mode()
    def __call__(self, images: Tensor, tasks: Sequence[TaskAdapter]) -> list[Tensor]:
        """Return the logits of each image for its task.

        Args:
            images: Normalized images (batch, 3, size, size).
            tasks: Task of each image.

        Returns:
            Logits (classes,) in float32, one tensor per image.
        """
        batch_order = sorted(range(len(tasks)), key=lambda i: tasks[i].prompt_shapes)
        ordered = [tasks[i] for i in batch_order]
        groups = [list(group) for _, group in groupby(ordered, key=attrgetter("prompt_shapes"))]
        for slot in self._slots:
            slot.groups = groups
        features = self.network(images[torch.tensor(batch_order, device=images.device)])
        answers: dict[int, Tensor] = {}
        for task in dict.fromkeys(tasks):  # heads of a task answer together
            rows = [position for position, other in enumerate(ordered) if other is task]
            dtype = next(task.head.parameters()).dtype
            logits = task.head(features[torch.tensor(rows, device=features.device)].to(dtype)).float()
            answers.update((batch_order[position], row) for position, row in zip(rows, logits, strict=True))
        return [answers[i] for i in range(len(tasks))]


class _PromptSlot(nn.Module):
    """A module in place of the prompts of a task, which returns the prompts of each sample's task."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.groups: list[list[TaskAdapter]] = []  # tasks of the samples, in order; those of a group agree in lengths

    def forward(self, x: Tensor) -> PromptGroups:
        return [(len(group), self._prompts_of(group)) for group in self.groups]

    def _prompts_of(self, group: list[TaskAdapter]) -> KVPrompts:
        if self.path not in group[0].kv_prompts:
            return None
        first = group[0].kv_prompts[self.path]
        if all(task is group[0] for task in group):
            return first
        prompts = [task.kv_prompts[self.path] for task in group]
        gated = [one for one in prompts if isinstance(one, GatedPrompts)]
        if gated:
            gates = torch.stack([one.gate.reshape(-1) for one in gated])
            return GatedPrompts(torch.stack([one.tokens for one in gated]), gates)
        learned = [one for one in prompts if isinstance(one, KeyValues)]
        if learned:
            return KeyValues(torch.stack([one.keys for one in learned]), torch.stack([one.values for one in learned]))
        return torch.stack([one for one in prompts if isinstance(one, Tensor)])


def _shape(prompts: Tensor | GatedPrompts | KeyValues) -> tuple[int, int]:
    if isinstance(prompts, GatedPrompts):
        return len(prompts.tokens), prompts.gate.numel()
    return (prompts.keys.shape[-2], -1) if isinstance(prompts, KeyValues) else (len(prompts), 0)


def _insert_prompt_slots(backbone: Backbone) -> tuple[nn.Module, list[_PromptSlot]]:
    """Return the network of the backbone with a slot at each attention module that supports prompts."""
    try:
        prompted = TunedModel(backbone, VPT(length=1, dropout=0.0), 1)
        keys = _prompt_keys(prompted)
    except UnsupportedError:
        keys = None
    if keys is None:
        return TunedModel(backbone, Linear(), 1).network, []
    slots = [_PromptSlot(path) for path in keys]
    for slot in slots:
        prompted.wrappers()[slot.path].kv_prompts = slot
    return prompted.network, slots


def _prompt_keys(model: TunedModel) -> dict[str, PromptKeys] | None:
    """Return path of an attention -> its prompts, where the model has learned nothing but prompts and a head.

    Empty where only the head trains. None where the method does more or the head reads another feature. None too where
    prompts depend on the image: each image has its own, so nothing is shared between the images of a task.
    """
    wrappers = model.wrappers()
    keys = {
        path: module.kv_prompts
        for path, module in wrappers.items()
        if isinstance(module, KVAttention) and not module.num_positionless and type(module.kv_prompts) is PromptKeys
    }
    learned = [model.head, *(key.prompts for key in keys.values() if isinstance(key.prompts, nn.Module))]
    known = {id(tensor) for module in learned for _, tensor in named_tensors(module)}
    known |= {id(key.gate) for key in keys.values() if key.gate is not None}
    trained = model.trainable_state_dict().values()
    only_prompts_and_head = len(keys) == len(wrappers) and all(id(tensor) in known for tensor in trained)
    if not only_prompts_and_head or not model.reads_backbone_feature:
        return None
    return keys if all(key.windows_per_image == 1 for key in keys.values()) else None
