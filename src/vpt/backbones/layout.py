"""BackboneLayout: the named parts of a timm model that a method can replace.

A family is one table of `families.toml`. A model belongs to the first one that names its class or one it inherits from;
a block is known by its exact class. Nothing here imports a model.
"""

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter
from torch import nn

from vpt.core.text import comma_list
from vpt.data.preprocessing import Preprocessing
from vpt.errors import UnsupportedError


@dataclass(frozen=True)
class BlockLayout:
    """Parts of a pre-norm transformer block: x + scale1(attention(norm1(x))), then the MLP alike.

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
    """One family of models, as `families.toml` lists them.

    Attributes:
        name: Name of the family.
        model_classes: Names of the model classes.
        blocks: Paths of the blocks, first to last, with a star for any one name.
        block_layouts: Name of a block class -> its layout.
        kind: Input of a block: "tokens" (a sequence), "windows" (a grid cut into windows) or "maps" (feature maps).
        uses_positions: True if attention depends on the position of each token (rotary positions, relative bias), so
            that a token without a position cannot be inserted into the sequence.
        final_norms: Paths of the norms after the last block.
        stem: Path of the convolution that reads the image.
        downsamples: Paths of the layers between stages.
    """

    name: str
    model_classes: frozenset[str]
    blocks: str
    block_layouts: Mapping[str, BlockLayout] = field(default_factory=dict)
    kind: Literal["tokens", "windows", "maps"] = "tokens"
    uses_positions: bool = False
    final_norms: tuple[str, ...] = ("norm", "fc_norm")
    stem: str = "patch_embed.proj"
    downsamples: str | None = None


_TABLES = tomllib.loads(Path(__file__).with_name("families.toml").read_text(encoding="utf-8"))["families"]
FAMILIES: tuple[Family, ...] = TypeAdapter(tuple[Family, ...]).validate_python(_TABLES)


# Modules of timm are known by their classes: what a linear layer is for is told by the nearest of these around it.
_OWNERS = {
    "attention": re.compile("attn|attention|mhsa|litemla|^(xca|gpsa|shsa|shma|lambdalayer)$", re.IGNORECASE),
    "mlp": re.compile("(mlp|swiglu|ffn|feedforward)(?!.*head)", re.IGNORECASE),
}


def class_names(module: nn.Module) -> list[str]:
    """The names of a module's class and of all it inherits from, nearest first."""
    return [kind.__name__ for kind in type(module).__mro__]


