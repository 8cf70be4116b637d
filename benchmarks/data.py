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

from measure import CLOCKS, once, paired, shown, spread
from report import write
from vpt import attach, load_backbone
from vpt.data.dataset import Split
from vpt.data.decode_cache import decode_once
from vpt.data.images import decode
from vpt.training import Examples, Feed


def drawn(folder: Path, count: int) -> Split:
    """Smooth colours with some noise, so that a JPEG is about as large as a photograph."""
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
    larger = replace(preprocessing, size=256)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        split = drawn(folder, options.images)
        kept = partial(decode_once, split, larger, folder=folder / "kept", spill=folder)
        first = once(kept, clock=clock)
        again = once(kept, clock=clock)
        cores = os.cpu_count() or 1
        threads = {n: once(partial(decode, split, larger, threads=n), clock=clock) for n in sorted({1, cores})}
        pixels = kept()
        feed = Feed(Examples(pixels.images, pixels.labels), preprocessing, torch.device("cpu"))
        chosen = np.random.default_rng(0).permutation(options.images)[: options.batch]
        model = attach(backbone, "vpt(length=10)", 10).train()

        def step() -> None:
            logits = model(feed.inputs(chosen))
            cross_entropy(logits, feed.targets(chosen)).backward()

        waits = {
            augment: partial(feed.inputs, chosen, augment, np.random.default_rng(1))
            for augment in ("none", "flip", "crop")
        }
        seconds = paired({"step": step, **waits}, options.rounds, clock=clock)
    figures = {
        "decode": {str(n): value for n, value in threads.items()}, "first": first, "again": again,
        "step": spread(seconds["step"]),
        "share": {a: spread([w / s for w, s in zip(seconds[a], seconds["step"], strict=True)]) for a in waits},
    }  # fmt: skip
    lines = [
        f"**Data**: {options.images} JPEG files of 500 x 375 px, decoded and fitted to 256 px in "
        + ", ".join(f"{value:.1f} s with {n} threads" for n, value in threads.items())
        + f"; into the cache {first:.1f} s, and from it {again:.2f} s.",
        "",
        f"| augmentation | share of a step that waits (ViT-Ti/16, 10 prompts, batch {options.batch}) |",
        "|---|---:|",
        *(
            f"| {name} | {shown({key: 100 * share[key] for key in ('median', 'low', 'high')})} % |"
            for name, share in figures["share"].items()
        ),
    ]
    table = "\n".join(lines)
    command = f"python benchmarks/data.py --images {options.images} --batch {options.batch} --rounds {options.rounds}"
    if options.clock == "cpu":
        command += " --clock cpu"
        table += "\n\nSeconds of the CPU on a busy machine, not of the clock."
    write("data", "data", figures, command, table)
    print(table)


if __name__ == "__main__":
    main()
