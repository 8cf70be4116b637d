"""A trunk: a backbone's structure of its own, over the very same weights.

Whatever hangs on a trunk, the backbone it was taken from is not touched: not its modules, not their mode, not the
flags of its weights. Hence any number of methods hang on one backbone at once, and giving it back is no work.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from vpt.backbone.attention import explains
from vpt.backbone.class_token import ClassTokenBlock
from vpt.backbone.sites import BlockLayout, Sites, sites_of


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


def features(trunk: Any, images: Tensor) -> Tensor:
    """Normalised images (batch, 3, height, width) -> pooled features (batch, d), by timm's own two steps."""
    return trunk.forward_head(trunk.forward_features(images), pre_logits=True)  # type: ignore[no-any-return]


def probe_image(trunk: nn.Module, size: int) -> Tensor:
    """One image without a pattern that could hide a fault, in the trunk's dtype, on its device: (1, 3, size, size)."""
    weight = next(trunk.parameters())
    waves = torch.arange(3 * size * size, dtype=torch.float32).mul(0.7).sin().view(1, 3, size, size)
    return waves.to(weight.device, weight.dtype)


def survey(trunk: nn.Module, size: int) -> Sites:
    """The places of a trunk, and whether its blocks can be opened: tried on the input of the first one."""
    sites = sites_of(trunk)
    if not sites.blocks:
        return sites
    blocks = [trunk.get_submodule(path) for path in sites.blocks]
    x, context = _input_of(blocks[0], trunk, size)
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


class _Seen(Exception):
    """Carries a block's input out of the forward pass, which need not go on."""


def _input_of(block: nn.Module, trunk: nn.Module, size: int) -> tuple[Tensor, dict[str, Any]]:
    def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise _Seen(args[0], kwargs)

    handle = block.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        with torch.no_grad():
            features(trunk, probe_image(trunk, size))
    except _Seen as seen:
        x, context = seen.args
        return x, context
    finally:
        handle.remove()
    raise RuntimeError(f"{type(trunk).__name__} never calls its first block")


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
