"""Visual prompt tuning: deep, shallow, and every variant of the paper's ablations (paper, sections 3 and 4.3)."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import nn

from vpt.backbones.layout import BackboneLayout, describe_missing_tokens
from vpt.core.spec import later_field
from vpt.errors import UnsupportedError
from vpt.heads.pooling import PoolName
from vpt.methods.base import Injection, Method
from vpt.methods.depth import block_range, first_block
from vpt.methods.init_inputs import InitInput, InitInputs
from vpt.methods.kv_prompts import require_kv_prompts
from vpt.methods.pixels import PixelPatches
from vpt.methods.prompt_initialization import copy_prototypes, copy_tokens, match_attention
from vpt.methods.prompt_locations import add_to_tokens, concat_channels, frame_image, gate_prompts, prepend_tokens
from vpt.methods.prompts import SharedPrompts, make_prompts, xavier_range
from vpt.methods.vpt_checks import check_options, check_windows
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
        init: "random"; "prototypes": prompt i begins as the mean feature of class i; "tokens": the prompts of a block
            begin as image tokens of training images that enter it (SPT, Wang et al., ICML 2024); "vipamin": as means
            of tokens that are matched to them, and a part that attention does not reach (VIPAMIN, NeurIPS 2025).
            Default: "random".
        shared: All "blocks" share their prompts, or the "prompts" of a block are one vector, or "all". Default:
            "none".
        projection: Width in which the prompts are learned, before a linear layer to d. Default: none.
        frozen: Keep the random prompts. Default: False.
        pool_prompts: On Swin, include the prompts of the last block in the pooled feature, as the paper's code does.
            Default: False.
        drop_after: Drop the prompts behind the last block that has its own, instead of letting them propagate.
            Default: False.
        rank: The prompts of a block are a product A B, A (p, rank) and B (rank, d) (BPT, Wang et al., ICCV 2025).
            Default: none.
        fourier: Share of the prompts, the first, that are replaced by the real part of their discrete Fourier transform
            over both dimensions (VFPT, Zeng et al., NeurIPS 2024). A share other than 0 has to be a prompt at least.
            Default: 0.
        attention: "joint" has one softmax over tokens and prompts; "zero_init" gives the prompts a softmax of their own
            and a gate per head that begins at 0, so that training begins at the frozen backbone (LLaMA-Adapter, Zhang
            et al., 2023; their code passes the gate through tanh, and its prompts not through the block's norm).
            Default: "joint".
        neighbors: With init=vipamin, the number of image tokens that a prompt is the mean of. Default: 8.
        expansion: With init=vipamin, the weight of the part outside of what attention puts out, from 0 to 1.
            Default: 0.1.
    """

    length: int = 10
    depth: str = "deep"
    dropout: float = 0.1
    impl: Literal["kv", "concat"] = "kv"
    location: Literal["prepend", "add", "add_1", "prepend_pixel", "concat_channel", "pad"] = "prepend"
    output: PoolName = "default"
    init: Literal["random", "prototypes", "tokens", "vipamin"] = "random"
    shared: SharedPrompts = "none"
    projection: int | None = None
    frozen: bool = False
    pool_prompts: bool = False
    drop_after: bool = later_field(False)
    rank: int | None = later_field(None)
    fourier: float = later_field(0.0)
    attention: Literal["joint", "zero_init"] = later_field("joint")
    neighbors: int = later_field(8)
    expansion: float = later_field(0.1)

    def __post_init__(self) -> None:
        check_options(self)

    def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
        """Plan prompts at `location`; raise UnsupportedError if the backbone has no blocks that take them."""
        if self.pool_prompts and (layout.kind != "windows" or self.location != "prepend"):
            raise UnsupportedError(
                "pool_prompts=true is for prompts that are prepended in the windows of Swin; leave it out"
            )
        if self.location == "pad":
            return frame_image(layout, self.length, self.output)
        if not layout.has_token_blocks:
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
            rank=self.rank,
            fourier=self.fourier,
        )
        if layout.kind == "windows":
            check_windows(self)
        if layout.kind == "windows" and self.attention == "joint":
            prompts = partial(new_prompts, length=self.length)
            kinds = {"deep": self.depth == "deep", "kv": self.impl == "kv", "pool_prompts": self.pool_prompts}
            return plan_windows(trunk, layout, prompts, **kinds)
        if self.init == "vipamin":
            require_kv_prompts(trunk, layout)  # the keys of the tokens are read
        first, last = block_range(self.depth, len(layout.blocks))
        widths = layout.block_widths(trunk)[first : last + 1]
        if self.attention == "zero_init":
            return gate_prompts(trunk, layout, new_prompts(widths, length=self.length), first=first, output=self.output)
        if self.location in ("add", "add_1"):
            length = layout.num_tokens if self.location == "add" else 1
            added = new_prompts(widths, length=length)
            return add_to_tokens(layout, added, first=first, length=length, output=self.output)
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
        """The properties of the training images that `init` names."""
        if self.init == "random":
            return frozenset()
        return frozenset({"attention" if self.init == "vipamin" else self.init})

    def initialize(self, inputs: InitInputs, modules: nn.ModuleDict) -> None:
        """Set the prompts to the prototypes, or to tokens; raise SpecError where there are too few."""
        prompts, first, text = modules["prompts"].children(), first_block(self.depth), str(self)
        if self.init == "tokens":
            copy_tokens(prompts, inputs.tokens, first, text)
        elif self.init == "vipamin":
            match_attention(prompts, inputs.attention, first, self.neighbors, self.expansion, text)
        elif inputs.prototypes is not None:
            copy_prototypes(prompts, inputs.prototypes, text)
