"""Visual prompt tuning: deep, shallow, and every variant of the paper's ablations (paper, sections 3 and 4.3)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

from torch import Tensor, nn

from vpt.attention.kv_attention import KVAttention
from vpt.backbones.layout import BackboneLayout, BlockLayout
from vpt.core.text import did_you_mean
from vpt.errors import SpecError, UnsupportedError
from vpt.heads.pooling import PoolName, make_pool
from vpt.methods import windows
from vpt.methods.base import NETWORK, Injection, Method, Wrapper
from vpt.methods.pixels import ConcatChannel, FramePrompt, PixelPatches
from vpt.methods.prompts import AddPrompts, InsertPrompts, PromptKeys, Prompts, RemovePrompts, xavier_range

_BLOCK_RANGE = re.compile(r"(\d+)-(\d+)")
_PIXEL_LOCATIONS = ("prepend_pixel", "concat_channel", "pad")


@dataclass(frozen=True)
class VPT(Method):
    """Learned tokens in the input of a frozen transformer.

    length: p, prompts per block. depth: "deep" gives every block its own prompts (equation 5); "shallow" gives the
    first block prompts that travel through all (equation 4); "3-6" gives blocks 3 to 6 their own, and those of
    block 6 travel on. dropout: on the prompts, in training.
    impl: "kv" computes deep prompts as keys and values only, at the cost of the frozen backbone; "concat"
    concatenates and discards, as written in the paper. Equal to rounding; blocks that "kv" does not know
    get "concat" in either case.
    location: "prepend" tokens; "add" one to every token, or "add_1" one vector to all of them; and in pixels, before
    the first block: "prepend_pixel" p patches, "concat_channel" p channels, "pad" a frame p pixels wide.
    output: what the head reads: the backbone's "default", "cls", or the mean or max of the image's tokens, of the
    prompts, or of both ("global_mean"). init: "random", or "prototypes": prompt i begins as the mean feature of
    class i. shared: prompts are the same for all "blocks", or one vector stands for all "prompts" of a block, or
    "all". projection: prompts are learned in this width and projected to d. frozen: prompts stay as drawn.
    pool_prompts: on Swin, the pooled feature also averages the prompts of the last block, as the paper's code does.
    """

    name: ClassVar[str] = "vpt"
    # The paper searches SGD from 0.05 to 50 per task; without a search AdamW is the safer start (LOG.md).
    optimizer: ClassVar[Literal["sgd", "adamw"]] = "adamw"
    learning_rate: ClassVar[float] = 0.02

    length: int = 10
    depth: str = "deep"
    dropout: float = 0.1
    impl: Literal["kv", "concat"] = "kv"
    location: Literal["prepend", "add", "add_1", "prepend_pixel", "concat_channel", "pad"] = "prepend"
    output: PoolName = "default"
    init: Literal["random", "prototypes"] = "random"
    shared: Literal["none", "blocks", "prompts", "all"] = "none"
    projection: int | None = None
    frozen: bool = False
    pool_prompts: bool = False

    def __post_init__(self) -> None:
        if self.length < 1:
            raise SpecError(f"length is {self.length}; a prompt needs at least one token (no prompts at all: `linear`)")
        if not 0 <= self.dropout < 1:
            raise SpecError(f"dropout is {self.dropout}; it must be at least 0 and below 1")
        bounds = _BLOCK_RANGE.fullmatch(self.depth)
        if self.depth not in ("deep", "shallow") and not (bounds and 1 <= int(bounds[1]) <= int(bounds[2])):
            raise SpecError(
                f'depth is {self.depth!r}; it must be deep, shallow, or a range of blocks such as "3-6"; '
                f"{did_you_mean(self.depth, ('deep', 'shallow'))}"
            )
        if self.projection is not None and self.projection < 1:
            raise SpecError(f"projection is {self.projection}; it must be at least 1")
        for invalid, reason in self._invalid_combinations():
            if invalid:
                raise SpecError(f"{self.spec()}: {reason}")

    def _invalid_combinations(self) -> list[tuple[bool, str]]:
        """What makes no sense together, and what to do instead."""
        default_prompts = (self.shared, self.projection, self.init) == ("none", None, "random") and not self.frozen
        return [
            (
                self.location in _PIXEL_LOCATIONS and self.depth != "shallow",
                f"{self.location} changes the image, which only the first block reads; write depth=shallow",
            ),
            (
                self.location in ("add", "add_1") and self.length != 10,
                "add has a prompt for every token, and add_1 one for all; leave length out",
            ),
            (
                self.location in _PIXEL_LOCATIONS and not default_prompts,
                f"shared, projection, init and frozen are for prompts that are tokens, not for {self.location}",
            ),
            (
                self.location in ("add", "add_1", "concat_channel", "pad") and self.output.startswith("prompt"),
                f"with {self.location} no prompt comes out of the last block; read cls, image_mean or image_max",
            ),
            (
                self.init == "prototypes" and (self.projection is not None or self.shared in ("prompts", "all")),
                "prototypes are whole tokens, one per class; they go with neither projection nor shared vectors",
            ),
            (
                self.init == "prototypes" and self.location != "prepend",
                "prototypes are tokens, and go with location=prepend",
            ),
            (self.frozen and self.projection is not None, "a projection trains, so the prompts would not stay frozen"),
        ]

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        if self.location == "pad":
            return self._plan_frame(trunk, layout)
        if layout.kind not in ("tokens", "windows") or not layout.blocks:
            raise UnsupportedError(
                f"prompts need transformer blocks, and none are known in {type(trunk).__name__}; around the image they "
                'fit any backbone: "vpt(location=pad, depth=shallow)"'
            )
        if self.location == "concat_channel":
            return self._plan_channels(trunk, layout)
        if layout.kind == "windows":
            return self._plan_windows(trunk, layout)
        if self.location == "add" or self.location == "add_1":
            return self._plan_add(layout)
        if self.location == "prepend_pixel":
            projection = trunk.get_submodule(str(layout.stem))
            patches = PixelPatches(self.length, layout.patch_size, layout.preprocessing, projection)
            return self._plan_prepend(trunk, layout, [patches])
        first, last = self.block_range(len(layout.blocks))
        return self._plan_prepend(trunk, layout, self._make_prompts([layout.width] * (last - first + 1), layout))

    @property
    def needs_prototypes(self) -> bool:
        return self.init == "prototypes"

    def init_from_prototypes(self, prototypes: Tensor, added_modules: nn.ModuleDict) -> None:
        if len(prototypes) != self.length:
            raise SpecError(
                f"{self} begins at class prototypes, one prompt each; with {len(prototypes)} classes, write "
                f"length={len(prototypes)}"
            )
        for prompts in added_modules["prompts"].children():
            assert isinstance(prompts, Prompts)
            prompts.tokens.copy_(prototypes)

    def block_range(self, num_blocks: int) -> tuple[int, int]:
        """First and last of the blocks that have prompts of their own, from 0."""
        if self.depth in ("deep", "shallow"):
            return 0, num_blocks - 1 if self.depth == "deep" else 0
        first, last = (int(bound) for bound in self.depth.split("-"))
        if last > num_blocks:
            raise UnsupportedError(f"depth is {self.depth}, but there are {num_blocks} blocks")
        return first - 1, last - 1

    def _make_prompts(self, widths: list[int], layout: BackboneLayout, length: int | None = None) -> list[nn.Module]:
        """Prompts for blocks of these widths; blocks that share theirs get the same module."""
        p = length or self.length
        num_vectors = 1 if self.shared in ("prompts", "all") else None
        projections: dict[int, nn.Linear] = {}
        modules: dict[int, nn.Module] = {}
        block_prompts = []
        for index, width in enumerate(widths):
            projection = None
            if self.projection is not None:
                projection = projections.setdefault(width, nn.Linear(self.projection, width))
            key = width if self.shared in ("blocks", "all") else -1 - index
            if key not in modules:
                init_range = xavier_range(layout.patch_size, self.projection or width)
                modules[key] = Prompts(
                    p,
                    width,
                    init_range,
                    self.dropout,
                    num_vectors=num_vectors,
                    projection=projection,
                    frozen=self.frozen,
                )
            block_prompts.append(modules[key])
        return block_prompts

    def _plan_prepend(self, trunk: nn.Module, layout: BackboneLayout, prompts: list[nn.Module]) -> Injection:
        """Blocks first..last get prompts of their own; those of `last` travel on through the blocks behind it."""
        first, last = (0, 0) if self.location == "prepend_pixel" else self.block_range(len(layout.blocks))
        pool = make_pool(self.output, layout, self.length)
        outputs_are_read = (
            pool is not None or not layout.reads_class_token
        )  # whether what comes out of the last block is counted
        wrappers: dict[str, Wrapper] = {}
        for index, path in enumerate(layout.blocks[first:], first):
            block = trunk.get_submodule(path)
            block_layout = layout.block_layout(block)
            is_last = index == len(layout.blocks) - 1
            discard_outputs = index < last or (is_last and pool is None)
            block_prompts = prompts[index - first] if index <= last else None
            if (
                block_prompts is not None
                and discard_outputs
                and layout.supports_kv_prompts
                and block_layout is not None
                and self.impl == "kv"
            ):
                wrappers[f"{path}.{block_layout.attention}"] = partial(
                    _as_kv_prompts, prompts=block_prompts, block=block, norm=block_layout.norm1
                )
                continue
            wrappers.update(self._positionless_attention(layout, block, path, block_layout))
            steps: list[Wrapper] = []
            if block_prompts is not None:
                steps.append(partial(InsertPrompts, prompts=block_prompts, num_prefix_tokens=layout.num_prefix_tokens))
            if discard_outputs and (outputs_are_read or not is_last):  # else nobody reads what is behind CLS
                steps.append(partial(RemovePrompts, length=self.length, num_prefix_tokens=layout.num_prefix_tokens))
            if steps:
                wrappers[path] = partial(_apply_wrappers, steps=steps)
        return Injection(modules={"prompts": nn.ModuleList(dict.fromkeys(prompts))}, wrappers=wrappers, pool=pool)

    def _plan_windows(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        if self.location != "prepend" or self.output != "default" or self.depth not in ("deep", "shallow"):
            raise UnsupportedError(
                "in windows prompts are prepended, deep or shallow, and the head reads the backbone's default"
            )
        if self.init == "prototypes":
            raise UnsupportedError(
                "a prototype is as wide as the final feature, and the stages have widths of their own"
            )
        make_prompts = partial(self._make_prompts, layout=layout)
        kv = self.impl == "kv"
        return windows.plan_windows(
            trunk, layout, make_prompts, deep=self.depth == "deep", kv=kv, pool_prompts=self.pool_prompts
        )

    def _plan_add(self, layout: BackboneLayout) -> Injection:
        first, last = self.block_range(len(layout.blocks))
        length = layout.num_tokens if self.location == "add" else 1
        prompts = self._make_prompts([layout.width] * (last - first + 1), layout, length)
        wrappers = {
            path: partial(AddPrompts, prompts=block_prompts)
            for path, block_prompts in zip(layout.blocks[first : last + 1], prompts, strict=True)
        }
        return Injection(
            modules={"prompts": nn.ModuleList(dict.fromkeys(prompts))},
            wrappers=dict(wrappers),
            pool=make_pool(self.output, layout, 0),
        )

    def _plan_frame(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        if 2 * self.length >= layout.preprocessing.size:
            raise UnsupportedError(
                f"a frame of {self.length} pixels leaves nothing of an image of {layout.preprocessing.size}"
            )
        grow_input = layout.kind == "maps"
        frame = partial(FramePrompt, width=self.length, preprocessing=layout.preprocessing, grow_input=grow_input)
        return Injection(wrappers={NETWORK: frame}, pool=make_pool(self.output, layout, 0))

    def _plan_channels(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        if layout.stem is None:
            raise UnsupportedError("its patches are not made by one convolution")
        init_range = xavier_range(layout.patch_size, layout.width)
        wrapper = partial(
            ConcatChannel, channels=self.length, image_size=layout.preprocessing.size, init_range=init_range
        )
        return Injection(
            trainable=(layout.stem,), wrappers={layout.stem: wrapper}, pool=make_pool(self.output, layout, 0)
        )

    def _positionless_attention(
        self, layout: BackboneLayout, block: nn.Module, path: str, block_layout: BlockLayout | None
    ) -> dict[str, Wrapper]:
        """What a block's attention needs where prompts run through it as tokens: to know that they have no place."""
        if layout.family is None or not layout.family.uses_positions:
            return {}
        if layout.supports_kv_prompts and block_layout is not None:
            return {f"{path}.{block_layout.attention}": partial(KVAttention, num_positionless=self.length)}
        raise UnsupportedError(
            f"{type(block).__name__} ties every token to a place in the image in a way that is not known here, "
            "so prompts cannot be told apart from patches"
        )


def _as_kv_prompts(attention: nn.Module, prompts: Callable[[int], Tensor], block: nn.Module, norm: str) -> nn.Module:
    # The norm is looked up now, when it hangs: another method may have put something in its place.
    return KVAttention(attention, kv_prompts=PromptKeys(prompts, getattr(block, norm)))


def _apply_wrappers(block: nn.Module, steps: list[Wrapper]) -> nn.Module:
    for step in steps:
        block = step(block)
    return block
