"""Visual prompt tuning: deep, shallow, and every variant of the paper's ablations (paper, sections 3 and 4.3)."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import nn

from vpt.backbones.layout import BackboneLayout, describe_missing_tokens
from vpt.core.spec import later_field
from vpt.errors import SpecError, UnsupportedError
from vpt.heads.pooling import PoolName
from vpt.methods.base import InitInput, InitInputs, Injection, Method
from vpt.methods.depth import block_range, check_depth
from vpt.methods.pixels import PixelPatches
from vpt.methods.prompt_locations import add_to_tokens, concat_channels, frame_image, prepend_tokens
from vpt.methods.prompts import Prompts, SharedPrompts, make_prompts, xavier_range
from vpt.methods.windows import plan_windows


# The paper searches SGD from 0.05 to 50 per task; without a search AdamW is the safer start (LOG.md).
@dataclass(frozen=True)
class VPT(Method, name="vpt", optimizer="adamw", learning_rate=0.02):
    """Learned tokens in the input of a frozen transformer.

    Args:
        length: Number of prompts p of a block. Default: 10.
        depth: "deep" gives every block its own prompts (equation 5); "shallow" gives the first block prompts that
            propagate through all (equation 4); "3-6" gives blocks 3 to 6 their own, and those of block 6 propagate.
            Default: "deep".
        dropout: Dropout of the prompts in training. Default: 0.1.
        impl: "kv" computes deep prompts as keys and values only, at the cost of the frozen backbone; "concat"
            concatenates and discards, as written in the paper. Equal to rounding; unknown blocks use "concat" in
            either case. Default: "kv".
        location: "prepend" tokens; "add" one to every token, or "add_1" one vector to all of them; and in pixels,
            before the first block: "prepend_pixel" p patches, "concat_channel" p channels, "pad" a frame p pixels
            wide. Default: "prepend".
        output: Tokens that the head reads: the backbone's "default", "cls", or the mean or maximum of the image's
            tokens, of the prompts, or of both ("global_mean"). Default: "default".
        init: "random", or "prototypes": prompt i begins as the mean feature of class i. Default: "random".
        shared: All "blocks" share their prompts, or the "prompts" of a block are one vector, or "all". Default:
            "none".
        projection: Width in which the prompts are learned, before a linear layer to d. Default: none.
        frozen: Keep the random prompts. Default: False.
        pool_prompts: On Swin, include the prompts of the last block in the pooled feature, as the paper's code does.
            Default: False.
        drop_after: Drop the prompts behind the last block that has its own, instead of letting them propagate.
            Default: False.
    """

    length: int = 10
    depth: str = "deep"
    dropout: float = 0.1
    impl: Literal["kv", "concat"] = "kv"
    location: Literal["prepend", "add", "add_1", "prepend_pixel", "concat_channel", "pad"] = "prepend"
    output: PoolName = "default"
    init: Literal["random", "prototypes"] = "random"
    shared: SharedPrompts = "none"
    projection: int | None = None
    frozen: bool = False
    pool_prompts: bool = False
    drop_after: bool = later_field(False)

    def __post_init__(self) -> None:
        if self.length < 1:
            raise SpecError(f"length is {self.length}; a prompt needs at least one token (no prompts at all: `linear`)")
        if not 0 <= self.dropout < 1:
            raise SpecError(f"dropout is {self.dropout}; it must be at least 0 and below 1")
        check_depth(self.depth)
        if self.projection is not None and self.projection < 1:
            raise SpecError(f"projection is {self.projection}; it must be at least 1")
        for contradiction, found in self._contradictions().items():
            if found:
                raise SpecError(f"{self}: {contradiction}")

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        """Plan prompts at `location`; raise UnsupportedError if the backbone has no blocks that take them."""
        if self.location == "pad":
            return frame_image(layout, self.length, self.output)
        if layout.kind not in ("tokens", "windows") or not layout.blocks:
            raise UnsupportedError(
                f'{describe_missing_tokens(trunk)}; around the image they fit any backbone: "vpt(location=pad, '
                'depth=shallow)"'
            )
        if self.location == "concat_channel":
            return concat_channels(layout, self.length, self.output)
        new_prompts = partial(
            make_prompts,
            layout=layout,
            dropout=self.dropout,
            shared=self.shared,
            projection=self.projection,
            frozen=self.frozen,
        )
        if layout.kind == "windows":
            self._check_windows()
            prompts = partial(new_prompts, length=self.length)
            kinds = {"deep": self.depth == "deep", "kv": self.impl == "kv", "pool_prompts": self.pool_prompts}
            return plan_windows(trunk, layout, prompts, **kinds)
        first, last = block_range(self.depth, len(layout.blocks))
        widths = layout.block_widths(trunk)[first : last + 1]
        if self.location in ("add", "add_1"):
            length = layout.num_tokens if self.location == "add" else 1
            return add_to_tokens(layout, new_prompts(widths, length=length), first=first, output=self.output)
        prepend = partial(
            prepend_tokens,
            trunk,
            layout,
            first=first,
            length=self.length,
            output=self.output,
            kv=self.impl == "kv",
            drop_after=self.drop_after,
        )
        if self.location == "prepend_pixel":
            if layout.stem is None:
                raise UnsupportedError("its patches are not made by one convolution")
            init_range = xavier_range(layout.patch_size, layout.width)
            return prepend([PixelPatches(self.length, init_range, trunk.get_submodule(str(layout.stem)))])
        return prepend(new_prompts(widths, length=self.length))

    @property
    def init_inputs(self) -> frozenset[InitInput]:
        """The mean feature of each class if `init` is prototypes, else nothing."""
        return frozenset({"prototypes"}) if self.init == "prototypes" else frozenset()

    def initialize(self, inputs: InitInputs, modules: nn.ModuleDict) -> None:
        """Set prompt i to the prototype of class i; raise SpecError unless there is one prompt per class."""
        prototypes = inputs.prototypes
        assert prototypes is not None
        if len(prototypes) != self.length:
            raise SpecError(
                f"{self} begins at class prototypes, one prompt each; with {len(prototypes)} classes, write "
                f"length={len(prototypes)}"
            )
        for prompts in modules["prompts"].children():
            assert isinstance(prompts, Prompts)
            prompts.tokens.copy_(prototypes)

    def _contradictions(self) -> dict[str, bool]:
        """Return a description of each pair of fields that contradict each other -> True if they do."""
        location, projects, prototypes = self.location, self.projection is not None, self.init == "prototypes"
        adds, in_pixels = location in ("add", "add_1"), location in ("prepend_pixel", "concat_channel", "pad")
        token_options = self.frozen or projects or prototypes or self.shared != "none"
        no_prompts_out = adds or location in ("concat_channel", "pad")
        return {
            f"{location} changes the image, which only the first block reads; write depth=shallow": (
                in_pixels and self.depth != "shallow"
            ),
            "add has a prompt for every token, and add_1 one for all; leave length out": adds and self.length != 10,
            f"shared, projection, init and frozen are for prompts that are tokens, not for {location}": (
                in_pixels and token_options
            ),
            f"with {location} no prompt comes out of the last block; read cls, image_mean or image_max": (
                no_prompts_out and self.output.startswith("prompt")
            ),
            f"drop_after drops tokens; {location} adds none, or output={self.output} reads them": (
                self.drop_after and (no_prompts_out or self.output.startswith(("prompt", "global")))
            ),
            "prototypes are whole tokens, one per class; they go with neither projection nor shared vectors": (
                prototypes and (projects or self.shared in ("prompts", "all"))
            ),
            "prototypes are tokens, and go with location=prepend": prototypes and location != "prepend",
            "a projection trains, so the prompts would not stay frozen": self.frozen and projects,
        }

    def _check_windows(self) -> None:
        depths = ("deep", "shallow")
        if self.location != "prepend" or self.output != "default" or self.depth not in depths or self.drop_after:
            raise UnsupportedError(
                "in windows prompts are prepended, deep or shallow, and the head reads the backbone's default"
            )
        if self.init == "prototypes":
            raise UnsupportedError(
                "a prototype is as wide as the final feature, and the stages have widths of their own"
            )
