"""One forward pass of a frozen backbone for images of different tasks.

With deep prompts, a task differs from the frozen backbone in two respects: attention has further keys and values, and
the feature, or that of several blocks, is read by the head of the task. A batch may therefore contain images of
different tasks. The backbone runs on the whole batch; attention runs once per shape of prompts. Where a task replaces
other parts of blocks, such as a norm or an MLP, these run once per task. The results equal those of each task alone, up
to rounding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import Any, Self

import torch
from torch import Tensor, nn

from vpt.attention.class_token_block import ClassTokenBlock
from vpt.attention.detection import compute_dtype
from vpt.attention.joint_attention import GatedPrompts, KeyValues
from vpt.attention.kv_attention import KVAttention, KVPrompts, PromptGroups
from vpt.backbones import Backbone
from vpt.errors import UnsupportedError
from vpt.heads.multi_block import features_of, units
from vpt.methods import VPT, Linear
from vpt.methods.kv_prompts import PromptKeys
from vpt.model.batch_parts import BatchParts, learned_modules
from vpt.model.readout import MultiBlock
from vpt.model.shared_prompts import shared_prompts
from vpt.model.tuned_model import TunedModel
from vpt.training.block_features import FeatureTable


@dataclass(frozen=True, eq=False)
class TaskAdapter:
    """The prompts, the replaced parts of blocks and the head of a task.

    Args:
        kv_prompts: Path of an attention module to its prompts after the block's norm: (p, d), gated ones, `KeyValues`,
            or, where they depend on the image, a module from the normalized tokens of the block to one of these.
        head: Module from features (batch, d) to logits (batch, classes).
        modules: Path of a part of a block -> the module that replaces it.
        blocks: The blocks that the head reads, or None if it reads the pooled feature.
    """

    kv_prompts: Mapping[str, Tensor | GatedPrompts | KeyValues | nn.Module]
    head: nn.Module
    modules: Mapping[str, nn.Module] = field(default_factory=dict)
    blocks: MultiBlock | None = None

    @classmethod
    @torch.inference_mode()
    def from_model(cls, model: TunedModel) -> Self | None:
        """Return the adapter of a tuned model, which is set to eval mode.

        Args:
            model: The tuned model.

        Returns:
            The adapter, or None if the method does more than add prompts to attention and replace parts of blocks: it
            trains weights of the backbone, changes the image, the number of tokens or the layers inside attention, or
            reads another feature.
        """
        model.eval()
        learned = learned_modules(model)
        blocks = model.readout if isinstance(model.readout, MultiBlock) else None
        if learned is None or (blocks is None and not model.reads_backbone_feature):
            return None
        weight = next(model.trunk.parameters())
        # Keys read the dtype and the batch of their input alone.
        probe_input = torch.empty(1, 1, 1, dtype=compute_dtype(model.trunk), device=weight.device)
        prompts: dict[str, Any] = {}
        for path, wrapper in model.wrappers().items():
            if isinstance(wrapper, KVAttention) and not wrapper.num_positionless and path in learned:
                keys = learned.pop(path)
                prompts[path] = keys(probe_input) if type(keys) is PromptKeys else keys
        return cls(prompts, model.head, learned, blocks) if learned.keys() <= _replaceable(model) else None

    @property
    def prompt_shapes(self) -> tuple[tuple[str, int, int], ...]:
        """Path, number of prompts, and size of their gate, 0 without, -1 for keys and values.

        Samples with equal shapes share a call of attention. Prompts that depend on the image share none with others.
        """
        return tuple((path, *_shape(prompts)) for path, prompts in sorted(self.kv_prompts.items()))


class MultiTaskBackbone:
    """A frozen backbone that predicts images of different tasks in one pass. It is not thread-safe."""

    def __init__(self, backbone: Backbone, *, reads_blocks: bool = False) -> None:
        """Insert a prompt slot at each attention module.

        Args:
            backbone: The frozen backbone.
            reads_blocks: True computes the features of every block, for tasks whose heads read several. Default: False.
        """
        model, paths = _prompted_model(backbone)
        self._table: FeatureTable | None = None
        if reads_blocks:
            pooled, features = model.width, features_of(model.layout)
            readout = MultiBlock("all", "+".join(features), pooled=True)
            model = TunedModel(backbone, model.method, 1, readout=readout)
            self._table = FeatureTable(pooled, tuple(units(model.trunk, model.layout).values()), features)
        self.network: nn.Module = model.network
        self._slots = [_PromptSlot(path) for path in paths]
        for slot in self._slots:
            model.wrappers()[slot.path].kv_prompts = slot
        self._parts: dict[str, tuple[BatchParts, nn.Module]] = {}  # path -> the slot there, and the frozen module

    @torch.inference_mode()
    def __call__(self, images: Tensor, tasks: Sequence[TaskAdapter]) -> list[Tensor]:
        """Return the logits of each image for its task.

        Args:
            images: Normalized images (batch, 3, size, size).
            tasks: Task of each image.

        Returns:
            Logits (classes,) in float32, one tensor per image.
        """
        numbers = {task: number for number, task in enumerate(dict.fromkeys(tasks))}
        batch_order = sorted(range(len(tasks)), key=lambda i: (tasks[i].prompt_shapes, numbers[tasks[i]]))
        ordered = [tasks[i] for i in batch_order]
        groups = [list(group) for _, group in groupby(ordered, key=attrgetter("prompt_shapes"))]
        for slot in self._slots:
            slot.groups = groups
        for path in (path for task in numbers for path in task.modules):
            self._insert_parts(path)
        for path, (parts, frozen) in self._parts.items():
            runs = groupby(ordered, key=lambda task: task.modules.get(path, frozen))
            parts.parts = [(len(list(run)), module) for module, run in runs]
        features = self.network(images[torch.tensor(batch_order, device=images.device)])
        results: dict[int, Tensor] = {}
        for task in dict.fromkeys(tasks):  # the head of a task runs once
            rows = [position for position, other in enumerate(ordered) if other is task]
            dtype = next(task.head.parameters()).dtype
            read = features[torch.tensor(rows, device=features.device)]
            if self._table is not None and task.blocks is not None:
                read = torch.cat([read[:, columns] for columns in self._table.columns(task.blocks)], dim=1)
            logits = task.head(read.to(dtype)).float()
            results.update((batch_order[position], row) for position, row in zip(rows, logits, strict=True))
        return [results[i] for i in range(len(tasks))]

    def _insert_parts(self, path: str) -> None:
        """Insert a slot at a part of a block, if there is none."""
        if path in self._parts:
            return
        block_path, _, name = path.rpartition(".")
        block: Any = self.network.get_submodule(f"trunk.{block_path}")
        block = block.block if isinstance(block, ClassTokenBlock) else block
        self._parts[path] = BatchParts(), getattr(block, name)
        setattr(block, name, self._parts[path][0])


class _PromptSlot(nn.Module):
    """A module in place of the prompts of a task, which returns the prompts of each sample's task."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.groups: list[list[TaskAdapter]] = []  # tasks of the samples, in order; those of a group agree in lengths

    def forward(self, x: Tensor) -> PromptGroups:
        chunks = x.split([len(group) for group in self.groups])
        return [(len(group), self._prompts_of(group, chunk)) for group, chunk in zip(self.groups, chunks, strict=True)]

    def _prompts_of(self, group: list[TaskAdapter], x: Tensor) -> KVPrompts:
        if self.path not in group[0].kv_prompts:
            return None
        first = group[0].kv_prompts[self.path]
        if isinstance(first, nn.Module):
            return first(x)  # type: ignore[no-any-return] # the group is of one task
        if all(task is group[0] for task in group):
            return first
        prompts = [task.kv_prompts[self.path] for task in group]
        gated = [one for one in prompts if isinstance(one, GatedPrompts)]
        if gated:
            gates = torch.stack([one.gate.reshape(-1) for one in gated])
            return GatedPrompts(torch.stack([one.tokens for one in gated if isinstance(one.tokens, Tensor)]), gates)
        learned = [one for one in prompts if isinstance(one, KeyValues)]
        if learned:
            return KeyValues(torch.stack([one.keys for one in learned]), torch.stack([one.values for one in learned]))
        return torch.stack([one for one in prompts if isinstance(one, Tensor)])


