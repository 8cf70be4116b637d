"""Oracles of ChengHan111/E2VPT: learned keys and values in every block, without its input prompts.

python scripts/oracles/e2vpt.py --repo CLONE --commit SHA
"""

from __future__ import annotations

import torch
from authors import CLASSES, IMAGE_SIZE, PROMPTS, AttributeDict, Authors, draw_images, prepare, record
from official import stub_missing_packages
from official_vit import tiny_vit_config


def main() -> None:
    authors = Authors("ChengHan111/E2VPT", ["src"])
    stub_missing_packages()
    from src.models.vit_backbones import vit_changeVK

    vit_changeVK.CONFIGS["tiny"] = tiny_vit_config()
    for name, shared in (("e2vpt", False), ("e2vpt_shared", True)):
        options = AttributeDict(
            VIT_POOL_TYPE="original", NUM_TOKENS=PROMPTS, NUM_TOKENS_P=0, DEEP=True, DROPOUT=0.0, LAYER_BEHIND=True,
            SHARE_PARAM_KV=shared, SHARED_ACCROSS=False, ORIGIN_INIT=0, QUERY_PROMPT_MODE=0, MASK_CLS_TOKEN=False,
            MASK_CLS_TOKEN_ON_VK=False,
        )  # fmt: skip
        model = vit_changeVK.VisionTransformer_changedVK(options, "tiny", IMAGE_SIZE, CLASSES).eval()
        prepare(model, "deep_QKV_embeddings", "head.")
        authors.save(name, record(model, draw_images()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
