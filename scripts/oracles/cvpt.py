"""Oracles of Lingyun0419/CVPT: attention of tokens to prompts after self-attention, with its weights.

python scripts/oracles/cvpt.py --repo CLONE --commit SHA
"""

from __future__ import annotations

import sys

import timm.layers
import timm.models
from authors import CLASSES, PROMPTS, VIT_SIZES, Authors, draw_images, prepare, record, restore_old_timm


def main() -> None:
    authors = Authors("Lingyun0419/CVPT", ["CVPT.py"])
    restore_old_timm()
    for name, module in (("helpers", timm.models._builder), ("registry", timm.models._registry)):
        sys.modules[f"timm.models.{name}"] = module
    for name in ("named_apply", "adapt_input_conv"):
        setattr(timm.models._builder, name, getattr(timm.models._manipulate, name))
    from CVPT import CVPT

    model = CVPT(num_classes=CLASSES, Prompt_num=PROMPTS, insert=3, **VIT_SIZES).eval()
    prepare(model, "Prompt_Tokens", "head.")
    for block in model.blocks:  # as their loading of a checkpoint does
        for kind in ("weight", "bias"):
            chunks = getattr(block.attn.qkv, kind).data.chunk(3)
            for layer, chunk in zip((block.CrossAttn.q, block.CrossAttn.k, block.CrossAttn.v), chunks, strict=True):
                getattr(layer, kind).data.copy_(chunk)
            getattr(block.CrossAttn.proj, kind).data.copy_(getattr(block.attn.proj, kind).data)
    authors.save("cvpt", record(model, draw_images()))


if __name__ == "__main__":
    main()