@dataclass(frozen=True)
class BackboneLayout:
    """The parts of one model, as paths for `nn.Module.get_submodule`.

    Attributes:
        family: The family, or None where it is unknown.
        preprocessing: The preprocessing of the images.
        width: Channels d of a token and of the backbone's own pooled feature.
        blocks: Paths of the blocks, first to last; empty where the family is unknown.
        patch_size: Side of a patch in pixels.
        num_prefix_tokens: Number of tokens before the first patch: class token and registers.
        has_class_token: True if the first of these is a class token; registers alone are none.
        reads_class_token: True if the pooled feature is the class token alone.
        final_norms: Paths of the norms after the last block.
        stem: Path of the convolution that reads the image itself; None where there is none.
        downsamples: Paths of the layers between stages.
        num_tokens: Number of tokens that enter the first block, the prefix included; 0 where there are none.
        feature_width: Channels of the features that the head reads.
        supports_kv_prompts: True if attention can take prompts as keys and values only.
        cls_only: True if the last block can compute the class token alone. This and `supports_kv_prompts` stay False
            until a trial on the model's own input (`detect_layout`).
    """

    family: Family | None
    preprocessing: Preprocessing
    width: int
    blocks: tuple[str, ...] = ()
    patch_size: int = 0
    num_prefix_tokens: int = 0
    has_class_token: bool = False
    reads_class_token: bool = False
    final_norms: tuple[str, ...] = ()
    stem: str | None = None
    downsamples: tuple[str, ...] = ()
    num_tokens: int = 0
    feature_width: int = 0
    supports_kv_prompts: bool = False
    cls_only: bool = False

    @property
    def pooled_norm(self) -> str | None:
        """Path of the norm that timm applies after pooling instead of at the end of `forward_features`, or None."""
        return next((path for path in self.final_norms if path in ("fc_norm", "head.norm")), None)

    @property
    def kind(self) -> str:
        """Kind of a block's input: "tokens", "windows", "maps", or "unknown"."""
        return self.family.kind if self.family else "unknown"

    @property
    def has_token_blocks(self) -> bool:
        """True if the blocks are known, and tokens run through them."""
        return self.kind in ("tokens", "windows") and bool(self.blocks)

    def block_layout(self, block: nn.Module) -> BlockLayout | None:
        """Return the layout of a block.

        Args:
            block: The block.

        Returns:
            Its layout; None where only the concatenated form of prompts is safe.
        """
        # The exact class: a subclass may change the order of its parts.
        return self.family.block_layouts.get(type(block).__name__) if self.family else None

    def block_widths(self, trunk: nn.Module) -> list[int]:
        """Return the channels of a token of every block.

        Args:
            trunk: The trunk.

        Returns:
            The widths d, first block to last; in Swin each stage has its own.

        Raises:
            UnsupportedError: No tokens run through the blocks, or the blocks are not known.
        """
        if self.kind not in ("tokens", "windows"):
            raise UnsupportedError(describe_missing_tokens(trunk))
        if self.kind == "tokens":
            return [self.width] * len(self.blocks)
        return [int(getattr(trunk.get_submodule(path), "dim", self.width)) for path in self.blocks]

    def block_mlps(self, trunk: nn.Module) -> dict[str, int]:
        """Return every MLP: a module of that class whose linear layers lead back to the width they begin with.

        Args:
            trunk: The trunk.

        Returns:
            Path of an MLP -> its channels.

        Raises:
            UnsupportedError: There are none.
        """
        ends: dict[str, list[int]] = {}
        for path, kind, owner in self._linears(trunk):
            if kind == "mlp":
                layer: Any = trunk.get_submodule(path)
                ends.setdefault(owner, [layer.in_features, 0])[1] = layer.out_features
        found = {path: width for path, (width, last) in ends.items() if width == last}
        if not found:
            raise UnsupportedError(f"{type(trunk).__name__} has no MLP of linear layers")
        return found

    def block_linears(self, trunk: nn.Module, target: str) -> tuple[str, ...]:
        """Return linear layers, by the class of the module that they are in.

        Args:
            trunk: The trunk.
            target: "attention", "mlp", or "all": those of blocks where blocks are known, else every one.

        Returns:
            The paths of the layers.

        Raises:
            UnsupportedError: There are none.
        """
        linears = self._linears(trunk)
        found = tuple(path for path, kind, _ in linears if target in (kind, "all"))
        if not found:
            remedy = f" in {target}; targets=all takes the {len(linears)} that it has" if linears else ""
            raise UnsupportedError(f"{type(trunk).__name__} has no linear layers{remedy}")
        return found

    def _linears(self, trunk: nn.Module) -> list[tuple[str, str, str]]:
        """Return the path of every linear layer, "attention", "mlp" or "", and the path of that module around it."""
        modules, inside = dict(trunk.named_modules()), tuple(f"{block}." for block in self.blocks) or ("",)
        found = []
        for path in (path for path, module in modules.items() if isinstance(module, nn.Linear)):
            around = [path[: dot.start()] for dot in re.finditer(r"\.", path)][::-1]  # the nearest first
            owners = ((kind, owner) for owner in around if (kind := _kind_of(modules[owner])))
            if path.startswith(inside):
                found.append((path, *next(owners, ("", ""))))
        return found


