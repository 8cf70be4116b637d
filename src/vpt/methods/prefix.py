"""Prefix tuning: learned keys and values of attention (E2VPT, Han et al., ICCV 2023; the word is PEFT's)."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from vpt.attention.joint_attention import KeyValues
from vpt.backbones.layout import BackboneLayout
from vpt.core.spec import later_field
from vpt.errors import SpecError
from vpt.methods.base import Injection, Method
from vpt.methods.depth import block_range
from vpt.methods.kv_prompts import inject_keys, prompted_block, require_kv_prompts
from vpt.methods.prompts import check_share, num_prompts, xavier_range
from vpt.methods.vpt import VPT

_ALL, _RANKED, _PRUNED = range(3)  # phases of prompts that are to be pruned


@dataclass(frozen=True)
class Prefix(Method, name="prefix", optimizer="adamw", learning_rate=0.02):
    """Keys and values of p prompts are learned in each block, after projection, instead of tokens.

    Args:
        length: Number of prompts p of a block. Default: 10.
        depth: "deep" for every block, or a range such as "3-6". Default: "deep".
        dropout: Dropout of keys and values in training. Default: 0.1.
        shared: One tensor is both keys and values. Default: False.
        prune: Share of the prompts of a block that is dropped halfway through training: those whose removal changes the
            loss least, to first order (E2VPT, section 3.3; its code trains what is left anew). Default: 0.
    """

    length: int = 10
    depth: str = "deep"
    dropout: float = 0.1
    shared: bool = False
    prune: float = later_field(0.0)

    def __post_init__(self) -> None:
        VPT(length=self.length, depth=self.depth, dropout=self.dropout)  # the same bounds, the same words
        if self.depth == "shallow":
            raise SpecError("a prefix has no output that propagates; write depth=deep, or a range such as 1-1")
        if not 0 <= self.prune < 1:
            raise SpecError(f"prune is {self.prune}; it must be at least 0 and below 1, as a share of the prompts")
        if self.prune and self.length == 1:
            raise SpecError("length is 1, and pruning leaves one prompt at least; leave prune out")
        check_share("prune", self.prune, self.length)
        if num_prompts(self.prune, self.length) == self.length:
            raise SpecError(f"prune is {self.prune}, which leaves none of {self.length} prompts; give less")

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        """Plan keys and values for each block."""
        require_kv_prompts(trunk, layout)
        first, last = block_range(self.depth, len(layout.blocks))
        prefixes: dict[int, nn.Module] = {}
        for index in range(first, last + 1):
            block, names = prompted_block(trunk, layout, index)
            kind = _PrunedPrefix if self.prune else _Prefix
            prefixes[index] = kind(self, getattr(block, names.attention), layout)
        modules = nn.ModuleList(prefixes.values())
        before_step = partial(_rank_prompts, modules) if self.prune else None
        return Injection(
            modules={"prefix": modules}, wrappers=inject_keys(trunk, layout, prefixes), before_step=before_step
        )

    def check_values(self, modules: nn.ModuleDict) -> None:
        """Check which prompts are left; raise SpecError if there are no such prompts, or for another phase."""
        for number, prefix in enumerate(modules["prefix"].children()):
            if not isinstance(prefix, _PrunedPrefix):
                continue
            kept, phase = prefix.kept.tolist(), int(prefix.phase)
            if phase not in (_ALL, _RANKED, _PRUNED):
                raise SpecError(f"prefix.{number}.phase is {phase}; it must be 0, 1 or 2; save the model again")
            unknown = [index for index in kept if not 0 <= index < self.length]
            if unknown or len(set(kept)) < len(kept):
                raise SpecError(
                    f"prefix.{number}.kept is {kept}; it must have each index once, from 0 to {self.length - 1}; save "
                    "the model again"
                )


class _Prefix(nn.Module):
    """Keys and values (heads, p, d/heads) of a block."""

    def __init__(self, method: Prefix, attention: Any, layout: BackboneLayout) -> None:
        super().__init__()
        heads = attention.num_heads
        width = attention.proj.in_features // heads
        init_range = xavier_range(layout.patch_size, width)
        self.keys: nn.Parameter = nn.Parameter(
            torch.empty(heads, method.length, width).uniform_(-init_range, init_range)
        )
        self.values: nn.Parameter | None = None
        if not method.shared:
            self.values = nn.Parameter(torch.empty_like(self.keys).uniform_(-init_range, init_range))
        self.dropout: nn.Dropout = nn.Dropout(method.dropout)

    def forward(self, batch: int) -> KeyValues:
        """Return the keys and values of a batch, one for all samples, or for each while dropout is applied."""

        def of_batch(tensor: Tensor) -> Tensor:
            tensor = self.left(tensor)
            if self.training and self.dropout.p > 0:
                return self.dropout(tensor.expand(batch, -1, -1, -1))  # type: ignore[no-any-return]
            return tensor

        return KeyValues(of_batch(self.keys), of_batch(self.keys if self.values is None else self.values))

    def left(self, tensor: Tensor) -> Tensor:
        """Return the keys or values of the prompts that take part."""
        return tensor


class _PrunedPrefix(_Prefix):
    """Keys and values of which the least important part is dropped.

    From the first ranking on, only the most important prompts are used in eval mode, so that what is validated is what
    will be left. In train mode all take part until they are dropped.
    """

    def __init__(self, method: Prefix, attention: Any, layout: BackboneLayout) -> None:
        super().__init__(method, attention, layout)
        num_kept = method.length - num_prompts(method.prune, method.length)
        self.importance: Tensor  # (p,), summed over the batches before prompts are dropped
        self.kept: Tensor  # indices of the most important prompts
        self.phase: Tensor  # as below
        self.register_buffer("importance", torch.zeros(method.length))
        self.register_buffer("kept", torch.arange(num_kept))
        self.register_buffer("phase", torch.tensor(_ALL))
        self._phase = _ALL  # the same as a Python number, which a forward pass can branch on
        self.register_load_state_dict_post_hook(_read_phase)  # type: ignore[no-untyped-call]

    def read_phase(self) -> None:
        """Read the phase from its buffer, which may have been loaded."""
        if not self.phase.is_meta:
            self._phase = int(self.phase)

    def train(self, mode: bool = True) -> Self:
        """Set the mode, and read the phase."""
        self.read_phase()
        return super().train(mode)

    def left(self, tensor: Tensor) -> Tensor:
        """Return the keys or values of the prompts that take part."""
        if self._phase == _PRUNED or (self._phase == _RANKED and not self.training):
            return tensor.index_select(1, self.kept)
        return tensor

    @torch.no_grad()
    def rank(self, *, drop: bool) -> None:
        """Take a batch into the importance of the prompts: |dL/dm| of a factor m of a prompt, at m = 1.

        Args:
            drop: Drop the least important prompts.
        """
        pairs = [(tensor, tensor.grad) for tensor in (self.keys, self.values) if tensor is not None]
        effects = [(tensor * grad).sum((0, 2)) for tensor, grad in pairs if grad is not None]
        if self._phase == _PRUNED or not effects:
            return
        effect = torch.stack(effects).sum(0).abs()
        if effect.isfinite().all():  # else the optimizer skips this step, or training has diverged
            self.importance += effect
        self.kept.copy_(self.importance.topk(len(self.kept)).indices.sort().values)
        self._phase = _PRUNED if drop else _RANKED
        self.phase.fill_(self._phase)


def _read_phase(prefix: nn.Module, _: object) -> None:
    prefix.read_phase()  # type: ignore[operator]


def _rank_prompts(prefixes: nn.ModuleList, done: float) -> None:
    """Rank the prompts of all blocks, and drop some of each halfway through training."""
    for prefix in prefixes:
        prefix.rank(drop=done >= 0.5)  # type: ignore[operator]
