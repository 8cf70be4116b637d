"""Visual prompt tuning: deep, shallow, and every variant of the paper's ablations (paper, sections 3 and 4.3)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

from torch import Tensor, nn

from vpt.attention.kv_attention import Attend
from vpt.backbones.layout import BlockLayout, Sites
from vpt.errors import FitError, SpecError, nearest
from vpt.heads.pooling import Output, reading
from vpt.methods import windows
from vpt.methods.base import WHOLE, Method, Plan, Wrap
from vpt.methods.pixels import ConcatChannel, Frame, PixelPatches
from vpt.methods.prompts import Add, Insert, PromptKeys, Prompts, Remove, xavier_bound

_RANGE = re.compile(r"(\d+)-(\d+)")
_IN_PIXELS = ("prepend_pixel", "concat_channel", "pad")


@dataclass(frozen=True)
class VPT(Method):
    """Learned tokens in the input of a frozen transformer.

    length: p, prompts per block. depth: "deep" gives every block its own prompts (equation 5); "shallow" gives the
    first block prompts that travel through all (equation 4); "3-6" gives blocks 3 to 6 their own, and those of
    block 6 travel on. dropout: on the prompts, in training.
    form: "exact" computes deep prompts as keys and values only, at the cost of the frozen backbone; "textbook"
    concatenates and discards, as written in the paper. Equal to rounding; blocks that the exact form does not know
    get the textbook form in either case.
    location: "prepend" tokens; "add" one to every token, or "add_1" one vector to all of them; and in pixels, before
    the first block: "prepend_pixel" p patches, "concat_channel" p channels, "pad" a frame p pixels wide.
    output: what the head reads: the backbone's "default", "cls", or the mean or max of the image's tokens, of the
    prompts, or of both ("global_mean"). init: "random", or "prototypes": prompt i begins as the mean feature of
    class i. share: prompts are the same for all "blocks", or one vector stands for all "prompts" of a block, or
    "all". projection: prompts are learned in this width and projected to d. fixed: prompts stay as drawn.
    pooled: on Swin, the pooled feature also averages the prompts of the last block, as the paper's code does.
    """

    name: ClassVar[str] = "vpt"
    # The paper searches SGD from 0.05 to 50 per task; without a search AdamW is the safer start (LOG.md).
    optimizer: ClassVar[Literal["sgd", "adamw"]] = "adamw"
    learning_rate: ClassVar[float] = 0.02

    length: int = 10
    depth: str = "deep"
    dropout: float = 0.1
    form: Literal["exact", "textbook"] = "exact"
    location: Literal["prepend", "add", "add_1", "prepend_pixel", "concat_channel", "pad"] = "prepend"
    output: Output = "default"
    init: Literal["random", "prototypes"] = "random"
    share: Literal["none", "blocks", "prompts", "all"] = "none"
    projection: int | None = None
    fixed: bool = False
    pooled: bool = False

    def __post_init__(self) -> None:
        if self.length < 1:
            raise SpecError(f"length is {self.length}; a prompt needs at least one token (no prompts at all: `linear`)")
        if not 0 <= self.dropout < 1:
            raise SpecError(f"dropout is {self.dropout}; it must be at least 0 and below 1")
        bounds = _RANGE.fullmatch(self.depth)
        if self.depth not in ("deep", "shallow") and not (bounds and 1 <= int(bounds[1]) <= int(bounds[2])):
            raise SpecError(
                f'depth is {self.depth!r}; it must be deep, shallow, or a range of blocks such as "3-6"; '
                f"{nearest(self.depth, ('deep', 'shallow'))}"
            )
        if self.projection is not None and self.projection < 1:
            raise SpecError(f"projection is {self.projection}; it must be at least 1")
        for clash, otherwise in self._clashes():
            if clash:
                raise SpecError(f"{self.spec()}: {otherwise}")

    def _clashes(self) -> list[tuple[bool, str]]:
        """What makes no sense together, and what to do instead."""
        plain = (self.share, self.projection, self.init) == ("none", None, "random") and not self.fixed
        return [
            (
                self.location in _IN_PIXELS and self.depth != "shallow",
                f"{self.location} changes the image, which only the first block reads; write depth=shallow",
            ),
            (
                self.location in ("add", "add_1") and self.length != 10,
                "add has a prompt for every token, and add_1 one for all; leave length out",
            ),
            (
                self.location in _IN_PIXELS and not plain,
                f"share, projection, init and fixed are for prompts that are tokens, not for {self.location}",
            ),
            (
                self.location in ("add", "add_1", "concat_channel", "pad") and self.output.startswith("prompt"),
                f"with {self.location} no prompt comes out of the last block; read cls, image_mean or image_max",
            ),
            (
                self.init == "prototypes" and (self.projection is not None or self.share in ("prompts", "all")),
                "prototypes are whole tokens, one per class; they go with neither projection nor shared vectors",
            ),
            (
                self.init == "prototypes" and self.location != "prepend",
                "prototypes are tokens, and go with location=prepend",
            ),
            (self.fixed and self.projection is not None, "a projection trains, so the prompts would not stay fixed"),
        ]

    def plan(self, trunk: nn.Module, sites: Sites) -> Plan:
        if self.location == "pad":
            return self._frame(trunk, sites)
        if sites.kind not in ("tokens", "windows") or not sites.blocks:
            raise FitError(
                f"prompts need transformer blocks, and none are known in {type(trunk).__name__}; around the image they "
                'fit any backbone: "vpt(location=pad, depth=shallow)"'
            )
        if self.location == "concat_channel":
            return self._channels(trunk, sites)
        if sites.kind == "windows":
            return self._windows(trunk, sites)
        if self.location == "add" or self.location == "add_1":
            return self._add(sites)
        if self.location == "prepend_pixel":
            projection = trunk.get_submodule(str(sites.stem))
            patches = PixelPatches(self.length, sites.patch, sites.image, projection)
            return self._prepend(trunk, sites, [patches])
        first, last = self.blocks(len(sites.blocks))
        return self._prepend(trunk, sites, self._prompts([sites.width] * (last - first + 1), sites))

    @property
    def needs_prototypes(self) -> bool:
        return self.init == "prototypes"

    def begin_at(self, prototypes: Tensor, added: nn.ModuleDict) -> None:
        if len(prototypes) != self.length:
            raise SpecError(
                f"{self} begins at class prototypes, one prompt each; with {len(prototypes)} classes, write "
                f"length={len(prototypes)}"
            )
        for prompts in added["prompts"].children():
            assert isinstance(prompts, Prompts)
            prompts.tokens.copy_(prototypes)

    def blocks(self, count: int) -> tuple[int, int]:
        """First and last of the blocks that have prompts of their own, from 0."""
        if self.depth in ("deep", "shallow"):
            return 0, count - 1 if self.depth == "deep" else 0
        first, last = (int(bound) for bound in self.depth.split("-"))
        if last > count:
            raise FitError(f"depth is {self.depth}, but there are {count} blocks")
        return first - 1, last - 1

    def _prompts(self, widths: list[int], sites: Sites, length: int | None = None) -> list[nn.Module]:
        """Prompts for blocks of these widths; blocks that share theirs get the same module."""
        p = length or self.length
        rows = 1 if self.share in ("prompts", "all") else None
        projections: dict[int, nn.Linear] = {}
        made: dict[int, nn.Module] = {}
        found = []
        for index, width in enumerate(widths):
            projection = None
            if self.projection is not None:
                projection = projections.setdefault(width, nn.Linear(self.projection, width))
            key = width if self.share in ("blocks", "all") else -1 - index
            if key not in made:
                bound = xavier_bound(sites.patch, self.projection or width)
                made[key] = Prompts(p, width, bound, self.dropout, rows=rows, projection=projection, fixed=self.fixed)
            found.append(made[key])
        return found

    def _prepend(self, trunk: nn.Module, sites: Sites, prompts: list[nn.Module]) -> Plan:
        """Blocks first..last get prompts of their own; those of `last` travel on through the blocks behind it."""
        first, last = (0, 0) if self.location == "prepend_pixel" else self.blocks(len(sites.blocks))
        read = reading(self.output, sites, self.length)
        kept = read is not None or not sites.reads_class_token  # whether what comes out of the last block is counted
        wraps: dict[str, Wrap] = {}
        for index, path in enumerate(sites.blocks[first:], first):
            block = trunk.get_submodule(path)
            layout = sites.layout(block)
            leaves = index == len(sites.blocks) - 1
            discards = index < last or (leaves and read is None)
            own = prompts[index - first] if index <= last else None
            if own is not None and discards and sites.open and layout is not None and self.form == "exact":
                wraps[f"{path}.{layout.attention}"] = partial(_as_keys, prompts=own, block=block, norm=layout.norm1)
                continue
            wraps.update(self._travelling(sites, block, path, layout))
            steps: list[Wrap] = []
            if own is not None:
                steps.append(partial(Insert, prompts=own, prefix=sites.prefix))
            if discards and (kept or not leaves):  # else nobody reads what is behind CLS
                steps.append(partial(Remove, length=self.length, prefix=sites.prefix))
            if steps:
                wraps[path] = partial(_in_turn, steps=steps)
        return Plan(adds={"prompts": nn.ModuleList(dict.fromkeys(prompts))}, wraps=wraps, pool=read)

    def _windows(self, trunk: nn.Module, sites: Sites) -> Plan:
        if self.location != "prepend" or self.output != "default" or self.depth not in ("deep", "shallow"):
            raise FitError(
                "in windows prompts are prepended, deep or shallow, and the head reads the backbone's default"
            )
        if self.init == "prototypes":
            raise FitError("a prototype is as wide as the final feature, and the stages have widths of their own")
        make = partial(self._prompts, sites=sites)
        exact = self.form == "exact"
        return windows.plan(trunk, sites, make, deep=self.depth == "deep", exact=exact, pooled=self.pooled)

    def _add(self, sites: Sites) -> Plan:
        first, last = self.blocks(len(sites.blocks))
        length = sites.tokens if self.location == "add" else 1
        prompts = self._prompts([sites.width] * (last - first + 1), sites, length)
        wraps = {
            path: partial(Add, prompts=own) for path, own in zip(sites.blocks[first : last + 1], prompts, strict=True)
        }
        return Plan(
            adds={"prompts": nn.ModuleList(dict.fromkeys(prompts))},
            wraps=dict(wraps),
            pool=reading(self.output, sites, 0),
        )

    def _frame(self, trunk: nn.Module, sites: Sites) -> Plan:
        if 2 * self.length >= sites.image.size:
            raise FitError(f"a frame of {self.length} pixels leaves nothing of an image of {sites.image.size}")
        grow = sites.kind == "maps"
        frame = partial(Frame, width=self.length, image=sites.image, grow=grow)
        return Plan(wraps={WHOLE: frame}, pool=reading(self.output, sites, 0))

    def _channels(self, trunk: nn.Module, sites: Sites) -> Plan:
        if sites.stem is None:
            raise FitError("its patches are not made by one convolution")
        bound = xavier_bound(sites.patch, sites.width)
        wrap = partial(ConcatChannel, channels=self.length, size=sites.image.size, bound=bound)
        return Plan(trains=(sites.stem,), wraps={sites.stem: wrap}, pool=reading(self.output, sites, 0))

    def _travelling(self, sites: Sites, block: nn.Module, path: str, layout: BlockLayout | None) -> dict[str, Wrap]:
        """What a block's attention needs where prompts run through it as tokens: to know that they have no place."""
        if sites.family is None or not sites.family.placed:
            return {}
        if sites.open and layout is not None:
            return {f"{path}.{layout.attention}": partial(Attend, floating=self.length)}
        raise FitError(
            f"{type(block).__name__} ties every token to a place in the image in a way that is not known here, "
            "so prompts cannot be told apart from patches"
        )


def _as_keys(attention: nn.Module, prompts: Callable[[int], Tensor], block: nn.Module, norm: str) -> nn.Module:
    # The norm is looked up now, when it hangs: another method may have put something in its place.
    return Attend(attention, extra=PromptKeys(prompts, getattr(block, norm)))


def _in_turn(block: nn.Module, steps: list[Wrap]) -> nn.Module:
    for step in steps:
        block = step(block)
    return block
