"""Oracles of KMnP/vpt, the official code of the paper: how its heads and prompts begin.

`official_initialization` holds mean, standard deviation, minimum and maximum of what it draws at random, and
`official_prototypes` the class token of every layer, from which its prompts of initialization "final-cls" begin.

python scripts/oracles/official_initialization.py --repo CLONE --commit SHA
"""

from __future__ import annotations

from typing import Any

import torch
from authors import IMAGE_SIZE, generator
from official import official_authors, official_config
from official_vit import build
from torch import Tensor

WIDTH, PROMPTS, PROJECT, CLASSES = 64, 50, 32, 100
CASES: dict[str, tuple[dict[str, Any], bool]] = {
    "prepend": ({"DEEP": True}, False),
    "projection": ({"DEEP": True, "PROJECT": PROJECT}, False),
    "mlp": ({"MLP_NUM": 2}, False),
    "prepend_pixel": ({"LOCATION": "prepend-pixel"}, True),
    "concat_channel": ({"LOCATION": "below"}, True),
}


def moments(tensor: Tensor) -> Tensor:
    return torch.stack([tensor.mean(), tensor.std(), tensor.min(), tensor.max()])


def initial_values() -> dict[str, Tensor]:
    tensors = {}
    for name, (options, ablations) in CASES.items():
        torch.manual_seed(0)
        config = official_config("prompt", **options)
        config.MODEL.PROMPT.NUM_TOKENS, config.DATA.NUMBER_CLASSES = PROMPTS, CLASSES
        model = build(config, width=WIDTH, ablations=ablations, perturbed=False)
        for key, weight in model.named_parameters():
            if weight.requires_grad:
                tensors[f"{name}/{key}"] = moments(weight.detach())
    return tensors


def prototypes() -> dict[str, Tensor]:
    model = build(official_config("linear")).eval()
    pixels = torch.randint(256, (5, 3, IMAGE_SIZE, IMAGE_SIZE), generator=generator(5), dtype=torch.uint8)
    with torch.no_grad():  # the official code takes one image at a time
        layers = [model.forward_cls_layerwise((image / 255 - 0.5)[None] / 0.5) for image in pixels]
    weights = {f"weights/{name}": tensor for name, tensor in model.state_dict().items()}
    return {"pixels": pixels, "class_tokens": torch.stack(layers), **weights}


def main() -> None:
    authors = official_authors()
    authors.save("official_initialization", initial_values())
    authors.save("official_prototypes", prototypes())


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
