"""Oracles of dongzelian/SSF: scales and shifts in a ViT, a Swin and a ConvNeXt.

python scripts/oracles/ssf.py --repo CLONE --commit SHA
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from authors import CLASSES, IMAGE_SIZE, VIT_SIZES, Authors, draw_images, prepare, record, restore_old_timm, stub
from torch import nn


def build_vit() -> Any:
    from models.vision_transformer import VisionTransformer

    norm = partial(nn.LayerNorm, eps=1e-6)
    return VisionTransformer(num_classes=CLASSES, norm_layer=norm, tuning_mode="ssf", **VIT_SIZES)


def build_swin() -> Any:
    from models.swin_transformer import SwinTransformer

    return SwinTransformer(
        img_size=8, patch_size=2, embed_dim=4, depths=(2, 2), num_heads=(1, 2), window_size=2, mlp_ratio=1,
        num_classes=CLASSES, drop_path_rate=0.0, tuning_mode="ssf", weight_init="skip",
    )  # fmt: skip


def build_convnext() -> Any:
    from models.convnext import ConvNeXt

    return ConvNeXt(num_classes=CLASSES, depths=(1, 1, 1, 1), dims=(4, 4, 4, 8), tuning_mode="ssf")


def main() -> None:
    authors = Authors("dongzelian/SSF", ["models"])
    stub("ipdb")
    restore_old_timm()
    for name, build, size in (
        ("vit", build_vit, IMAGE_SIZE),
        ("swin", build_swin, 8),
        ("convnext", build_convnext, 32),
    ):
        model = build().eval()
        prepare(model, "ssf_", "head.")
        authors.save(f"ssf_{name}", record(model, draw_images(size)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
