"""A tiny model of every family, made by timm, with weights that hide nothing.

Fresh models have zero biases, zero bias tables and layer scales of 1e-5: a fault in any of these would not show.
So every weight is drawn anew from a fixed seed, large enough to matter.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from vpt import Backbone, load_backbone

SIZE = 32
TINY: dict[str, Any] = {"img_size": SIZE, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2}


@dataclass(frozen=True)
class Family:
    """make: a timm model without classifier. prompts: tokens run through its blocks, so prompts can too. cls: the
    head reads the class token alone. known: its blocks can be opened; in others only the textbook form works.
    """

    make: Callable[[], nn.Module]
    prompts: bool = True
    cls: bool = False
    supports_kv_prompts: bool = True


def _timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        if not timm.is_model(name):
            pytest.skip(f"timm {timm.__version__} has no {name}")
        return timm.create_model(name, pretrained=False, num_classes=0, **options)

    return make


def _tiny(name: str, *, cls: bool = False, supports_kv_prompts: bool = True, **options: Any) -> Family:
    return Family(_timm(name, **{**TINY, **options}), cls=cls, supports_kv_prompts=supports_kv_prompts)


def _swin(size: int) -> Callable[[], nn.Module]:
    shape: dict[str, Any] = {"embed_dim": 16, "depths": (2, 2), "num_heads": (2, 2), "window_size": 4}
    return _timm("swin_tiny_patch4_window7_224", img_size=size, **shape)


FAMILIES: dict[str, Family] = {
    "vit": _tiny("vit_base_patch16_224", cls=True),
    "vit-avg": _tiny("vit_base_patch16_224", global_pool="avg", fc_norm=True),
    "vit-qknorm": _tiny("vit_base_patch16_224", cls=True, qk_norm=True, init_values=1e-5, pre_norm=True),
    "vit-distilled": _tiny("deit_tiny_distilled_patch16_224"),  # the head reads CLS and the distillation token
    "vit-parallel": _tiny("vit_small_patch16_18x2_224", supports_kv_prompts=False),
    "deit3": _tiny("deit3_small_patch16_224", cls=True),
    "clip": _tiny("vit_base_patch16_clip_quickgelu_224", cls=True),
    "dinov2-reg": _tiny("vit_small_patch14_reg4_dinov2", cls=True),
    "dinov3": _tiny("vit_small_patch16_dinov3"),
    "dinov3-cls": _tiny("vit_small_patch16_dinov3", cls=True, global_pool="token"),
    "eva02": _tiny("eva02_tiny_patch14_224"),
    "eva02-unfused": _tiny("eva02_base_patch14_224", cls=True, global_pool="token", scale_attn_inner=True),
    "rope-vit": _tiny("vit_small_patch16_rope_224", cls=True),
    "rope-mixed": _tiny("vit_small_patch16_rope_mixed_224", cls=True),
    "beit": _tiny("beit_base_patch16_224"),
    "beitv2-cls": _tiny("beitv2_base_patch16_224", cls=True, global_pool="token"),
    "beit-shared": _tiny(
        "beit_base_patch16_224", cls=True, global_pool="token", use_rel_pos_bias=False, use_shared_rel_pos_bias=True
    ),
    "naflex": _tiny("naflexvit_base_patch16_gap"),
    "naflex-rope": _tiny("naflexvit_base_patch16_gap", attn_type="rope", rope_type="axial"),
    "siglip": _tiny("vit_base_patch16_siglip_224"),
    "resnet": Family(_timm("resnet10t", layers=(1, 1, 1, 1), channels=(8, 8, 16, 32)), prompts=False),
    "convnext": Family(_timm("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 8, 16, 32)), prompts=False),
    "convnext-linear": Family(_timm("convnext_base", depths=(1, 1, 1, 1), dims=(8, 8, 16, 32)), prompts=False),
    "swin": Family(_swin(SIZE), prompts=False),
}
PROMPTED = [name for name, family in FAMILIES.items() if family.prompts]


def model_of(name: str) -> nn.Module:
    """A new model of a family, the same to the bit each time."""
    return copy.deepcopy(_made(name))


def backbone_of(name: str) -> Backbone:
    """The same as a `Backbone` for images of SIZE pixels (a ConvNet takes any, and would say 224)."""
    backbone = load_backbone(model_of(name))
    return replace(backbone, preprocessing=replace(backbone.preprocessing, size=SIZE))


def resized(name: str, size: int) -> Backbone:
    """The same weights for images of another size: "swin", and ConvNets. Their fingerprint tells no sizes apart."""
    model = _swin(size)() if name == "swin" else model_of(name)
    model.load_state_dict(_made(name).state_dict())
    backbone = load_backbone(model)
    return replace(backbone, name=name, preprocessing=replace(backbone.preprocessing, size=size))


def images(count: int = 4, seed: int = 1) -> Tensor:
    """Normalised images (count, 3, SIZE, SIZE)."""
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


@cache
def _made(name: str) -> nn.Module:
    with torch.random.fork_rng():  # whether it was made before or not, the caller's draws are the same
        model = FAMILIES[name].make()
    randomize(model)
    return model.eval()


@torch.no_grad()
def randomize(model: nn.Module, seed: int = 0) -> None:
    """Draw every weight, bias, scale, table and running statistic anew."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        around_one = name.endswith(("gamma_1", "gamma_2", "gamma", "running_var")) or (
            name.endswith("weight") and tensor.dim() == 1
        )
        if around_one:
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith("weight") and tensor.dim() > 1:
            tensor.normal_(std=1 / math.sqrt(tensor[0].numel()), generator=generator)
        else:
            tensor.normal_(std=0.5, generator=generator)
