"""How the samples were made: a record, for the version that wrote them (vpt 0.1.0) and no other.

It uses that version's own API and command line, and is not meant to run on a later one:

    PYTHONPATH=src python tests/compatibility/make_samples.py tuned
    PYTHONPATH=src python tests/compatibility/make_samples.py runs

from the root of the repository, where 0.1.0 is checked out. `tuned` writes samples/tuned, `runs` writes samples/runs
and samples/bench.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tiny
import torch
from PIL import Image

import vpt
from vpt import TunedModel, attach, load_backbone, save

SAMPLES = Path(__file__).parent / "samples"
SIZE, CLASSES, SEED, STEP = 32, 3, 0, 8
_TINY: dict[str, Any] = {"img_size": SIZE, "patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2}
_MAPS: dict[str, Any] = {"depths": [1, 1, 1, 1]}

BACKBONES: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("vit_base_patch16_224", _TINY),
    "vit-avg": ("vit_base_patch16_224", {**_TINY, "global_pool": "avg", "fc_norm": True}),
    "dinov2-reg": ("vit_small_patch14_reg4_dinov2", _TINY),
    "dinov3": ("vit_small_patch16_dinov3", _TINY),
    "eva02": ("eva02_tiny_patch14_224", _TINY),
    "beit": ("beit_base_patch16_224", _TINY),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"img_size": SIZE, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2], "window_size": 4},
    ),
    "convnext": ("convnext_atto", {**_MAPS, "dims": [8, 8, 8, 16]}),
    "resnet": ("resnet10t", {"layers": [1, 1, 1, 1], "channels": [4, 4, 8, 8], "stem_width": 4, "stem_type": ""}),
}

# File -> backbone, method, dense head, storage.
FILES: dict[str, tuple[str, str, str | None, str]] = {
    "vpt_deep": ("vit", "vpt(length=3)", None, "fp32"),
    "vpt_deep_fp16": ("vit", "vpt(length=3)", None, "fp16"),
    "vpt_deep_textbook": ("vit", "vpt(length=3, form=textbook)", None, "fp32"),
    "vpt_deep_average": ("vit-avg", "vpt(length=3)", None, "fp32"),
    "vpt_deep_registers": ("dinov2-reg", "vpt(length=3)", None, "fp32"),
    "vpt_shallow": ("vit", "vpt(length=3, depth=shallow)", None, "fp32"),
    "vpt_shallow_rotary": ("eva02", "vpt(length=3, depth=shallow)", None, "fp32"),
    "vpt_shallow_dinov3": ("dinov3", "vpt(length=3, depth=shallow)", None, "fp32"),
    "vpt_blocks": ("vit", 'vpt(length=3, depth="2-3", dropout=0.25)', None, "fp32"),
    "vpt_add": ("vit", "vpt(location=add)", None, "fp32"),
    "vpt_add_1": ("vit", "vpt(location=add_1, depth=shallow)", None, "fp32"),
    "vpt_prepend_pixel": ("vit", "vpt(length=2, location=prepend_pixel, depth=shallow)", None, "fp32"),
    "vpt_concat_channel": ("vit", "vpt(length=2, location=concat_channel, depth=shallow)", None, "fp32"),
    "vpt_frame": ("vit", "vpt(length=2, location=pad, depth=shallow)", None, "fp32"),
    "vpt_frame_convnext": ("convnext", "vpt(length=2, location=pad, depth=shallow)", None, "fp32"),
    "vpt_output_cls": ("vit-avg", "vpt(length=3, output=cls)", None, "fp32"),
    "vpt_output_image_mean": ("vit", "vpt(length=3, output=image_mean)", None, "fp32"),
    "vpt_output_image_max": ("vit", "vpt(length=3, output=image_max)", None, "fp32"),
    "vpt_output_prompt_mean": ("vit", "vpt(length=3, output=prompt_mean)", None, "fp32"),
    "vpt_output_prompt_max": ("vit", "vpt(length=3, output=prompt_max, depth=shallow)", None, "fp32"),
    "vpt_output_global_mean": ("vit", "vpt(length=3, output=global_mean)", None, "fp32"),
    "vpt_output_global_max": ("vit", "vpt(length=3, output=global_max)", None, "fp32"),
    "vpt_share_blocks": ("vit", "vpt(length=3, share=blocks)", None, "fp32"),
    "vpt_share_prompts": ("vit", "vpt(length=3, share=prompts)", None, "fp32"),
    "vpt_share_all": ("vit", "vpt(length=3, share=all)", None, "fp32"),
    "vpt_projection": ("vit", "vpt(length=3, projection=5)", None, "fp32"),
    "vpt_fixed": ("vit", "vpt(length=3, fixed=true)", None, "fp32"),
    "vpt_prototypes": ("vit", "vpt(length=3, init=prototypes)", None, "fp32"),
    "vpt_swin_deep": ("swin", "vpt(length=3)", None, "fp32"),
    "vpt_swin_shallow": ("swin", "vpt(length=3, depth=shallow)", None, "fp32"),
    "vpt_swin_pooled": ("swin", "vpt(length=3, pooled=true)", None, "fp32"),
    "gated": ("vit", "gated(length=3, gate=0.3)", None, "fp32"),
    "gated_plain": ("vit", "gated(length=3, gate=0.3, temperature=false)", None, "fp32"),
    "class_token": ("vit", "class_token", None, "fp32"),
    "linear": ("vit", "linear", None, "fp32"),
    "linear_cls_image_mean": ("vit", "linear(output=cls_image_mean)", None, "fp32"),
    "linear_image_max": ("vit", "linear(output=image_max)", None, "fp32"),
    "mlp": ("vit", "mlp", None, "fp32"),
    "partial": ("vit", "partial(k=1)", None, "fp32"),
    "bias": ("vit", "bias", None, "fp32"),
    "bias_tables": ("beit", "bias(rel_pos_bias=true)", None, "fp32"),
    "norm": ("vit", "norm", None, "fp32"),
    "adapter": ("vit", "adapter(reduction=4)", None, "fp32"),
    "adapter_zero": ("vit", "adapter(reduction=4, init=zero)", None, "fp32"),
    "adaptformer": ("vit", "adaptformer(bottleneck=4, scale=0.5)", None, "fp32"),
    "lora": ("vit", "lora(rank=2)", None, "fp32"),
    "lora_all": ("vit", "lora(rank=2, alpha=4, targets=all)", None, "fp32"),
    "lora_mlp": ("vit", "lora(rank=2, targets=mlp)", None, "fp32"),
    "ssf": ("vit", "ssf", None, "fp32"),
    "ssf_convnext": ("convnext", "ssf", None, "fp32"),
    "sidetune": ("vit", f"sidetune(network={tiny.SIDE})", None, "fp32"),
    "full": ("vit", "full", None, "fp32"),
    "full_resnet": ("resnet", "full", None, "fp32"),
    "sum_vpt_bias": ("vit", "vpt(length=3) + bias", None, "fp32"),
    "sum_vpt_class_token": ("vit", "vpt(length=3) + class_token", None, "fp32"),
    "dense_linear": ("vit", "linear", "linear", "fp32"),
    "dense_linear_vpt": ("vit", "vpt(length=3)", "linear", "fp32"),
    "dense_setr_pup": ("vit", "vpt(length=3)", "setr_pup(channels=4)", "fp32"),
    "dense_setr_pup_auxiliary": ("vit", "vpt(length=2) + bias", "setr_pup(channels=4, auxiliary=1)", "fp32"),
    "dense_setr_pup_fp16": ("vit", "lora(rank=2)", "setr_pup(channels=4, dropout=0.1)", "fp16"),
    "dense_fpn_swin": ("swin", "vpt(length=3)", "fpn(channels=4)", "fp32"),
    "dense_fpn_convnext": ("convnext", "bias", "fpn(channels=4, dropout=0.1)", "fp32"),
}
NAMES = ("a dog", "Kätzchen", "犬")  # class names of every file but those without
NAMELESS = ("linear", "vpt_shallow")
NOISE = 0.05
# Larger, or a fresh head's small weights would make all logits, and their differences, small. Decoders amplify.
HEAD_NOISE, DECODER_NOISE = 0.5, 0.15


def tuned() -> None:
    """Write samples/tuned and its expected.json."""
    folder = SAMPLES / "tuned"
    shutil.rmtree(folder, ignore_errors=True)
    pixels = tiny.images(2, SIZE)
    files = {}
    for index, (name, (key, method, head, storage)) in enumerate(FILES.items()):
        architecture, options = BACKBONES[key]
        backbone = load_backbone(tiny.build(architecture, options, SEED))
        backbone = replace(backbone, preprocessing=replace(backbone.preprocessing, size=SIZE))
        torch.manual_seed(index)
        classes = None if name in NAMELESS else NAMES
        model = attach(backbone, method, CLASSES, classes=classes, head=head)
        model.begin_at(torch.randn(CLASSES, model.sites.width))  # has an effect on init=prototypes alone
        fresh = _logits(model, pixels)
        _perturb(model, index, HEAD_NOISE if head in (None, "linear") else DECODER_NOISE)
        path = folder / f"{name}.safetensors"
        more: dict[str, Any] = {}
        if name == "vpt_deep":
            more = {"scores": {"test_top1": 0.75}, "cut": {"seed": 3, "val_fraction": 0.2, "test_fraction": 0.25}}
        save(model, path, storage=storage, **more)  # type: ignore[arg-type]
        again = vpt.load(path, replace(backbone, module=tiny.build(architecture, options, SEED)))
        logits = _logits(again, pixels)
        if storage == "fp32":
            assert torch.allclose(logits, _logits(model, pixels), atol=1e-5), name
        change = float((logits - fresh).abs().max())
        assert torch.isfinite(logits).all() and change > 0.05, (name, change)
        silent = _silent(again, pixels, logits)
        print(f"{name:<28}{path.stat().st_size:>8} change {change:.3f}", f"no effect: {silent}" if silent else "")
        if head is not None:
            logits = logits[..., ::STEP, ::STEP]
        files[path.name] = {
            "backbone": {"key": key, "name": architecture, "options": options, "seed": SEED},
            "image_size": SIZE,
            "method": method,
            "head": head,
            "num_classes": CLASSES,
            "classes": classes,
            "storage": storage,
            "logits_shape": list(logits.shape),
            "logits": [round(value, 6) for value in logits.flatten().tolist()],
        }
    about = {"images": {"count": 2, "size": SIZE}, "dense_step": STEP, "tolerance": 1e-4}
    rows = ",\n".join(f" {json.dumps(name)}: {json.dumps(row, ensure_ascii=False)}" for name, row in files.items())
    text = json.dumps(about)[:-1] + ', "files": {\n' + rows + "\n}}\n"
    json.loads(text)
    (folder / "expected.json").write_text(text, encoding="utf-8")


@torch.inference_mode()
def _logits(model: TunedModel, pixels: torch.Tensor) -> torch.Tensor:
    return model.eval()(pixels).clone()


@torch.no_grad()
def _perturb(model: TunedModel, seed: int, head_noise: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.owned_state().items():
        if not tensor.is_floating_point():
            tensor += 5  # the counters of batch norm
            continue
        statistic = name.endswith(("running_mean", "running_var"))
        noise = head_noise if name.startswith("head.") and not statistic else NOISE
        tensor += noise * torch.randn(tensor.shape, generator=generator)


def _silent(model: TunedModel, pixels: torch.Tensor, logits: torch.Tensor) -> list[str]:
    """Tensors of the file whose loss would hardly show in the logits."""
    found = []
    for name, tensor in model.kept_state().items():
        if tensor.is_floating_point():
            before = tensor.detach().clone()
            with torch.no_grad():
                tensor.zero_()
                if float((_logits(model, pixels) - logits).abs().max()) < 1e-3:
                    found.append(name)
                tensor.copy_(before)
    return found


def runs() -> None:
    """Write samples/runs and samples/bench, with the commands that README.md tells."""
    for folder in (SAMPLES / "runs", SAMPLES / "bench"):
        for path in folder.glob("*"):
            if path.suffix != ".toml":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        folder.mkdir(parents=True, exist_ok=True)
    draw(SAMPLES / "runs" / "squares")
    for line in COMMANDS["runs"]:
        _command(line, SAMPLES / "runs")
    draw(SAMPLES / "bench" / "squares")
    for line in COMMANDS["bench"]:
        _command(line, SAMPLES / "bench")
    _tidy()


COMMANDS = {
    "runs": [
        ["tune", "numerals", "--method", "linear", "--epochs", "3", "--out", "numerals.safetensors"],
        ["tune", "squares", "--method", "vpt(length=2)", "--head", "linear", "--iterations", "8", "--interval", "4",
         "--batch-size", "2", "--out", "squares.safetensors"],
    ],
    "bench": [
        ["bench", "run", "plan.toml", "--out", "plan"],
        ["bench", "run", "squares.toml", "--out", "squares-plan"],
        ["ablate", "init", "numerals", "--method", "vpt(depth=shallow)", "--seeds", "2", "--epochs", "1",
         "--train-fraction", "0.2", "--out", "numerals-init"],
    ],
}  # fmt: skip


def _command(arguments: list[str], folder: Path) -> None:
    print("$ vpt", *arguments)
    subprocess.run([sys.executable, "-m", "vpt", *arguments], cwd=folder, check=True)


def draw(root: Path) -> None:
    """Light squares (class 1) on a dark ground (class 0): six images in train, two in test, 32 px a side."""
    generator = np.random.default_rng(0)
    for part, count in {"train": 6, "test": 2}.items():
        for kind in ("images", "masks"):
            (root / kind / part).mkdir(parents=True)
        for i in range(count):
            mask = np.zeros((32, 32), np.uint8)
            top, left = generator.integers(0, 18, 2)
            mask[top : top + 14, left : left + 14] = 1
            pixels = generator.integers(2, 7, (4, 4, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1) * 10
            pixels = pixels + 150 * mask[..., None]
            Image.fromarray(pixels).save(root / "images" / part / f"{i}.png")
            Image.fromarray(mask).save(root / "masks" / part / f"{i}.png")
    (root / "classes.txt").write_text("ground\nsquare\n")


def _tidy() -> None:
    """Leave out pictures, caches and checkpoints, and the place on this machine that a plan of folders records."""
    for folder in (SAMPLES / "runs", SAMPLES / "bench"):
        for path in sorted(folder.rglob("*")):
            if path.name == "checkpoint.safetensors" or (path.suffix == ".png" and "squares" not in path.parts):
                path.unlink()
        for name in ("features", "claims", "work"):
            for path in folder.glob(f"*/{name}"):
                shutil.rmtree(path)
    plan = SAMPLES / "bench" / "squares-plan" / "plan.json"
    plan.write_text(plan.read_text().replace(str((SAMPLES / "bench").resolve()) + "/", ""))


if __name__ == "__main__":
    assert vpt.__version__ == "0.1.0"
    {"tuned": tuned, "runs": runs}[sys.argv[1]]()
