"""Oracles of KMnP/vpt, the official code of the paper: prompts and baselines on the ViTs of MAE and MoCo v3.

python scripts/oracles/official_self_supervised.py --repo CLONE --commit SHA
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from authors import VIT_SIZES, WIDTH, AttributeDict, draw_images, perturb, record
from official import official_authors, official_config
from timm.models.vision_transformer import VisionTransformer
from torch import nn

SIZES = {
    **VIT_SIZES, "qkv_bias": True, "num_classes": 0, "norm_layer": partial(nn.LayerNorm, eps=1e-6),
}  # fmt: skip


class FeaturesOnly(nn.Module):
    """An encoder of timm 0.4, whose forward pass ends with the pooled feature and an empty head."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.timm = encoder

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.timm.forward_features(images)  # type: ignore[no-any-return]


def build(kind: str, config: AttributeDict) -> Any:
    """The official model with its head and its choice of learned parameters, but of tiny sizes."""
    from src.models import vit_models
    from src.models.vit_backbones import vit_mae, vit_moco
    from src.models.vit_prompt import vit_mae as prompted_mae
    from src.models.vit_prompt import vit_moco as prompted_moco

    # As in timm 0.4, without distillation and representation layer.
    VisionTransformer.num_tokens, VisionTransformer.dist_token = 1, None
    VisionTransformer.pre_logits = staticmethod(lambda x: x)

    def build_tiny(feature: str, size: int, prompt: Any, root: str, adapter_cfg: Any) -> Any:
        if kind == "mae":
            encoder = (
                vit_mae.VisionTransformer(global_pool=True, **SIZES)
                if prompt is None
                else prompted_mae.PromptedVisionTransformer(prompt, global_pool=True, **SIZES)
            )
        else:
            encoder = (
                vit_moco.VisionTransformerMoCo(**SIZES)
                if prompt is None
                else prompted_moco.PromptedVisionTransformerMoCo(prompt, **SIZES)
            )
        return FeaturesOnly(encoder), WIDTH

    vit_models.build_mae_model = vit_models.build_mocov3_model = build_tiny
    config.DATA.FEATURE = kind
    model = vit_models.SSLViT(config)
    perturb(model)
    return model.eval()


CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mae_shallow": ("mae", "prompt", {}),
    "mae_deep": ("mae", "prompt", {"DEEP": True}),
    "mae_deep_image_mean": ("mae", "prompt", {"DEEP": True, "VIT_POOL_TYPE": "img_pool"}),
    "moco_shallow": ("moco", "prompt", {}),
    "moco_deep": ("moco", "prompt", {"DEEP": True}),
    "mae_bias": ("mae", "tinytl-bias", {}),
}


def main() -> None:
    authors = official_authors()
    for name, (kind, transfer_type, options) in CASES.items():
        model = build(kind, official_config(transfer_type, **options))
        authors.save(f"official_{name}", record(model, draw_images()), case=[transfer_type, options])


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
