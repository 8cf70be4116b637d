"""Oracle of OpenGVLab/LLaMA-Adapter: prompts with a softmax of their own and a gate per head that begins at 0.

Their attention stands in the blocks of a tiny timm ViT. It gets no rotary positions and an empty mask. Norms are left
out, as theirs are not those of a ViT, and as their prompts do not pass the norm of the block. Their gate, which they
round to half precision, keeps its precision here.

python scripts/oracles/llama_adapter.py --repo CLONE --commit SHA
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import timm
import torch
from authors import CLASSES, HEADS, PROMPTS, VIT_SIZES, WIDTH, Authors, draw_images, prepare, record
from torch import Tensor, nn

FILE = "alpaca_finetuning_v1/llama/model.py"


class PromptedAttention(nn.Module):
    """Their attention with the prompts of its layer."""

    def __init__(self, authors: Any) -> None:
        super().__init__()
        self.attention = authors.Attention(authors.ModelArgs(dim=WIDTH, n_heads=HEADS))
        self.adapter = nn.Parameter(torch.empty(1, PROMPTS, WIDTH))

    def forward(self, x: Tensor, **_: Any) -> Tensor:
        count = x.shape[1]
        no_positions = torch.ones(count, WIDTH // HEADS // 2, dtype=torch.complex64)
        return self.attention(x, 0, no_positions, torch.zeros(1, 1, count, count), self.adapter)  # type: ignore[no-any-return]


def main() -> None:
    authors = Authors("OpenGVLab/LLaMA-Adapter", [FILE])
    spec = importlib.util.spec_from_file_location("llama_model", authors.root / FILE)
    assert spec is not None and spec.loader is not None
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)  # its package needs a tokenizer
    spec.loader.exec_module(module)
    Tensor.half = lambda self: self  # type: ignore[method-assign, assignment, misc]
    model: Any = timm.create_model(
        "vit_base_patch16_224", num_classes=CLASSES, qkv_bias=False, norm_layer=nn.Identity, **VIT_SIZES
    )
    for block in model.blocks:
        block.attn = PromptedAttention(module)
    prepare(model.eval(), "adapter", "gate", "head.")
    authors.save("llama_adapter", record(model, draw_images()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
