"""Oracles of ryongithub/GatedPromptTuning: gates and temperatures on the ViTs of MAE and MoCo v3.

python scripts/oracles/gated_prompt_tuning.py --repo CLONE --commit SHA
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from authors import (
    CLASSES,
    DEPTH,
    PROMPTS,
    VIT_SIZES,
    WIDTH,
    AttributeDict,
    Authors,
    draw_images,
    prepare,
    record,
    record_training,
    restore_old_timm,
    stub,
)
from timm.models.vision_transformer import VisionTransformer
from torch import nn

SIZES = {
    **VIT_SIZES, "qkv_bias": True, "num_classes": 0, "drop_path_rate": 0.1,
    "norm_layer": partial(nn.LayerNorm, eps=1e-6),
}  # fmt: skip


class WithHead(nn.Module):
    """The authors' encoder and a linear layer."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.enc = encoder
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.enc.forward_features(images))  # type: ignore[no-any-return]


def build(kind: str, pool: str, dropout: float = 0.0) -> WithHead:
    """Prompts with a gate after every block but the last, as many temperatures as blocks."""
    from src.configs.config import get_cfg

    options = get_cfg().MODEL.PROMPT
    options.update(NUM_TOKENS=PROMPTS, GATE_PRIOR=True, GATE_NUM=DEPTH - 1, TEMP_LEARN=True, TEMP_NUM=DEPTH)
    options.update(VIT_POOL_TYPE=pool, DROPOUT=dropout)
    if kind == "mae":
        from src.models.vit_prompt.vit_mae import PromptedVisionTransformer

        encoder: Any = PromptedVisionTransformer(options, global_pool=True, **SIZES)
    else:
        VisionTransformer.num_tokens, VisionTransformer.dist_token = 1, None  # as in timm 0.4, without distillation
        from src.models.vit_prompt.vit_moco import PromptedVisionTransformerMoCo

        encoder = PromptedVisionTransformerMoCo(options, **SIZES)
    model = WithHead(encoder)
    prepare(model, "prompt", "gate", "temp", "head.")
    return model


def main() -> None:
    authors = Authors("ryongithub/GatedPromptTuning", ["src"])
    stub("fvcore.common.config", CfgNode=AttributeDict)
    for module in ("iopath.common.file_io", "simplejson", "termcolor"):
        stub(module)
    restore_old_timm()
    for name, kind, pool in (
        ("moco", "moco", "original"),
        ("mae", "mae", "original"),
        ("mae_image_mean", "mae", "img_pool"),
    ):
        model = build(kind, pool).eval()
        authors.save(f"gated_{name}", record(model, draw_images()), case=[kind, pool])
    model = build("moco", "original", dropout=0.1).train()
    authors.save("gated_moco_train", record_training(model), case=["moco", "original"])


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
