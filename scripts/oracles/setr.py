"""Oracle of fudan-zvg/SETR: the decode head that upsamples progressively (PUP).

python scripts/oracles/setr.py --repo CLONE --commit SHA
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from authors import CLASSES, WIDTH, Authors, generator, perturb, stub
from torch import Tensor, nn

CHANNELS = 4  # the authors' head has 256, written in its code
TOKENS = 5  # a class token and a grid of 2 x 2
PACKAGES = ("mmseg", "mmseg.models", "mmseg.models.decode_heads")


def import_head(authors: Authors) -> Any:
    """Import the module of the head, but not the packages around it, which need the whole of mmcv."""
    stub("mmcv.cnn", build_norm_layer=lambda config, channels: ("bn", nn.BatchNorm2d(CHANNELS)))
    for module in ("mmcv.runner", "mmcv.utils", "mmseg.core", "mmseg.ops", "mmseg.models.losses"):
        stub(module)
    for name in PACKAGES:
        package = ModuleType(name)
        package.__path__ = [str(authors.root.joinpath(*name.split(".")))]
        sys.modules[name] = package
    from mmseg.models.decode_heads import vit_up_head

    return vit_up_head


def build(module: Any) -> Any:
    """The authors' head with fewer channels."""

    def narrow(inputs: int, outputs: int, *args: Any, **kwargs: Any) -> nn.Conv2d:
        return original(*(CHANNELS if size == 256 else size for size in (inputs, outputs)), *args, **kwargs)

    original = nn.Conv2d
    with mock.patch.object(nn, "Conv2d", narrow):
        head = module.VisionTransformerUpHead(
            img_size=8, embed_dim=WIDTH, num_conv=4, num_upsampe_layer=4, in_channels=WIDTH,
            channels=CHANNELS, num_classes=CLASSES, in_index=0, align_corners=False,
        )  # fmt: skip
    perturb(head)
    return head.train()


def main() -> None:
    authors = Authors("fudan-zvg/SETR", ["mmseg/models"])
    head = build(import_head(authors))
    tokens = 0.2 * torch.randn(2, TOKENS, WIDTH, generator=generator(1))
    weights = {key: tensor.clone() for key, tensor in head.state_dict().items()}  # a pass changes the statistics
    logits: Tensor = head([tokens])
    direction = torch.randn(logits.shape, generator=generator(2))
    learned = dict(head.named_parameters())
    gradients = torch.autograd.grad((logits * direction).sum(), list(learned.values()), allow_unused=True)
    tensors = {
        "tokens": tokens,
        "direction": direction,
        "logits": logits,
        **{f"weights/{key}": tensor for key, tensor in weights.items()},
        **{f"gradients/{key}": x for key, x in zip(learned, gradients, strict=True) if x is not None},
    }
    authors.save("setr_pup", tensors)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
