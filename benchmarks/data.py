"""How long a training step waits for data, and what it takes to have the images ready before the first one.

    python benchmarks/data.py

Drawn JPEG files of 500 x 375 px stand for a set of the size of VTAB-1k (1,000 images). The step is the shortest there
is reason to take: ViT-Ti/16 with 10 deep prompts.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from torch.nn.functional import cross_entropy

from measure import CLOCKS, format_quartiles, quartiles, time_call, time_paired
from report import write_section
from vpt import attach, load_backbone
from vpt.core.text import pluralize
from vpt.data.dataset import Split
from vpt.data.decoding.arrays import decode
from vpt.data.decoding.cache import decode_cached
from vpt.training import DeviceDataset, Examples


def draw_jpegs(folder: Path, count: int) -> Split:
    """Smooth colors with some noise, so that a JPEG is about as large as a photograph."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize(
            (500, 375), Image.Resampling.BICUBIC
        )
        pixels = np.asarray(coarse).astype(np.int16) + rng.integers(-12, 13, (375, 500, 3))
        paths.append(folder / f"{number}.jpg")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return Split(tuple(paths), np.arange(count) % 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--clock", choices=list(CLOCKS), default="wall", help="cpu: for a busy machine, with one thread"
    )
    options = parser.parse_args()
    clock = CLOCKS[options.clock]
    backbone = load_backbone(timm.create_model("vit_tiny_patch16_224", num_classes=0))
    preprocessing = replace(backbone.preprocessing, interpolation="bilinear", resize="squash")
    oversized = replace(preprocessing, size=256)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        split = draw_jpegs(folder, options.images)
        decode_to_cache = partial(decode_cached, split, oversized, cache_dir=folder / "kept", spill_dir=folder)
        first_seconds = time_call(decode_to_cache, clock=clock)
        cached_seconds = time_call(decode_to_cache, clock=clock)
        cores = os.cpu_count() or 1
        threads = {n: time_call(partial(decode, split, oversized, threads=n), clock=clock) for n in sorted({1, cores})}
        pixels = decode_to_cache()
        dataset = DeviceDataset(Examples(pixels.images, pixels.labels), preprocessing, torch.device("cpu"))
        batch_indices = np.random.default_rng(0).permutation(options.images)[: options.batch]
        model = attach(backbone, "vpt(length=10)", 10).train()

        def step() -> None:
            logits = model(dataset.inputs(batch_indices))
            cross_entropy(logits, dataset.targets(batch_indices)).backward()

        augmentations = {
            augment: partial(dataset.inputs, batch_indices, augment, np.random.default_rng(1))
            for augment in ("none", "flip", "random_crop")
        }
        seconds = time_paired({"step": step, **augmentations}, options.rounds, clock=clock)
    figures = {
        "decode": {str(n): value for n, value in threads.items()}, "first": first_seconds, "again": cached_seconds,
        "step": quartiles(seconds["step"]),
        "share": {
            a: quartiles([w / s for w, s in zip(seconds[a], seconds["step"], strict=True)]) for a in augmentations
        },
    }  # fmt: skip
    lines = [
        f"**Data**: {options.images} JPEG files of 500 x 375 px, decoded and fitted to 256 px in "
        + ", ".join(f"{value:.1f} s with {pluralize(n, 'thread')}" for n, value in threads.items())
        + f"; into the cache {first_seconds:.1f} s, and from it {cached_seconds:.2f} s.",
        "",
        f"| augmentation | share of a step that waits (ViT-Ti/16, 10 prompts, batch {options.batch}) |",
        "|---|---:|",
        *(
            f"| {name} | {format_quartiles({key: 100 * share[key] for key in ('median', 'low', 'high')})} % |"
            for name, share in figures["share"].items()
        ),
    ]
    table = "\n".join(lines)
    command = f"python benchmarks/data.py --images {options.images} --batch {options.batch} --rounds {options.rounds}"
    if options.clock == "cpu":
        command += " --clock cpu"
        table += "\n\nSeconds of the CPU on a busy machine, not of the clock."
    write_section("data", "data", figures, command, table)
    print(table)


if __name__ == "__main__":
    main()
