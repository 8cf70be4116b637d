"""Sites: the named places of a timm model where a method can hang something.

A family is one row of data. A model belongs to the first row that names its class or one it inherits from;
a block is known by its class in the same way. Nothing here imports a model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from vpt.data.preprocessing import Preprocessing
from vpt.errors import FitError


@dataclass(frozen=True)
class BlockLayout:
    """How one pre-norm transformer block is put together: x + scale1(attention(norm1(x))), then the MLP alike.

    scale1, scale2: attribute of the branch's scale: a module, a weight, or absent (None).
    """

    norm1: str = "norm1"
    attention: str = "attn"
    scale1: str = "ls1"
    drop1: str = "drop_path1"
    norm2: str = "norm2"
    mlp: str = "mlp"
    scale2: str = "ls2"
    drop2: str = "drop_path2"


@dataclass(frozen=True)
class Family:
    """One row of the table of families.

    models: class names. blocks: paths of the blocks, first to last, a star for any one part. layouts: block class
    name -> layout. kind: what runs through a block: "tokens" (a sequence), "windows" (a grid cut into windows) or
    "maps" (a convolution's feature maps). merges: paths of what lies between stages.
    placed: attention knows the place of each token (rotary positions, relative bias), so that a token without a
    place cannot simply be put into the sequence.
    """

    name: str
    models: frozenset[str]
    blocks: str
    layouts: Mapping[str, BlockLayout] = field(default_factory=dict)
    kind: Literal["tokens", "windows", "maps"] = "tokens"
    placed: bool = False
    norms: tuple[str, ...] = ("norm", "fc_norm")
    stem: str = "patch_embed.proj"
    merges: str | None = None


_GAMMA = BlockLayout(scale1="gamma_1", scale2="gamma_2")

FAMILIES: tuple[Family, ...] = (
    Family("ViT", frozenset({"VisionTransformer"}), "blocks.*", {"Block": BlockLayout()}),
    Family("EVA", frozenset({"Eva"}), "blocks.*", {"EvaBlock": _GAMMA}, placed=True),
    Family("BEiT", frozenset({"Beit"}), "blocks.*", {"Block": _GAMMA}, placed=True),
    Family(
        "Swin",
        frozenset({"SwinTransformer"}),
        "layers.*.blocks.*",
        {"SwinTransformerBlock": BlockLayout()},
        kind="windows",
        merges="layers.*.downsample",
    ),
    Family("Swin V2", frozenset({"SwinTransformerV2"}), "layers.*.blocks.*", kind="windows"),
    Family(
        "ConvNeXt",
        frozenset({"ConvNeXt"}),
        "stages.*.blocks.*",
        kind="maps",
        norms=("norm_pre", "head.norm"),
        stem="stem.0",
    ),
    Family("ResNet", frozenset({"ResNet"}), "layer[1-4].*", kind="maps", norms=(), stem="conv1"),
)


def class_names(module: nn.Module) -> list[str]:
    """The names of a module's class and of all it inherits from, nearest first."""
    return [kind.__name__ for kind in type(module).__mro__]


def family_of(model: nn.Module) -> Family | None:
    """The family a model belongs to, or None: such a model can only be trained in full or by its head."""
    names = class_names(model)
    return next((family for name in names for family in FAMILIES if name in family.models), None)


@dataclass(frozen=True)
class Sites:
    """The places of one model, as paths that `nn.Module.get_submodule` understands.

    blocks: first to last; empty where the family is unknown. norms: what normalises the last block's output.
    stem: the convolution that reads the image. merges: what lies between stages.
    width: d, the width of the pooled feature, and of a token. patch: side of a patch in pixels. prefix: tokens before
    the first patch (CLS and registers). tokens: how many enter the first block, the prefix included; 0 where there
    are none. image: how the input is prepared. reads_class_token: the pooled feature is the CLS token alone.
    open: attention can take prompts as keys and values only. narrow: the last block can compute CLS alone.
    Both stay False until a trial on the model's own input has shown them (`survey`).
    """

    family: Family | None
    blocks: tuple[str, ...]
    width: int
    patch: int
    prefix: int
    reads_class_token: bool
    image: Preprocessing
    norms: tuple[str, ...] = ()
    stem: str | None = None
    merges: tuple[str, ...] = ()
    tokens: int = 0
    open: bool = False
    narrow: bool = False

    @property
    def kind(self) -> str:
        """What runs through a block: "tokens", "windows", "maps", or "unknown"."""
        return self.family.kind if self.family else "unknown"

    def layout(self, block: nn.Module) -> BlockLayout | None:
        """How a block is put together, or None where only the textbook form is safe."""
        if self.family is None:
            return None
        # The exact class: a subclass may change the order of its parts.
        return self.family.layouts.get(type(block).__name__)

    def mlps(self, trunk: nn.Module) -> dict[str, int]:
        """The MLP of every block: path -> channels in and out. Raises FitError where a block has none."""
        found = {}
        for path in self.blocks:
            mlp = _module(trunk.get_submodule(path), "mlp")
            first = next((part for part in mlp.modules() if isinstance(part, nn.Linear)), None)
            if first is None:
                raise FitError(f"{path} has no MLP of linear layers")
            found[f"{path}.mlp"] = first.in_features
        if not found:
            raise FitError(f"the blocks of {type(trunk).__name__} are not known")
        return found

    def linears(self, trunk: nn.Module, part: str) -> tuple[str, ...]:
        """The linear layers of every block's "attention", "mlp", or "all" of it. Raises FitError where none are."""
        inside = {"attention": ".attn.", "mlp": ".mlp.", "all": "."}[part]
        found = tuple(
            path
            for path, module in trunk.named_modules()
            if isinstance(module, nn.Linear) and any(path.startswith(block + inside) for block in self.blocks)
        )
        if not found:
            raise FitError(
                f"the blocks of {type(trunk).__name__} have no linear layers" + f" in {part}" * (part != "all")
            )
        return found


def is_norm(module: nn.Module) -> bool:
    """Whether this is one of torch's or timm's normalisation layers."""
    kinds = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
    return isinstance(module, kinds) or any(name.startswith("RmsNorm") for name in class_names(module))


def sites_of(model: nn.Module, image: Preprocessing) -> Sites:
    """Read the places of a timm model."""
    family = family_of(model)
    width = int(getattr(model, "num_features", 0))
    if family is None:
        return Sites(None, (), width, patch=0, prefix=0, reads_class_token=False, image=image)
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", 16)
    return Sites(
        family,
        _matching(model, family.blocks),
        width=width if family.kind != "tokens" else int(getattr(model, "embed_dim", width)),
        patch=int(patch[0] if isinstance(patch, tuple) else patch),
        prefix=int(getattr(model, "num_prefix_tokens", 1)) if family.kind == "tokens" else 0,
        reads_class_token=_reads_class_token(model),
        image=image,
        norms=tuple(path for path in family.norms if any(True for _ in _module(model, path).parameters())),
        stem=family.stem if isinstance(_module(model, family.stem), nn.Conv2d) else None,
        merges=_matching(model, family.merges) if family.merges else (),
    )


def _matching(model: nn.Module, pattern: str) -> tuple[str, ...]:
    wanted = re.compile(pattern.replace(".", r"\.").replace("*", r"\w+"))
    return tuple(path for path, _ in model.named_modules() if wanted.fullmatch(path))


def _module(model: nn.Module, path: str) -> nn.Module:
    """The module there, or an empty one."""
    try:
        return model.get_submodule(path)
    except AttributeError:
        return nn.Identity()


def _reads_class_token(model: nn.Module) -> bool:
    return (
        getattr(model, "global_pool", None) == "token"
        and getattr(model, "cls_token", None) is not None
        and getattr(model, "attn_pool", None) is None
    )
