"""A grid of heads in one pass against the same points one by one: 10 learning rates x 4 weight decays x 5 seeds.

    python benchmarks/grid.py                     both parts
    python benchmarks/grid.py --sections sharing     what several configurations of prompts in one batch could win

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

from measure import format_quartiles, quartiles, time_paired
from report import write_section
from variants import make_step
from vpt import TunedModel, attach, load_backbone
from vpt.core import environment
from vpt.tasks.classification import ClassificationConfig, train
from vpt.training import Examples, TrainingConfig, train_head_grid

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


def train_one_by_one(
    model: TunedModel, data: Examples, val: Examples, configs: list[ClassificationConfig], cache: Path
) -> None:
    for config in configs:
        model.head.load_state_dict(model.new_head().state_dict())
        train(model, data, config, validation=val, cache=cache)


def measure_row(
    method: str, width: int, classes: int, batch: int, options: argparse.Namespace, cache: Path
) -> dict[str, Any]:
    """Seconds of the whole grid in both forms."""
    tiny = {"img_size": 16, "embed_dim": width, "depth": 1, "num_heads": 3, "num_classes": 0}
    model = attach(load_backbone(timm.create_model("vit_base_patch16_224", **tiny)), method, classes)
    rng = np.random.default_rng(0)
    data, val = (
        Examples(rng.integers(0, 256, (n, 3, 16, 16), np.uint8), rng.integers(0, classes, n)) for n in (800, 200)
    )
    training = TrainingConfig(optimizer="sgd", batch_size=batch)
    base = ClassificationConfig(training, epochs=options.epochs, warmup_epochs=options.epochs / 10)
    configs = [
        base.replace(learning_rate=rate / 100, weight_decay=decay, seed=seed)
        for seed, rate, decay in product(SEEDS, RATES, DECAYS)
    ]
    sample = random.Random(0).sample(configs, options.points)
    variants = {
        "at once": partial(train_head_grid, model, data, configs, validation=val, cache=cache),
        "one by one": partial(train_one_by_one, model, data, val, sample, cache),
    }
    seconds = time_paired(variants, options.rounds)
    sequential = [value * len(configs) / len(sample) for value in seconds["one by one"]]
    return {
        "method": method, "width": width, "classes": classes, "batch": batch, "points": len(configs),
        "measured_one_by_one": len(sample), "at_once": quartiles(seconds["at once"]),
        "one_by_one": quartiles(sequential),
        "faster": quartiles([a / b for a, b in zip(sequential, seconds["at once"], strict=True)]),
    }  # fmt: skip


def measure_grid(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Heads on cached features, all points at once."""
    results = []
    with tempfile.TemporaryDirectory() as cache:
        for setting in ROWS:
            results.append(measure_row(*setting, options, Path(cache)))
            print(results[-1], flush=True)
    lines = [
        f"**A grid of heads**: {results[0]['points']} points, 800 + 200 images, {options.epochs} epochs; one by one is "
        f"extrapolated from {options.points} points; median and quartiles of {options.rounds} rounds.",
        "",
        "| head | width | classes | batch | one by one, s | at once, s | times faster |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for result in results:
        setting = " | ".join(str(result[key]) for key in ("method", "width", "classes", "batch"))
        sequential, batched = result["one_by_one"]["median"], result["at_once"]["median"]
        lines.append(f"| {setting} | {sequential:.1f} | {batched:.2f} | {format_quartiles(result['faster'], 1)} |")
    return {"rows": results}, "\n".join(lines)


def batched_configs(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Seconds per image of a training step of deep prompts, by batch."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    model = attach(timm.create_model("vit_tiny_patch16_224", num_classes=0), "vpt(dropout=0)", 10).to(device)
    variants = {
        str(size): make_step(
            model, torch.randn(size, 3, 224, 224, device=device), torch.arange(size, device=device) % 10
        )
        for size in BATCHES
    }
    seconds = time_paired(variants, options.rounds, device)
    smallest = str(BATCHES[0])
    speedups = {
        size: quartiles([a / BATCHES[0] * int(size) / b for a, b in zip(seconds[smallest], values, strict=True)])
        for size, values in seconds.items()
    }
    columns = [f"{size} ({int(size) // BATCHES[0]})" for size in speedups]
    lines = [
        f"**Several configurations in one batch**: how many times less an image costs than in a batch of {smallest}, a "
        f"training step of ten deep prompts, ViT-Ti/16; median and quartiles of {options.rounds} rounds.",
        "",
        f"| images in a step (configurations of {smallest}) | {' | '.join(columns)} |",
        f"|---|{'---:|' * len(columns)}",
        f"| times less | {' | '.join(format_quartiles(figure) for figure in speedups.values())} |",
    ]
    return {"seconds": {size: quartiles(values) for size, values in seconds.items()}, "wins": speedups}, "\n".join(
        lines
    )


SECTIONS = {"grid": measure_grid, "sharing": batched_configs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--points", type=int, default=3, help="measured one by one")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    environment.keep_freed_memory()
    for section in options.sections:
        figures, table = SECTIONS[section](options)
        command = f"python benchmarks/grid.py --sections {section} --rounds {options.rounds}"
        if section == "grid":
            command += f" --epochs {options.epochs} --points {options.points}"
        write_section("grid", section, figures, command, table)
        print(f"{table}\n", flush=True)


if __name__ == "__main__":
    main()
