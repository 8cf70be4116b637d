"""Published weights files: each layout, written tiny with random values, must load into timm's model of its family.

A test turns the weights of a model into the names and shapes of the published file by a mapping of its own, and loads
them into a fresh model: weights and output must come back to the bit. What a published file has besides (decoders, text
towers, buffers, heads) is written too. Here is what several of these tests need.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.families import SIZE, TINY, randomize
from vpt import load_backbone
from vpt.backbones import Backbone

State = dict[str, Tensor]
WIDTH = TINY["embed_dim"]
SWIN: dict[str, Any] = {
    "img_size": SIZE,
    "embed_dim": 16,
    "depths": (2, 2, 2),
    "num_heads": (2, 2, 4),
    "window_size": 4,
}
CONVNEXT: dict[str, Any] = {"depths": (1, 1, 2, 1), "dims": (8, 8, 16, 32)}
RESNET: dict[str, Any] = {"layers": (1, 2, 1, 1), "channels": (8, 8, 16, 32)}
PAPER = [
    ("vit_base_patch16_224.orig_in21k", {"embed_dim": 24, "img_size": 32}),
    ("vit_large_patch16_224.orig_in21k", {"embed_dim": 32, "img_size": 32}),
    ("vit_huge_patch14_224.orig_in21k", {"embed_dim": 32, "img_size": 28}),
]


def fresh(name: str, **options: Any) -> Any:
    """A model as a user would make it, tiny: what a file is loaded into."""
    return timm.create_model(name, num_classes=0, **options)


def trained(name: str, **options: Any) -> Any:
    """The same with other weights, none of them zero or one: what a file is written from."""
    model = fresh(name, **options)
    randomize(model, seed=7)
    return model.eval()


def vit(name: str = "vit_base_patch16_224", *, make: Callable[..., Any] = fresh, **options: Any) -> Any:
    return make(name, **{**TINY, **options})


def rename_keys(state: State, *swaps: tuple[str, str]) -> State:
    """Every name with each swap applied, in order."""
    out = {}
    for name, tensor in state.items():
        for old, new in swaps:
            name = name.replace(old, new)
        out[name] = tensor.clone()
    return out


def add_prefix(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def write_and_load(model: nn.Module, content: Any, path: Path) -> Backbone:
    """Write the content and load it through the public door."""
    torch.save(content, path)
    return load_backbone(model, weights=path)


@torch.no_grad()
def assert_same(backbone: Backbone, source: nn.Module) -> None:
    """The weights of the source, every one to the bit, and so its output."""
    expected = backbone.module.eval().state_dict()
    for name, tensor in source.state_dict().items():
        assert torch.equal(expected.pop(name), tensor), name
    assert not expected
    config: Any = source
    size = getattr(getattr(config, "patch_embed", None), "img_size", (SIZE, SIZE))
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    assert torch.equal(backbone.module(images), source(images))


def resize_positions(grid: Tensor, side: int, **how: Any) -> Tensor:
    """Positions (1, n * n, d) on another grid."""
    n = round(grid.shape[1] ** 0.5)
    surface = grid.reshape(1, n, n, -1).permute(0, 3, 1, 2)
    return F.interpolate(surface, size=(side, side), align_corners=False, **how).permute(0, 2, 3, 1).flatten(1, 2)


def mae(source: Any) -> State:
    """mae_pretrain_vit_base.pth: timm's names, no head, the final norm as `norm`."""
    return rename_keys(source.state_dict(), ("fc_norm.", "norm."))
