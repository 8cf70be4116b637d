"""Oracles of KMnP/vpt, the official code of the paper: prompts and baselines on a Swin of four stages.

python scripts/oracles/official_swin.py --repo CLONE --commit SHA
"""

from __future__ import annotations

from typing import Any

import torch
from authors import AttributeDict, draw_images, perturb, record
from official import official_authors, official_config

SIZE = 32  # grids of 16, 8, 4 and 2, in windows of 2
SIZES: dict[str, Any] = {
    "img_size": SIZE, "patch_size": 2, "embed_dim": 3, "depths": [2, 1, 2, 2], "num_heads": [1, 2, 2, 2],
    "window_size": 2, "mlp_ratio": 1, "drop_path_rate": 0.0, "num_classes": -1,
}  # fmt: skip


def build(config: AttributeDict) -> Any:
    """The official Swin with its head and its choice of learned parameters, but of tiny sizes, without a checkpoint."""
    from src.models import vit_models
    from src.models.vit_backbones.swin_transformer import BasicLayer, SwinTransformer
    from src.models.vit_prompt.swin_transformer import PromptedSwinTransformer

    BasicLayer.deep_prompt = None  # a Swin without prompts never sets it, but its forward pass reads it

    def build_tiny(feature: str, size: int, prompt: Any, root: str) -> Any:
        encoder = SwinTransformer(**SIZES) if prompt is None else PromptedSwinTransformer(prompt, **SIZES)
        return encoder, encoder.num_features

    vit_models.build_swin_model = build_tiny
    model = vit_models.Swin(config)
    perturb(model)
    return model.eval()


# File -> transfer type, options, and images of a batch.
CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "linear": ("linear", {}, 2),
    "partial_1": ("partial-1", {}, 2),
    "partial_2": ("partial-2", {}, 2),
    "partial_4": ("partial-4", {}, 2),
    "bias": ("tinytl-bias", {}, 2),
    "full": ("end2end", {}, 2),
    "vpt_deep": ("prompt", {"DEEP": True}, 2),
    "vpt_deep_bias": ("prompt+bias", {"DEEP": True}, 2),
    # In a batch of two, the shallow prompts of an image would be averaged over windows of the other one.
    "vpt_shallow": ("prompt", {}, 1),
}


def main() -> None:
    authors = official_authors()
    for name, (transfer_type, options, count) in CASES.items():
        model = build(official_config(transfer_type, **options))
        authors.save(f"official_swin_{name}", record(model, draw_images(SIZE, count)), case=[transfer_type, options])


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
