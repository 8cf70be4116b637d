"""Oracles of Minhchuyentoancbn/VAPT: prompts from the tokens of the image.

python scripts/oracles/vapt.py --repo CLONE --commit SHA
"""

from __future__ import annotations

import torch
from authors import CLASSES, PATCH_SIZE, PROMPTS, AttributeDict, Authors, draw_images, prepare, record
from official import stub_missing_packages
from official_vit import tiny_vit_config

SIZE = 14 * PATCH_SIZE  # their map has 14 x 14 patches


def main() -> None:
    authors = Authors("Minhchuyentoancbn/VAPT", ["src"])
    stub_missing_packages()
    from src.models.vit_prompt import vit

    vit.CONFIGS["tiny"] = tiny_vit_config()
    prompt = AttributeDict(  # their defaults, with two channels inside the MLP
        NUM_TOKENS=PROMPTS, LOCATION="prepend", INITIATION="random", NUM_DEEP_LAYERS=None, DEEP_SHARED=False,
        PROJECT=-1, DEEP=True, DROPOUT=0.0, VIT_POOL_TYPE="original", ADAPTIVE=True, DROPOUT_MLP=0.0,
        ACTIVATION="relu", HIDDEN_DIM=2, CONV=True, KERNEL=2, PADDING=0, VPT_DEPTH=1, LEARNABLE_SCALE=False,
        CHANNELWISE=True, FEAT_PROJECTOR=True, SHARE_PROJECTOR=True,
    )  # fmt: skip
    model = vit.PromptedVisionTransformer(prompt, "tiny", SIZE, CLASSES).eval()
    prepare(model, "prompt", "head.")
    authors.save("vapt", record(model, draw_images(SIZE)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
