"""One pass of one frozen backbone for images of different tasks.

A task of deep prompts differs from the frozen backbone in two places only: attention reads further keys, and a head
of its own reads the feature. So a batch may hold images of as many tasks as it has images. All of the backbone runs
over the whole batch; only attention goes over it by the number of prompts. Equal to each task alone, to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn

from vpt.attention.detection import dtype_of
from vpt.attention.kv_attention import Attend, Parts
from vpt.backbones import Backbone
from vpt.errors import FitError
from vpt.methods import VPT, Linear
from vpt.model.tuned_model import TunedModel


@dataclass(frozen=True, eq=False)
class Learned:
    """What a task adds to its backbone, where that is no more than this.

    keys: place of an attention -> tokens (p, d) that it reads as further keys and values, after the block's norm.
    head: features (batch, d) -> logits (batch, classes).
    """

    keys: Mapping[str, Tensor]
    head: nn.Module

    @classmethod
    @torch.inference_mode()
    def of(cls, model: TunedModel) -> Learned | None:
        """That of a tuned model; None where its method does more than give attention further keys."""
        places = model.prompt_keys()
        if places is None:
            return None
        weight = next(model.trunk.parameters())
        one = torch.empty(1, 1, 1, dtype=dtype_of(model.trunk), device=weight.device)  # read for dtype and batch alone
        return cls({place: keys(one) for place, keys in places.items()}, model.head)

    @property
    def lengths(self) -> tuple[tuple[str, int], ...]:
        """Place -> number of prompts; samples that agree in it go through attention together."""
        return tuple((place, len(tokens)) for place, tokens in sorted(self.keys.items()))


class Mixed:
    """A frozen backbone that answers images of different tasks in one pass. Not for several threads at once."""

    def __init__(self, backbone: Backbone) -> None:
        self.network, self._ports = _with_ports(backbone)

    @torch.inference_mode()
    def __call__(self, images: Tensor, tasks: Sequence[Learned]) -> list[Tensor]:
        """Normalised images (batch, 3, size, size), and of each the task -> of each the logits (classes,), in fp32."""
        order = sorted(range(len(tasks)), key=lambda i: tasks[i].lengths)
        turns = [list(turn) for _, turn in groupby((tasks[i] for i in order), key=lambda task: task.lengths)]
        for port in self._ports:
            port.turns = turns
        features = self.network(images[torch.tensor(order, device=images.device)])
        answers: dict[int, Tensor] = {}
        for task in dict.fromkeys(tasks):  # heads of a task answer together
            own = [place for place, i in enumerate(order) if tasks[i] is task]
            kind = next(task.head.parameters()).dtype
            logits = task.head(features[torch.tensor(own, device=features.device)].to(kind)).float()
            answers.update((order[place], row) for place, row in zip(own, logits, strict=True))
        return [answers[i] for i in range(len(tasks))]


class _Port(nn.Module):
    """Stands where one task's prompts stood, and gives every sample those of its own task."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place
        self.turns: list[list[Learned]] = []  # tasks of the samples, in turn; those of a turn agree in lengths

    def forward(self, x: Tensor) -> Parts:
        return tuple((len(turn), self._tokens(turn)) for turn in self.turns)

    def _tokens(self, turn: list[Learned]) -> Tensor | None:
        if self.place not in turn[0].keys:
            return None
        first = turn[0].keys[self.place]
        if all(task is turn[0] for task in turn):
            return first
        return torch.stack([task.keys[self.place] for task in turn])


def _with_ports(backbone: Backbone) -> tuple[nn.Module, list[_Port]]:
    """The backbone's network with a port at each attention that prompts can reach; none where they cannot."""
    try:
        carrier = TunedModel(backbone, VPT(length=1, dropout=0.0), 1)
        keys = carrier.prompt_keys()
    except FitError:
        keys = None
    if keys is None:
        return TunedModel(backbone, Linear(), 1).network, []
    ports = {id(extra): _Port(place) for place, extra in keys.items()}
    for module in carrier.network.modules():
        if isinstance(module, Attend) and id(module.extra) in ports:
            module.extra = ports[id(module.extra)]
    return carrier.network, list(ports.values())
