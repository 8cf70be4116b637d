"""A trunk: a backbone's structure of its own, over the very same weights.

Whatever hangs on a trunk, the backbone it was taken from is not touched: not its modules, not their mode, not the
flags of its weights. Hence any number of methods hang on one backbone at once, and giving it back is no work.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from vpt.attention.class_token_block import ClassTokenBlock
from vpt.attention.kv_attention import explains
from vpt.attention.windows import explains_windows
from vpt.backbones.layout import BlockLayout, Sites, sites_of
from vpt.data.preprocessing import Preprocessing


def trunk_of(model: nn.Module) -> nn.Module:
    """A frozen copy of the module tree in eval mode, without its classifier, that shares every weight's storage."""
    shared: dict[int, Any] = {}
    for weight in model.parameters():
        shared[id(weight)] = nn.Parameter(weight.detach(), requires_grad=False)
    for buffer in model.buffers():
        shared[id(buffer)] = buffer
    trunk: Any = copy.deepcopy(model, shared)
    if hasattr(trunk, "reset_classifier"):
        trunk.reset_classifier(0)
    return trunk.eval()  # type: ignore[no-any-return]


def dtype_of(trunk: nn.Module) -> torch.dtype:
    """What a trunk computes in: the dtype of what is frozen, for what hangs on it may be finer and come first."""
    frozen = (weight for weight in trunk.parameters() if not weight.requires_grad)
    return next(frozen, next(trunk.parameters())).dtype


Pool = Callable[[Tensor], Tensor]


class Features(nn.Module):
    """Normalised images (batch, 3, height, width) -> pooled features (batch, d), by timm's own two steps.

    pool: instead of the backbone's own: the final, normalised tokens (batch, tokens, d) -> (batch, d), or
    (batch, n, d), which become (batch, n * d).
    """

    def __init__(self, trunk: nn.Module, pool: Pool | None = None) -> None:
        super().__init__()
        self.trunk = trunk
        self.pool = pool

    def forward(self, images: Tensor) -> Tensor:
        trunk: Any = self.trunk
        tokens = trunk.forward_features(images.to(dtype_of(trunk)))
        if self.pool is None:
            return trunk.forward_head(tokens, pre_logits=True)  # type: ignore[no-any-return]
        pooled = self.pool(tokens)
        return (trunk.fc_norm(pooled) if getattr(trunk, "fc_norm", None) is not None else pooled).flatten(1)


def probe_image(trunk: nn.Module, size: int) -> Tensor:
    """One image without a pattern that could hide a fault, in the trunk's dtype, on its device: (1, 3, size, size)."""
    device = next(trunk.parameters()).device
    waves = torch.arange(3 * size * size, dtype=torch.float32).mul(0.7).sin().view(1, 3, size, size)
    return waves.to(device, dtype_of(trunk))


def survey(trunk: nn.Module, image: Preprocessing) -> Sites:
    """The places of a trunk, and whether its blocks can be opened: tried on the input of the first one."""
    sites = sites_of(trunk, image)
    if not sites.blocks or sites.kind == "maps":
        return sites
    blocks = [trunk.get_submodule(path) for path in sites.blocks]
    if sites.kind == "windows":
        return replace(sites, open=_windows_open(trunk, sites, blocks))
    x, context = input_of(blocks[0], Features(trunk), probe_image(trunk, image.size))
    sites = replace(sites, tokens=x.shape[1])
    if sites.reads_class_token and not _pools_alike(trunk, x, x[:, :1]):
        sites = replace(sites, reads_class_token=False)
    layouts = [sites.layout(block) for block in blocks]
    layout = layouts[0]
    if layout is None or layouts.count(layout) != len(layouts):
        return sites
    kinds = {type(getattr(block, layout.attention)) for block in blocks}
    if len(kinds) != 1:
        return sites
    with torch.no_grad():
        open_ = explains(getattr(blocks[0], layout.attention), getattr(blocks[0], layout.norm1)(x), context)
    narrow = open_ and sites.reads_class_token and _narrows(blocks[0], layout, x, context)
    return replace(sites, open=open_, narrow=narrow)


def _windows_open(trunk: nn.Module, sites: Sites, blocks: list[nn.Module]) -> bool:
    """Whether every window attention is the known one: tried on all of them, in one pass of one image."""
    if any(sites.layout(block) is None for block in blocks):
        return False
    known: list[bool] = []

    def compare(attention: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], theirs: Tensor) -> None:
        known.append(explains_windows(attention, args[0], kwargs.get("mask"), theirs))

    handles = [block.get_submodule("attn").register_forward_hook(compare, with_kwargs=True) for block in blocks]
    try:
        with torch.no_grad():
            Features(trunk)(probe_image(trunk, sites.image.size))
    finally:
        for handle in handles:
            handle.remove()
    return len(known) == len(blocks) and all(known)


class _Seen(Exception):
    """Carries a block's input out of the forward pass, which need not go on."""


@torch.no_grad()
def input_of(block: nn.Module, network: nn.Module, images: Tensor) -> tuple[Tensor, dict[str, Any]]:
    """What `network` gives to this block of it: the tokens, and what the trunk passes along."""

    def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise _Seen(args[0], kwargs)

    handle = block.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        network(images)
    except _Seen as seen:
        x, context = seen.args
        return x, context
    finally:
        handle.remove()
    raise RuntimeError(f"{type(network).__name__} never calls this block")


@torch.no_grad()
def _pools_alike(trunk: Any, x: Tensor, cls: Tensor) -> bool:
    """Whether the head reads the same from CLS alone; a distilled DeiT also reads its second token."""
    try:
        whole, alone = (trunk.forward_head(tokens, pre_logits=True) for tokens in (x, cls))
    except (IndexError, RuntimeError):
        return False
    return alone.is_meta or torch.equal(whole, alone)


@torch.no_grad()
def _narrows(block: nn.Module, layout: BlockLayout, x: Tensor, context: dict[str, Any]) -> bool:
    """Whether the block, restated for CLS alone, gives the block's own CLS."""
    own = block(x, **context)[:, :1]
    restated = ClassTokenBlock(trunk_of(block), layout)(x, **context)
    tolerance = 1e-4 if x.dtype == torch.float32 else 3e-2
    return own.is_meta or torch.allclose(own, restated, rtol=tolerance, atol=tolerance)