def describe_missing_tokens(trunk: nn.Module) -> str:
    """Say why no tokens are known that prompts could join: no attention, or attention in blocks of another layout."""
    containers = (nn.Sequential, nn.ModuleList)

    def holds_attention(module: nn.Module) -> bool:
        inside = module.children()
        return any(_kind_of(x) == "attention" or (isinstance(x, containers) and holds_attention(x)) for x in inside)

    parts = [m for m in trunk.modules() if m is not trunk and not isinstance(m, containers)]
    blocks = dict.fromkeys(type(m).__name__ for m in parts if holds_attention(m))
    need, name = "prompts are tokens of transformer blocks", type(trunk).__name__
    if not blocks:
        return f"{need}, and {name} has no blocks with attention"
    return f"{need} of a known layout, and {name} has its attention in others: {comma_list([*blocks])}"


def _kind_of(module: nn.Module) -> str | None:
    name = type(module).__name__
    return next((kind for kind, pattern in _OWNERS.items() if pattern.search(name)), None)


def parameter_paths(trunk: nn.Module, select: Callable[[nn.Module, str], bool]) -> tuple[str, ...]:
    """Return the paths of single parameters.

    Args:
        trunk: The trunk.
        select: Function of a module and the name of one of its own parameters -> whether to return it.

    Returns:
        The paths, in the order of the modules.
    """
    return tuple(
        f"{path}.{name}".lstrip(".")
        for path, module in trunk.named_modules()
        for name, _ in module.named_parameters(recurse=False)
        if select(module, name)
    )


def is_norm(module: nn.Module) -> bool:
    """Return whether a module is one of torch's or timm's normalization layers."""
    kinds = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
    names = ("RmsNorm", "RMSNorm", "SimpleNorm")
    return isinstance(module, kinds) or any(name.startswith(names) for name in class_names(module))


def read_layout(model: nn.Module, preprocessing: Preprocessing) -> BackboneLayout:
    """Read the places of a timm model."""
    names = class_names(model)
    family = next((family for name in names for family in FAMILIES if name in family.model_classes), None)
    width = int(getattr(model, "num_features", 0))
    if family is None:
        return BackboneLayout(None, preprocessing, width, feature_width=width)
    if family.kind == "tokens":
        width = int(getattr(model, "embed_dim", width))
    patch_size = getattr(getattr(model, "patch_embed", None), "patch_size", 16)
    stem = _submodule_or_identity(model, family.stem)
    reads_image = isinstance(stem, nn.Conv2d) and stem.in_channels == preprocessing.channels  # a hybrid's reads maps
    norms = {path: list(_submodule_or_identity(model, path).parameters()) for path in family.final_norms}
    return BackboneLayout(
        family,
        preprocessing,
        width,
        _match_paths(model, family.blocks),
        feature_width=width,
        patch_size=int(patch_size[0] if isinstance(patch_size, tuple) else patch_size),
        num_prefix_tokens=int(getattr(model, "num_prefix_tokens", 1)) if family.kind == "tokens" else 0,
        has_class_token=family.kind == "tokens" and _has_class_token(model),
        reads_class_token=_reads_class_token(model),
        final_norms=tuple(path for path, weights in norms.items() if weights),
        stem=family.stem if reads_image else None,
        downsamples=_match_paths(model, family.downsamples) if family.downsamples else (),
    )


def _match_paths(model: nn.Module, pattern: str) -> tuple[str, ...]:
    wanted = re.compile(pattern.replace(".", r"\.").replace("*", r"\w+"))
    return tuple(path for path, _ in model.named_modules() if wanted.fullmatch(path))


def _submodule_or_identity(model: nn.Module, path: str) -> nn.Module:
    """The module there, or an empty one."""
    try:
        return model.get_submodule(path)
    except AttributeError:
        return nn.Identity()


def _has_class_token(model: nn.Module) -> bool:
    holders = (model, getattr(model, "embeds", None))  # NaFlexViT keeps it with its embeddings
    return any(getattr(holder, "cls_token", None) is not None for holder in holders)


def _reads_class_token(model: nn.Module) -> bool:
    cls_token, attn_pool = (getattr(model, name, None) for name in ("cls_token", "attn_pool"))
    return getattr(model, "global_pool", None) == "token" and cls_token is not None and attn_pool is None
