"""Oracles of microsoft/LoRA: its linear layers in a timm ViT, for the authors have no vision model.

python scripts/oracles/lora.py --repo CLONE --commit SHA
"""

from __future__ import annotations

from typing import Any

import timm
import torch
from authors import CLASSES, VIT_SIZES, Authors, draw_images, prepare, record

RANK, ALPHA = 2, 3
TARGETS = {"attention": ("qkv", "proj"), "mlp": ("fc1", "fc2"), "all": ("qkv", "proj", "fc1", "fc2")}


def tiny_vit() -> Any:
    return timm.create_model("vit_base_patch16_224", pretrained=False, num_classes=CLASSES, **VIT_SIZES)


def replace_layers(model: Any, targets: tuple[str, ...], *, queries_and_values: bool = False) -> Any:
    """Put the authors' layers in the place of the targets; their weights are drawn later."""
    import loralib

    for block in model.blocks:
        for module in (block.attn, block.mlp):
            for name, layer in list(module.named_children()):
                if name not in targets:
                    continue
                sizes = (layer.in_features, layer.out_features)
                if queries_and_values:
                    chosen = [True, False, True]
                    new: Any = loralib.MergedLinear(*sizes, r=RANK, lora_alpha=ALPHA, enable_lora=chosen)
                else:
                    new = loralib.Linear(*sizes, r=RANK, lora_alpha=ALPHA)
                new.merge_weights = False  # eval mode would add the update to the weight
                setattr(module, name, new)
    prepare(model, "lora_", "head.")
    return model.eval()


def main() -> None:
    authors = Authors("microsoft/LoRA", ["loralib"])
    for name, targets in TARGETS.items():
        model = replace_layers(tiny_vit(), targets)
        authors.save(f"lora_{name}", record(model, draw_images()), case=[RANK, ALPHA])
    model = replace_layers(tiny_vit(), ("qkv",), queries_and_values=True)
    authors.save("lora_queries_values", record(model, draw_images()), case=[RANK, ALPHA])


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
