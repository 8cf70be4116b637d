"""Oracles of visinf/adapter_plus: an adapter after each block, scaled by channel.

python scripts/oracles/adapter_plus.py --repo CLONE --commit SHA
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import timm.layers
import timm.models
import torch
from authors import CLASSES, VIT_SIZES, AttributeDict, Authors, draw_images, prepare, record, restore_old_timm
from torch import nn

CONFIG = AttributeDict(  # conf/adapter/adapter_plus.yaml, with two channels inside
    config="post", dim=2, scaling="channel", init="houlsby", bias=True, act_layer=True, norm_layer=False,
    attn_adapter=False, dropout=0.0, drop_path=0.0,
)  # fmt: skip


def main() -> None:
    authors = Authors("visinf/adapter_plus", ["adapter_plus"])
    restore_old_timm()
    timm.models.vision_transformer.checkpoint_filter_fn = None
    from adapter_plus.vit_adapter import AdapterBlock, VisionTransformerAdapter

    known = inspect.signature(AdapterBlock).parameters

    def block(**options: Any) -> nn.Module:
        return AdapterBlock(**{name: value for name, value in options.items() if name in known})  # timm has more today

    norm = partial(nn.LayerNorm, eps=1e-6)
    sizes = {**VIT_SIZES, "num_classes": CLASSES, "norm_layer": norm}
    model = VisionTransformerAdapter(adapter_config=CONFIG, block_fn=block, **sizes).eval()
    model.forward = lambda x: model.forward_head(model.forward_features(x))  # timm's own hands on a mask today
    prepare(model, "adapter", "head.")
    authors.save("adapter_plus", record(model, draw_images()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
