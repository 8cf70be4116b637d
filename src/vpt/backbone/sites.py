"""Sites: the named places of a timm model where a method can hang something.

A family is one row of data. A model belongs to the first row that names its class or one it inherits from;
a block is known by its class in the same way. Nothing here imports a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn


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

    models: class names. blocks: attribute of the list of blocks. layouts: block class name -> layout.
    placed: attention knows the place of each token (rotary positions, relative bias), so that a token without a
    place cannot simply be put into the sequence.
    """

    name: str
    models: frozenset[str]
    blocks: str
    layouts: Mapping[str, BlockLayout]
    placed: bool = False


_GAMMA = BlockLayout(scale1="gamma_1", scale2="gamma_2")

FAMILIES: tuple[Family, ...] = (
    Family("ViT", frozenset({"VisionTransformer"}), "blocks", {"Block": BlockLayout()}),
    Family("EVA", frozenset({"Eva"}), "blocks", {"EvaBlock": _GAMMA}, placed=True),
    Family("BEiT", frozenset({"Beit"}), "blocks", {"Block": _GAMMA}, placed=True),
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

    blocks: transformer blocks, first to last; empty where the family is unknown.
    width: d, the width of a token. patch: side of a patch in pixels. prefix: tokens before the first patch
    (CLS and registers). reads_class_token: the pooled feature is the CLS token alone.
    open: attention can take prompts as keys and values only. narrow: the last block can compute CLS alone.
    Both stay False until a trial on the model's own input has shown them (`survey`).
    """

    family: Family | None
    blocks: tuple[str, ...]
    width: int
    patch: int
    prefix: int
    reads_class_token: bool
    open: bool = False
    narrow: bool = False

    def layout(self, block: nn.Module) -> BlockLayout | None:
        """How a block is put together, or None where only the textbook form is safe."""
        if self.family is None:
            return None
        # The exact class: a subclass may change the order of its parts.
        return self.family.layouts.get(type(block).__name__)


def sites_of(model: nn.Module) -> Sites:
    """Read the places of a timm model."""
    family = family_of(model)
    width = int(getattr(model, "num_features", 0))
    if family is None:
        return Sites(None, (), width, patch=0, prefix=0, reads_class_token=False)
    blocks = model.get_submodule(family.blocks)
    paths = tuple(f"{family.blocks}.{index}" for index, _ in enumerate(blocks.children()))
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", 16)
    return Sites(
        family,
        paths,
        width=int(getattr(model, "embed_dim", width)),
        patch=int(patch[0] if isinstance(patch, tuple) else patch),
        prefix=int(getattr(model, "num_prefix_tokens", 1)),
        reads_class_token=_reads_class_token(model),
    )


def _reads_class_token(model: nn.Module) -> bool:
    return (
        getattr(model, "global_pool", None) == "token"
        and getattr(model, "cls_token", None) is not None
        and getattr(model, "attn_pool", None) is None
    )
