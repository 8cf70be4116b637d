"""Oracles of ShoufaChen/AdaptFormer: the parallel branch, in eval mode and in train mode.

python scripts/oracles/adaptformer.py --repo CLONE --commit SHA
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from authors import (
    CLASSES,
    DEPTH,
    HEADS,
    IMAGE_SIZE,
    MLP_RATIO,
    PATCH_SIZE,
    WIDTH,
    AttributeDict,
    Authors,
    draw_images,
    perturb,
    record,
    recorded_dropout,
    train_only,
)
from torch import nn


def build() -> Any:
    """A tiny ViT with the settings of the authors' scripts: scale 0.1, no norm inside the branch."""
    from models.vit_image import VisionTransformer

    tuning = AttributeDict(
        ffn_adapt=True, ffn_option="parallel", ffn_adapter_layernorm_option="none", ffn_adapter_init_option="lora",
        ffn_adapter_scalar="0.1", ffn_num=3, d_model=WIDTH, vpt_on=False, vpt_num=0,
    )  # fmt: skip
    model = VisionTransformer(
        img_size=IMAGE_SIZE, patch_size=PATCH_SIZE, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, mlp_ratio=MLP_RATIO,
        num_classes=CLASSES, norm_layer=partial(nn.LayerNorm, eps=1e-6), tuning_config=tuning,
    )  # fmt: skip
    perturb(model)
    train_only(model, "adaptmlp", "head")
    return model


def main() -> None:
    authors = Authors("ShoufaChen/AdaptFormer", ["models"])
    model = build().eval()
    authors.save("adaptformer", record(model, draw_images()))
    model.train()
    with recorded_dropout() as masks:
        tensors = record(model, draw_images())
    authors.save("adaptformer_train", {**tensors, **masks})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
