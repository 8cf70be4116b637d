"""A grid of heads in one pass against the same points one by one: 10 learning rates x 4 weight decays x 5 seeds.

    python benchmarks/grid.py                     both parts
    python benchmarks/grid.py --parts sharing     what several configurations of prompts in one batch could win

800 training and 200 validation images as in VTAB-1k, features cached for both forms. One by one is measured on a few
points of the grid and extrapolated to all 200: every point does the same work. Epochs are fewer than the protocol's
100, in both forms; their cost is the same from first to last. Learning rates are the paper's by 100, so that no point
diverges on images of noise, where one by one would end early.

Configurations of deep prompts have nothing in common behind the first block, so k of them in one batch are a step with
k times as many rows: what that could win is what an image costs less in a larger batch, and that is measured.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch

from attention import step
from measure import paired, shown, spread
from report import write
from vpt import TunedModel, attach, load_backbone
from vpt.core import environment
from vpt.training import Examples, Recipe, train, train_grid

RATES = (50.0, 25.0, 10.0, 5.0, 2.5, 1.0, 0.5, 0.25, 0.1, 0.05)  # paper, appendix A
DECAYS = (0.01, 0.001, 0.0001, 0.0)
SEEDS = range(5)
BATCHES = (8, 16, 32, 64, 128)
# method, width of the feature, classes, batch
ROWS = (
    ("linear", 192, 10, 64),
    ("linear", 768, 10, 64),
    ("linear", 768, 100, 64),
    ("mlp(layers=2)", 192, 10, 64),
)


def one_by_one(model: TunedModel, data: Examples, val: Examples, recipes: list[Recipe], cache: Path) -> None:
    for recipe in recipes:
        model.head.load_state_dict(model.new_head().state_dict())
        train(model, data, recipe, validation=val, cache=cache)


def row(method: str, width: int, classes: int, batch: int, options: argparse.Namespace, cache: Path) -> dict[str, Any]:
    """Seconds of the whole grid in both forms."""
    tiny = {"img_size": 16, "embed_dim": width, "depth": 1, "num_heads": 3, "num_classes": 0}
    model = attach(load_backbone(timm.create_model("vit_base_patch16_224", **tiny)), method, classes)
    rng = np.random.default_rng(0)
    data, val = (
        Examples(rng.integers(0, 256, (n, 3, 16, 16), np.uint8), rng.integers(0, classes, n)) for n in (800, 200)
    )
    base = Recipe(optimizer="sgd", epochs=options.epochs, warmup_epochs=options.epochs / 10, batch_size=batch)
    grid = [
        Recipe(**{**base.as_dict(), "learning_rate": rate / 100, "weight_decay": decay, "seed": seed})
        for seed, rate, decay in product(SEEDS, RATES, DECAYS)
    ]
    sample = random.Random(0).sample(grid, options.points)
    forms = {
        "at once": partial(train_grid, model, data, grid, validation=val, cache=cache),
        "one by one": partial(one_by_one, model, data, val, sample, cache),
    }
    seconds = paired(forms, options.rounds)
    alone = [value * len(grid) / len(sample) for value in seconds["one by one"]]
    return {
        "method": method, "width": width, "classes": classes, "batch": batch, "points": len(grid),
        "measured_one_by_one": len(sample), "at_once": spread(seconds["at once"]), "one_by_one": spread(alone),
        "faster": spread([a / b for a, b in zip(alone, seconds["at once"], strict=True)]),
    }  # fmt: skip


def grid(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Heads on cached features, all points at once."""
    rows = []
    with tempfile.TemporaryDirectory() as cache:
        for setting in ROWS:
            rows.append(row(*setting, options, Path(cache)))
            print(rows[-1], flush=True)
    lines = [
        f"**A grid of heads**: {rows[0]['points']} points, 800 + 200 images, {options.epochs} epochs; one by one is "
        f"extrapolated from {options.points} points; median and quartiles of {options.rounds} rounds.",
        "",
        "| head | width | classes | batch | one by one, s | at once, s | times faster |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for found in rows:
        setting = " | ".join(str(found[key]) for key in ("method", "width", "classes", "batch"))
        alone, once = found["one_by_one"]["median"], found["at_once"]["median"]
        lines.append(f"| {setting} | {alone:.1f} | {once:.2f} | {shown(found['faster'], 1)} |")
    return {"rows": rows}, "\n".join(lines)


def sharing(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Seconds per image of a training step of deep prompts, by batch."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    model = attach(timm.create_model("vit_tiny_patch16_224", num_classes=0), "vpt(dropout=0)", 10).to(device)
    todo = {
        str(size): step(model, torch.randn(size, 3, 224, 224, device=device), torch.arange(size, device=device) % 10)
        for size in BATCHES
    }
    seconds = paired(todo, options.rounds, device)
    alone = str(BATCHES[0])
    wins = {
        size: spread([a / BATCHES[0] * int(size) / b for a, b in zip(seconds[alone], values, strict=True)])
        for size, values in seconds.items()
    }
    columns = [f"{size} ({int(size) // BATCHES[0]})" for size in wins]
    lines = [
        f"**Several configurations in one batch**: how many times less an image costs than in a batch of {alone}, a "
        f"training step of ten deep prompts, ViT-Ti/16; median and quartiles of {options.rounds} rounds.",
        "",
        f"| images in a step (configurations of {alone}) | {' | '.join(columns)} |",
        f"|---|{'---:|' * len(columns)}",
        f"| times less | {' | '.join(shown(figure) for figure in wins.values())} |",
    ]
    return {"seconds": {size: spread(values) for size, values in seconds.items()}, "wins": wins}, "\n".join(lines)


PARTS = {"grid": grid, "sharing": sharing}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--points", type=int, default=3, help="measured one by one")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    environment.keep_freed_memory()
    for part in options.parts:
        figures, table = PARTS[part](options)
        command = f"python benchmarks/grid.py --parts {part} --rounds {options.rounds}"
        if part == "grid":
            command += f" --epochs {options.epochs} --points {options.points}"
        write("grid", part, figures, command, table)
        print(f"{table}\n", flush=True)


if __name__ == "__main__":
    main()
