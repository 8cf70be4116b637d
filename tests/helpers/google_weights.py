"""Weights of a timm ViT in the layout of Google's original .npz files."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def google(model: Any, prefix: str = "", grid: int | None = None) -> dict[str, np.ndarray]:
    """Weights of a timm ViT in the layout of Google's original .npz files, such as ViT-B_16.npz."""
    heads, width = model.blocks[0].attn.num_heads, model.embed_dim
    out = {
        "cls": model.cls_token,
        "embedding/kernel": model.patch_embed.proj.weight.permute(2, 3, 1, 0),  # (rows, columns, in, out)
        "embedding/bias": model.patch_embed.proj.bias,
        "Transformer/posembed_input/pos_embedding": model.pos_embed,
        "Transformer/encoder_norm/scale": model.norm.weight,
        "Transformer/encoder_norm/bias": model.norm.bias,
        "pre_logits/kernel": torch.zeros(width, width),
        "pre_logits/bias": torch.zeros(width),
        "head/kernel": torch.zeros(width, 7),
        "head/bias": torch.zeros(7),
    }
    for index, block in enumerate(model.blocks):
        at = f"Transformer/encoderblock_{index}"
        attention = f"{at}/MultiHeadDotProductAttention_1"
        weights, biases = block.attn.qkv.weight.chunk(3), block.attn.qkv.bias.chunk(3)
        for part, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            out[f"{attention}/{part}/kernel"] = weight.T.reshape(width, heads, -1)
            out[f"{attention}/{part}/bias"] = bias.reshape(heads, -1)
        out[f"{attention}/out/kernel"] = block.attn.proj.weight.T.reshape(heads, -1, width)
        out[f"{attention}/out/bias"] = block.attn.proj.bias
        for dense, layer in (("Dense_0", block.mlp.fc1), ("Dense_1", block.mlp.fc2)):
            out[f"{at}/MlpBlock_3/{dense}/kernel"] = layer.weight.T
            out[f"{at}/MlpBlock_3/{dense}/bias"] = layer.bias
        for name, norm in (("LayerNorm_0", block.norm1), ("LayerNorm_2", block.norm2)):
            out[f"{at}/{name}/scale"], out[f"{at}/{name}/bias"] = norm.weight, norm.bias
    return {prefix + name: tensor.detach().numpy().copy() for name, tensor in out.items()}
