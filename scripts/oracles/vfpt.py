"""Oracles of runtsang/VFPT: prompts of which some pass a Fourier transform.

python scripts/oracles/vfpt.py --repo CLONE --commit SHA
"""

from __future__ import annotations

import torch
from authors import CLASSES, IMAGE_SIZE, PROMPTS, AttributeDict, Authors, draw_images, prepare, record
from official import stub_missing_packages
from official_vit import tiny_vit_config


def main() -> None:
    authors = Authors("runtsang/VFPT", ["src"])
    stub_missing_packages()
    from src.models.vit_prompt import vit_fourier

    vit_fourier.CONFIGS["tiny"] = tiny_vit_config()
    for share in (0.5, 1.0):
        prompt = AttributeDict(  # their defaults, in all blocks and over both dimensions
            NUM_TOKENS=PROMPTS, LOCATION="prepend", INITIATION="random", NUM_DEEP_LAYERS=None, DEEP_SHARED=False,
            PROJECT=-1, DEEP=True, DROPOUT=0.0, VIT_POOL_TYPE="original", FOURIER_TYPE="fft", FOURIER_DIMENSION="all",
            FOURIER_PERCENTAGE=share, FOURIER_ADDITION=False, FOURIER_ADDITION_NUM=0, FOURIER_FIRST_LAYER=True,
            FOURIER_HALF=None, FOURIER_LOCATION="prepend", MIXED=False, VIS=False,
        )  # fmt: skip
        model = vit_fourier.PromptedVisionTransformer_Fourier(prompt, "tiny", IMAGE_SIZE, CLASSES).eval()
        prepare(model, "prompt_embeddings", "head.")
        authors.save(f"vfpt_{round(100 * share)}", record(model, draw_images()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