def _replaceable(model: TunedModel) -> set[str]:
    """Return the paths of the parts of blocks that take the tokens of each image apart from those of others."""
    names = {"norm1", "norm2", "mlp", "drop1", "drop2"} | ({"attention"} if model.layout.kind == "windows" else set())
    blocks = {path: model.backbone.module.get_submodule(path) for path in model.layout.blocks}
    layouts = {path: model.layout.block_layout(block) for path, block in blocks.items()}
    return {f"{path}.{getattr(layout, name)}" for path, layout in layouts.items() if layout for name in names}


def _shape(prompts: Tensor | GatedPrompts | KeyValues | nn.Module) -> tuple[int, int]:
    if isinstance(prompts, nn.Module):
        return id(prompts), -2
    if isinstance(prompts, GatedPrompts):
        return len(prompts.tokens), prompts.gate.numel()
    return (prompts.keys.shape[-2], -1) if isinstance(prompts, KeyValues) else (len(prompts), 0)


def _prompted_model(backbone: Backbone) -> tuple[TunedModel, list[str]]:
    """Return a model with prompts on a backbone, and their attention modules; without any where it cannot have them."""
    try:
        prompted = TunedModel(backbone, VPT(length=1, dropout=0.0), 1)
        keys = shared_prompts(prompted)
    except UnsupportedError:
        keys = None
    return (TunedModel(backbone, Linear(), 1), []) if keys is None else (prompted, list(keys))
