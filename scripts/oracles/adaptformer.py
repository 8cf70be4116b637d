"""Oracles of ShoufaChen/AdaptFormer: the parallel branch, in eval mode and in train mode.

python scripts/oracles/adaptformer.py --repo CLONE --commit SHA
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from authors import CLASSES, VIT_SIZES, WIDTH, AttributeDict, Authors, draw_images, prepare, record, record_training
from torch import nn


def build() -> Any:
    """A tiny ViT with the settings of the authors' scripts: scale 0.1, no norm inside the branch."""
    from models.vit_image import VisionTransformer

    tuning = AttributeDict(
        ffn_adapt=True, ffn_option="parallel", ffn_adapter_layernorm_option="none", ffn_adapter_init_option="lora",
        ffn_adapter_scalar="0.1", ffn_num=3, d_model=WIDTH, vpt_on=False, vpt_num=0,
    )  # fmt: skip
    norm = partial(nn.LayerNorm, eps=1e-6)
    model = VisionTransformer(num_classes=CLASSES, norm_layer=norm, tuning_config=tuning, **VIT_SIZES)
    prepare(model, "adaptmlp", "head")
    return model


def main() -> None:
    authors = Authors("ShoufaChen/AdaptFormer", ["models"])
    model = build().eval()
    authors.save("adaptformer", record(model, draw_images()))
    authors.save("adaptformer_train", record_training(model.train()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
