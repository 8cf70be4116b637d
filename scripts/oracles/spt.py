"""Oracle of SinAxCosB/Self-Prompt-Tuning: the tokens at which the prompts of a deep ViT begin.

Their `prompt_generator` draws prompts from training images, and `RepCatcher` gives it the tokens; its size of images is
replaced by that of a tiny ViT.

python scripts/oracles/spt.py --repo CLONE --commit SHA
"""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Any

import torch
from authors import PROMPTS, VIT_SIZES, AttributeDict, Authors, generator, perturb, stub
from timm.models.vision_transformer import Block
from torch import Tensor, nn

IMAGES = 4


class OldBlock(Block):
    """A block of timm 0.6, whose forward pass takes tokens alone."""

    def forward(self, x: Tensor, **_: Any) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


def main() -> None:
    authors = Authors("SinAxCosB/Self-Prompt-Tuning", ["Models", "utils.py", "train.py"])
    pixels = torch.randint(256, (IMAGES, 3, 8, 8), generator=generator(5), dtype=torch.uint8)
    images = (pixels / 255 - 0.5) / 0.5
    stub("Dataset", tiny=lambda: ([(image, 0) for image in images], None, 1))
    stub("tensorboardX")
    from Models.vit import VisionTransformer
    from utils import RepCatcher

    encoder = VisionTransformer(
        **VIT_SIZES, qkv_bias=True, num_classes=0, norm_layer=partial(nn.LayerNorm, eps=1e-6), block_fn=OldBlock
    )
    encoder.depth = VIT_SIZES["depth"]
    perturb(encoder)
    encoder.eval()
    catcher = RepCatcher(encoder, list(range(encoder.depth)))
    with torch.no_grad():
        encoder(images)
    candidates = catcher.get_features()

    source = (authors.root / "train.py").read_text()
    size = "(sample_size, 3, 224, 224)"
    assert size in source
    code: dict[str, Any] = {"__name__": "train"}
    exec(compile(source.replace(size, "(sample_size, 3, 8, 8)"), "train.py", "exec"), code)
    options = AttributeDict(dataset="tiny", prompt_deep=True, prompt_sample_type="random", num_prompts=PROMPTS)
    torch.manual_seed(0)
    prompts = code["prompt_generator"](encoder, options, model_depth=encoder.depth)
    tensors = {"pixels": pixels, "prompts": prompts}
    tensors |= {f"candidates/{index}": tokens for index, tokens in enumerate(candidates)}
    tensors |= {f"weights/{name}": tensor for name, tensor in encoder.state_dict().items()}
    digest = hashlib.sha256((authors.root / "train.py").read_bytes()).hexdigest()
    authors.save("spt", tensors, files=authors.imported_files() | {"train.py": digest})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
