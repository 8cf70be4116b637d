"""Oracles of KMnP/vpt, the official code of the paper: prompts, baselines and ablations on a ViT.

python scripts/oracles/official_vit.py --repo CLONE --commit SHA
"""

from __future__ import annotations

from typing import Any

import torch
from authors import (
    DEPTH,
    HEADS,
    MLP_RATIO,
    PATCH_SIZE,
    WIDTH,
    AttributeDict,
    draw_images,
    perturb,
    record,
    recorded_dropout,
)
from official import official_authors, official_config
from torch import nn


def tiny_vit_config(width: int = WIDTH, depth: int = DEPTH) -> AttributeDict:
    """The official configuration of ViT-B/16 with other sizes."""
    from src.configs import vit_configs

    config = vit_configs.get_b16_config()
    config.patches.size = (PATCH_SIZE, PATCH_SIZE)
    config.hidden_size = width
    config.transformer.update(mlp_dim=MLP_RATIO * width, num_heads=HEADS, num_layers=depth)
    return config


def build(
    config: AttributeDict, *, width: int = WIDTH, depth: int = DEPTH, ablations: bool = False, perturbed: bool = True
) -> Any:
    """The official ViT with its head and its choice of learned parameters, but of tiny sizes and without a checkpoint.

    The official builder of backbones knows only the widths of published checkpoints, so a tiny one stands in its place.
    """
    from src.models import vit_models
    from src.models.vit_adapter import vit as adapter
    from src.models.vit_backbones import vit as plain
    from src.models.vit_prompt import vit as prompted
    from src.models.vit_prompt import vit_ablations

    plain.CONFIGS["sup_vitb16"] = tiny_vit_config(width, depth)

    def build_tiny(feature: str, size: int, prompt: Any, root: str, adapters: Any, *_: Any, **__: Any) -> Any:
        if prompt is not None:
            module = vit_ablations if ablations else prompted
            return module.PromptedVisionTransformer(prompt, feature, size, num_classes=-1), width
        if adapters is not None:
            return adapter.ADPT_VisionTransformer(feature, size, num_classes=-1, adapter_cfg=adapters), width
        return plain.VisionTransformer(feature, size, num_classes=-1), width

    vit_models.build_vit_sup_models = build_tiny
    vit_models.models.alexnet = lambda pretrained: AttributeDict(features=nn.Conv2d(3, 256, 3), avgpool=nn.ReLU())
    model = vit_models.ViT(config, load_pretrain=False)
    if perturbed:
        perturb(model)
    return model


# File -> transfer type, and options.
BASELINES: dict[str, tuple[str, dict[str, Any]]] = {
    "linear": ("linear", {}),
    "mlp": ("linear", {"MLP_NUM": 2}),
    "partial": ("partial-1", {}),
    "bias": ("tinytl-bias", {}),
    "full": ("end2end", {}),
    "adapter": ("adapter", {}),
    "class_token": ("cls", {}),
    "vpt_shallow": ("prompt", {}),
    "vpt_deep": ("prompt", {"DEEP": True}),
    "vpt_deep_bias": ("prompt+bias", {"DEEP": True}),
    "vpt_deep_class_token": ("cls+prompt", {"DEEP": True}),
    "vpt_deep_frozen": ("prompt-noupdate", {"DEEP": True}),
    "vpt_deep_projection": ("prompt", {"DEEP": True, "PROJECT": 6}),
}
ABLATIONS: dict[str, dict[str, Any]] = {
    "add": {"LOCATION": "add"},
    "add_deep": {"LOCATION": "add", "DEEP": True},
    "add_1_deep": {"LOCATION": "add-1", "DEEP": True},
    "prepend_pixel": {"LOCATION": "prepend-pixel"},
    "concat_channel": {"LOCATION": "below"},
    "pad": {"LOCATION": "pad"},
    "image_mean": {"DEEP": True, "VIT_POOL_TYPE": "img_pool"},
    "prompt_mean": {"DEEP": True, "VIT_POOL_TYPE": "prompt_pool"},
    "global_mean": {"DEEP": True, "VIT_POOL_TYPE": "imgprompt_pool"},
    "shared_blocks": {"DEEP": True, "DEEP_SHARED": True},
    "depth_1_2": {"DEEP": True, "NUM_DEEP_LAYERS": 2},
    "depth_1_2_removed": {"DEEP": True, "NUM_DEEP_LAYERS": 2, "FORWARD_DEEP_NOEXPAND": True},
}
TRAIN_MODE: dict[str, tuple[str, dict[str, Any]]] = {
    "vpt_deep": ("prompt", {"DEEP": True, "DROPOUT": 0.1}),
    "vpt_deep_projection": ("prompt", {"DEEP": True, "DROPOUT": 0.1, "PROJECT": 6}),
    "adapter": ("adapter", {}),
    "full": ("end2end", {}),
}


def main() -> None:
    authors = official_authors()
    for name, (transfer_type, options) in BASELINES.items():
        model = build(official_config(transfer_type, **options)).eval()
        authors.save(f"official_{name}", record(model, draw_images()), case=[transfer_type, options])
    model = build(official_config("side"), width=4).eval()
    authors.save("official_sidetune", record(model, draw_images()), case=["side", {}])
    for name, options in ABLATIONS.items():
        depth = 3 if name.startswith("depth") else DEPTH
        model = build(official_config("prompt", **options), depth=depth, ablations=True).eval()
        authors.save(f"official_{name}", record(model, draw_images()), case=["prompt", options])
    for name, (transfer_type, options) in TRAIN_MODE.items():
        model = build(official_config(transfer_type, **options))
        model.train()
        with recorded_dropout() as masks:
            tensors = record(model, draw_images())
        authors.save(f"official_{name}_train", {**tensors, **masks}, case=[transfer_type, options])


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
