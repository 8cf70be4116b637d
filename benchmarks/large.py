"""Large backbones: what it costs to compute activations again, and to hold frozen weights in bf16.

    python benchmarks/large.py                             ViT-H/14 and DINOv2-g, some ten minutes of two quiet cores

Random weights, ten deep prompts. Times are of one process, in turns; memory is of a process for each form.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import torch

from measure import format_quartiles, summarize, time_paired
from report import write_section
from variants import make_inference, make_step
from vpt import attach, load_backbone
from vpt.backbones.backbone import Backbone
from vpt.core import environment
from vpt.model.tuned_model import TunedModel

MODELS = ("vit_huge_patch14_224", "vit_giant_patch14_dinov2")
PRECISION = {"fp32": torch.float32, "bf16": torch.bfloat16}
VARIANTS = {"as it is": ("fp32", False), "recomputed": ("fp32", True), "bf16": ("bf16", False)}
CLASSES, SIZE = 10, 224


def make_backbone(name: str, precision: str) -> Backbone:
    return load_backbone(name, image_size=SIZE, pretrained=False, dtype=PRECISION[precision])


def make_tuned(frozen: Backbone, recompute_activations: bool) -> TunedModel:
    torch.manual_seed(0)
    return attach(frozen, "vpt(dropout=0)", CLASSES, activation_checkpointing=recompute_activations)


def make_batch(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(size, 3, SIZE, SIZE), torch.arange(size) % CLASSES


def time_variants(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Of a training step in every form, and of a forward pass; the reference is the step as it is, in fp32."""
    loaded = {precision: make_backbone(name, precision) for precision in PRECISION}
    images, labels = make_batch(options.batch)
    variants: dict[str, Callable[[], object]] = {
        variant: make_step(make_tuned(loaded[precision], recompute_activations), images, labels)
        for variant, (precision, recompute_activations) in VARIANTS.items()
        if variant not in options.without
    }
    variants["forward"] = make_inference(make_tuned(loaded["fp32"], False), images)
    return summarize(time_paired(variants, options.rounds), "as it is")


def measure_peak_memory(name: str, variant: str, size: int, run_step: bool) -> None:
    """The inside of a process that measures memory: bytes, as JSON. Without a step, that of the weights alone."""
    precision, recompute_activations = VARIANTS[variant]
    model = make_tuned(make_backbone(name, precision), recompute_activations)
    weights = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    if not run_step:
        print(json.dumps({"weights": weights}))
        return
    cpu = torch.device("cpu")
    run = make_step(model, *make_batch(size))
    environment.reset_peak_memory(cpu)
    before = environment.peak_memory(cpu)
    run()
    print(json.dumps({"weights": weights, "above": environment.peak_memory(cpu) - before}))


def measure_model(name: str, options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    times, lines, figures = time_variants(name, options), [], {}
    for variant in VARIANTS:
        command = [sys.executable, __file__, "--peak", name, variant, "--batch", str(options.batch)]
        command += ["--without", *options.without]
        memory = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
        figures[variant] = {**memory, **times.get(variant, {})}
        ratio_text = format_quartiles(times[variant]["times_reference"]) if variant in times else "not measured"
        above = f"{memory['above'] / 1e9:.2f}" if "above" in memory else "not measured"
        lines.append(f"| {variant} | {ratio_text} | {memory['weights'] / 1e9:.2f} | {above} |")
    return {**figures, "forward": times["forward"]}, lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without", nargs="*", choices=list(VARIANTS), default=[], help="forms that are only weighed")
    parser.add_argument("--peak", nargs=2, metavar=("MODEL", "VARIANT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:  # what is freed goes back to the system, or a step could use what loading had
        measure_peak_memory(*options.peak, options.batch, options.peak[1] not in options.without)
        return
    environment.keep_freed_memory()
    for name in options.models:
        figures, rows = measure_model(name, options)
        lines = [
            f"**{name}**, ten deep prompts, {SIZE} px, batch {options.batch}: a training step, times that of the "
            f"form as it is ({figures['as it is']['seconds']['median']:.1f} s; a forward pass "
            f"{figures['forward']['seconds']['median']:.1f} s); median and quartiles of {options.rounds} rounds.",
            "",
            "| form | step | weights, GB | a step needs above them, GB |",
            "|---|---:|---:|---:|",
            *rows,
        ]
        command = f"python benchmarks/large.py --models {name} --batch {options.batch} --rounds {options.rounds}"
        command += f" --without {' '.join(options.without)}" if options.without else ""
        write_section("large", name, figures, command, "\n".join(lines))
        print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
