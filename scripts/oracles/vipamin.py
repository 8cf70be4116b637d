"""Oracles of iamjaekyun/vipamin: where the prompts of a deep MAE ViT begin.

Their two scripts run on a batch of images; the sizes that they state for ViT-B/16 are replaced by those of a tiny ViT,
and the graphics card by the processor. `vipamin_match` is of a ViT with random prompts and 196 patches, `vipamin_orth`
of one without prompts and with more channels than tokens.

python scripts/oracles/vipamin.py --repo CLONE --commit SHA
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from authors import Authors, generator, perturb, stub
from official import stub_missing_packages
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

SCRIPTS = ("load_match_deep.py", "load_orth_deep.py")
BLOCKS, HEADS, PROMPTS, IMAGES = 2, 2, 3, 4
MATCH = {"img_size": 28, "patch_size": 2, "embed_dim": 8}  # 196 patches, as their script selects up to 128
ORTH = {"img_size": 8, "patch_size": 4, "embed_dim": 8}  # 5 tokens of 8 channels
NEIGHBORS = (2, 8, 32, 128)


class Encoder(nn.Module):
    """An encoder in its place in their classifier."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.enc = encoder

    def forward(self, images: Tensor) -> Tensor:
        return self.enc.forward_features(images)  # type: ignore[no-any-return, operator]


class LayerGetter:
    """Stands for `torch_intermediate_layer_getter`: the outputs of some modules, by number."""

    def __init__(self, model: nn.Module, return_layers: dict[str, int], keep_output: bool) -> None:
        self._model, self._layers = model, return_layers

    def __call__(self, images: Tensor) -> tuple[dict[int, Tensor], None]:
        found: dict[int, Tensor] = {}
        handles = [
            self._model.get_submodule(name).register_forward_hook(
                lambda module, inputs, output, number=number: found.update({number: output})
            )
            for name, number in self._layers.items()
        ]
        self._model(images)
        for handle in handles:
            handle.remove()
        return found, None


class _Done(Exception):
    pass


def block_forward(self: Any, x: Tensor, **_: Any) -> Tensor:
    """A block of timm 0.4, which gives attention nothing but tokens."""
    x = x + self.attn(self.norm1(x))
    return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


def run(authors: Authors, script: str, model: nn.Module, images: Tensor, sizes: dict[str, str]) -> dict[str, Any]:
    """Run one of their scripts in an empty folder, and return the files that it writes."""

    def stop() -> None:
        raise _Done

    source = (authors.root / script).read_text()
    for theirs, ours in sizes.items():
        assert theirs in source, theirs
        source = source.replace(theirs, ours)
    batch = {"image": images, "label": torch.zeros(len(images))}
    stub("torch_intermediate_layer_getter", IntermediateLayerGetter=LayerGetter)
    stub("src.data", loader=type("Loader", (), {"construct_train_loader": staticmethod(lambda config: [batch])}))
    stub("src.models.build_model", build_model=lambda config: (model, "cpu"))
    config = type("Config", (), {"merge_from_file": lambda self, path: None})
    stub("src.configs.config", get_cfg=config)
    sys.argv = [script, "--data-set", "tiny"]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        with suppress(_Done):
            exec(compile(source, script, "exec"), {"quit": stop})
        os.chdir("/")
        return {path.name: torch.load(path, weights_only=True) for path in Path(folder).rglob("tiny*")}


def draw_pixels(size: int) -> tuple[Tensor, Tensor]:
    """Return images of bytes, and as a model reads them."""
    pixels = torch.randint(256, (IMAGES, 3, size, size), generator=generator(5), dtype=torch.uint8)
    return pixels, (pixels / 255 - 0.5) / 0.5


def main() -> None:
    authors = Authors("iamjaekyun/vipamin", ["src", *SCRIPTS])
    authors.out = authors.out.resolve()
    stub_missing_packages()
    from src.models.vit_backbones import vit_mae
    from src.models.vit_prompt import vit_mae as prompted_mae

    digests = {name: hashlib.sha256((authors.root / name).read_bytes()).hexdigest() for name in SCRIPTS}
    files = authors.imported_files() | digests
    VisionTransformer.num_tokens, VisionTransformer.dist_token = 1, None  # as in timm 0.4
    Block.forward = block_forward  # type: ignore[method-assign, assignment]
    options: dict[str, Any] = {
        "depth": BLOCKS, "num_heads": HEADS, "mlp_ratio": 2, "qkv_bias": True, "num_classes": 0, "global_pool": True,
        "norm_layer": partial(nn.LayerNorm, eps=1e-6),
    }  # fmt: skip
    prompt = type("Prompt", (), {
        "DEEP": True, "LOCATION": "prepend", "NUM_TOKENS": PROMPTS, "DROPOUT": 0.0, "INITIATION": "random",
        "VIT_POOL_TYPE": "original",
    })  # fmt: skip
    torch.Tensor.cuda = lambda self: self  # type: ignore[method-assign, assignment]
    torch.Tensor.to = nn.Module.to = lambda self, device: self  # type: ignore[method-assign, assignment]

    encoder = prompted_mae.PromptedVisionTransformer(prompt, **MATCH, **options)
    perturb(encoder)
    pixels, images = draw_pixels(MATCH["img_size"])
    sizes = {
        "prompt_len = 20": f"prompt_len = {PROMPTS}", "block_num = 12": f"block_num = {BLOCKS}",
        "256, 1+prompt_len+196, 768": f"{IMAGES}, 1+prompt_len+196, {MATCH['embed_dim']}",
        "B,N,3,12,C//12": f"B,N,3,{HEADS},C//{HEADS}",
    }  # fmt: skip
    found = run(authors, SCRIPTS[0], Encoder(encoder), images, sizes)
    tensors = {f"matched/{count}": found[f"tiny_{count}"] for count in NEIGHBORS}
    tensors |= {f"weights/{name}": tensor for name, tensor in encoder.state_dict().items()}
    authors.save("vipamin_match", {"pixels": pixels, **tensors}, files=files)

    encoder = vit_mae.VisionTransformer(**ORTH, **options)
    perturb(encoder)
    pixels, images = draw_pixels(ORTH["img_size"])
    sizes = {key: sizes[key] for key in ("prompt_len = 20", "block_num = 12")}
    outside = run(authors, SCRIPTS[1], Encoder(encoder), images, sizes)["tiny"]
    torch.manual_seed(0)  # as their script does, so that these are its vectors
    bound = math.sqrt(6.0 / float(3 * 16**2 + ORTH["embed_dim"]))
    vectors = [
        torch.stack([torch.randn(ORTH["embed_dim"]).uniform_(-bound, bound) for _ in range(PROMPTS)])
        for _ in range(BLOCKS)
    ]
    tensors = {"pixels": pixels, "vectors": torch.stack(vectors), "outside": outside}
    tensors |= {f"weights/{name}": tensor for name, tensor in encoder.state_dict().items()}
    authors.save("vipamin_orth", tensors, files=files)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
