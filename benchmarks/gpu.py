"""Everything of speed that needs a GPU, in under ten minutes: ViT-B/16, 224 px, random weights.

    python benchmarks/gpu.py              writes results/gpu.json and gpu.md
    python benchmarks/gpu.py --dry-run    every part on the CPU with a toy model: writes nothing, measures nothing

Without a GPU it says so and ends with exit code 3. The parts: ceilings of the card; a training step of VPT-deep with 50
prompts in several forms against the textbook; what full, linear, shallow and deep cost at several lengths; and the
hours of the whole VTAB-1k protocol, extrapolated from these. Parts that do not fit into --minutes are left out, and
named.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn

import counted
from measure import format_quartiles, quartiles, time_call
from report import write_section
from textbook import TextbookViT
from variants import make_inference, make_step
from vpt import attach, load_backbone
from vpt.training import DeviceDataset, Examples

NO_GPU = 3
CLASSES = 100
LENGTHS = (1, 10, 50, 100, 200)
# Test images of the 19 tasks, and the protocol (paper, section 4.1 and appendix A).
VTAB_TEST = 387_904
TASKS, GRID, SEEDS, EPOCHS = 19, 40, 5, 100


@dataclass(frozen=True)
class Setup:
    """What is measured on: the card and ViT-B/16, or in a dry run the CPU and a toy."""

    device: str
    model: nn.Module
    batches: tuple[int, ...]
    lengths: tuple[int, ...]
    repeats: int
    matrix_size: int  # side of the matrices that show the ceiling
    compile: bool
    deadline: float

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        return int(self.model.patch_embed.img_size[0])  # type: ignore[index, union-attr]


def make_setup(options: argparse.Namespace) -> Setup:
    deadline = time.monotonic() + 60 * options.minutes
    if options.dry_run:
        tiny = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2, "num_classes": 0}
        model = timm.create_model("vit_base_patch16_224", **tiny)
        return Setup("cpu", model.eval(), (2,), (1, 3), 2, 64, False, deadline)
    model = timm.create_model("vit_base_patch16_224", num_classes=0).eval().cuda()
    return Setup("cuda", model, (64, 256), LENGTHS, 10, 8192, True, deadline)


def time_quartiles(run: Callable[[], object], setup: Setup) -> dict[str, float]:
    """Seconds of a call: median and quartiles, after two calls to warm up."""
    run()
    run()
    return quartiles([time_call(run, setup.device) for _ in range(setup.repeats)])


def peak_memory(run: Callable[[], object], setup: Setup) -> int:
    """Bytes of the card at most in use during a call; 0 on a CPU."""
    if setup.device != "cuda":
        run()
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    run()
    return torch.cuda.max_memory_allocated()


def make_inputs(batch: int, setup: Setup) -> tuple[Tensor, Tensor]:
    images = torch.randn(batch, 3, setup.size, setup.size, device=setup.device)
    return images, torch.arange(batch, device=setup.device) % CLASSES


def peak_rates(setup: Setup) -> tuple[dict[str, Any], str]:
    """Operations per second of large products, and bytes per second of a copy."""
    figures: dict[str, Any] = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        left, right = (
            torch.randn(setup.matrix_size, setup.matrix_size, device=setup.device, dtype=dtype) for _ in "ab"
        )
        figures[name] = 2 * setup.matrix_size**3 / time_quartiles(partial(torch.mm, left, right), setup)["median"]
    source = torch.zeros(setup.matrix_size**2 * 4, device=setup.device)
    figures["bytes"] = 2 * source.nbytes / time_quartiles(source.clone, setup)["median"]
    return figures, (
        f"**Ceilings**, measured: {figures['bf16'] / 1e12:.1f} TFLOP/s in bf16, {figures['fp32'] / 1e12:.1f} in fp32 "
        f"(products of {setup.matrix_size} x {setup.matrix_size}), {figures['bytes'] / 1e12:.2f} TB/s in copying."
    )


def count_flops(setup: Setup, length: int, batch: int) -> float:
    """Operations of a training step of VPT-deep as vpt computes it: what identities save is not counted."""
    model: Any = setup.model
    embed = model.patch_embed
    return counted.step(embed.num_patches + 1, model.embed_dim, len(model.blocks), embed.patch_size[0], length, batch)


def compare_with_textbook(setup: Setup) -> tuple[dict[str, Any], str]:
    """VPT-deep with 50 prompts against the textbook: throughput, memory, share of the card's rate."""
    length = 50 if setup.device == "cuda" else 3
    rate = peak_rates(setup)[0]["bf16"]
    figures: dict[str, Any] = {}
    lines = [
        f"**VPT-deep, {length} prompts**, a training step; share: of the products' measured bf16 rate.",
        "",
        "| batch | form | images/s | share of the rate | peak memory, GB |",
        "|---:|---|---:|---:|---:|",
    ]
    for batch in setup.batches:
        images, labels = make_inputs(batch, setup)
        vpt = attach(setup.model, f"vpt(length={length}, dropout=0)", CLASSES)
        textbook = TextbookViT(copy.deepcopy(setup.model), length, CLASSES, fused=False).to(setup.device)
        variants: dict[str, tuple[nn.Module, str]] = {
            "vpt, bf16": (vpt, "bf16"),
            "textbook, bf16": (textbook, "bf16"),
            "textbook, fp32": (textbook, "fp32"),
        }
        if setup.compile:
            variants["vpt, bf16, compiled"] = (_compile_model(vpt, "default"), "bf16")
            variants["vpt, bf16, compiled, CUDA graphs"] = (_compile_model(vpt, "reduce-overhead"), "bf16")
        for name, (network, precision) in variants.items():
            if time.monotonic() > setup.deadline:
                lines.append(f"| {batch} | {name} | left out: no time | | |")
                continue
            try:
                run = make_step(network, images, labels, precision)
                seconds, memory = time_quartiles(run, setup), peak_memory(run, setup)
            except Exception as error:  # what the compiler or the card cannot do is a result too
                lines.append(f"| {batch} | {name} | {type(error).__name__} | | |")
                figures[f"{batch} {name}"] = {"error": str(error)}
                continue
            share = count_flops(setup, length, batch) / seconds["median"] / rate
            figures[f"{batch} {name}"] = {"seconds": seconds, "memory": memory, "share": share}
            share_text = f"{100 * share:.0f} %" if name.startswith("vpt") else ""
            lines.append(f"| {batch} | {name} | {batch / seconds['median']:,.0f} | {share_text} | {memory / 1e9:.1f} |")
        best = min(
            (f["seconds"]["median"] for n, f in figures.items() if n.startswith(f"{batch} vpt") and "seconds" in f),
            default=float("nan"),
        )
        for other in ("fp32", "bf16"):
            found = figures.get(f"{batch} textbook, {other}", {})
            if "seconds" in found:
                faster = found["seconds"]["median"] / best
                figures[f"{batch} faster than textbook {other}"] = faster
                lines.append(f"| {batch} | the best is faster than the textbook in {other} | {faster:.1f} times | | |")
    return figures, "\n".join(lines)


def _compile_model(network: nn.Module, mode: str) -> nn.Module:
    torch._dynamo.reset()
    return torch.compile(network, mode=mode)  # type: ignore[return-value]


def costs(setup: Setup) -> tuple[dict[str, Any], str]:
    """The paper's cost table: time per image and memory, of training and of inference."""
    batch = setup.batches[0]
    images, labels = make_inputs(batch, setup)
    specs = ["full", "linear"]
    specs += [f"vpt(length={p}, dropout=0, depth={depth})" for depth in ("shallow", "deep") for p in setup.lengths]
    figures: dict[str, Any] = {}
    lines = [
        f"**What it costs**, bf16, batch {batch}, per image; the linear probe without cached features.",
        "",
        "| method | training, ms | memory, GB | inference, ms | memory, GB |",
        "|---|---:|---:|---:|---:|",
    ]
    for spec in specs:
        if time.monotonic() > setup.deadline:
            lines.append(f"| {spec} | left out: no time | | | |")
            continue
        network = attach(setup.model, spec, CLASSES)
        cells = []
        kinds = {
            "training": partial(make_step, network, images, labels, "bf16"),
            "inference": partial(make_inference, network, images, "bf16"),
        }
        for kind, begin in kinds.items():
            run = begin()
            seconds, memory = time_quartiles(run, setup), peak_memory(run, setup)
            figures.setdefault(spec, {})[kind] = {"seconds": seconds, "memory": memory}
            scaled = {key: 1e3 * seconds[key] / batch for key in ("median", "low", "high")}
            cells += [format_quartiles(scaled, 3), f"{memory / 1e9:.2f}"]
        lines.append(f"| {spec} | {' | '.join(cells)} |")
    return figures, "\n".join(lines)


def protocol(setup: Setup) -> tuple[dict[str, Any], str]:
    """Hours of VTAB-1k for one method, and the share of a step that waits for data."""
    batch = setup.batches[0]
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (4 * batch, 3, setup.size, setup.size), np.uint8)
    backbone = load_backbone(setup.model)
    dataset = DeviceDataset(
        Examples(pixels, np.arange(len(pixels)) % CLASSES), backbone.preprocessing, torch.device(setup.device)
    )
    chosen = rng.permutation(len(pixels))[:batch]
    data_loading_seconds = time_quartiles(partial(dataset.inputs, chosen), setup)
    figures: dict[str, Any] = {"waits": data_loading_seconds}
    images, labels = make_inputs(batch, setup)
    lines = [
        "**The whole VTAB-1k protocol** for one method: 19 tasks, 40 settings on 800 images, 5 seeds on 1,000, "
        "100 epochs; validation in every epoch, one pass over the test sets per seed. Extrapolated from single steps.",
        "",
    ]
    trained_images = TASKS * EPOCHS * (GRID * 800 + SEEDS * 1000)
    evaluated_images = TASKS * EPOCHS * GRID * 200 + SEEDS * VTAB_TEST
    for spec in (f"vpt(length={p})" for p in setup.lengths if p in (3, 10, 50)):
        network = attach(setup.model, spec, CLASSES)
        step_seconds = time_quartiles(make_step(network, images, labels, "bf16"), setup)["median"]
        inference_seconds = time_quartiles(make_inference(network, images, "bf16"), setup)["median"]
        hours = (trained_images * step_seconds + evaluated_images * inference_seconds) / batch / 3600
        share = data_loading_seconds["median"] / (step_seconds + data_loading_seconds["median"])
        figures[spec] = {"step": step_seconds, "inference": inference_seconds, "hours": hours, "share_waiting": share}
        lines.append(f"- {spec}: {hours:.1f} hours on one card; {100 * share:.1f} % of a step waits for data.")
    return figures, "\n".join(lines)


SECTIONS: dict[str, Callable[[Setup], tuple[dict[str, Any], str]]] = {
    "ceilings": peak_rates,
    "deep": compare_with_textbook,
    "costs": costs,
    "protocol": protocol,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--minutes", type=float, default=9, help="begin nothing new after so long")
    parser.add_argument("--dry-run", action="store_true", help="a toy on the CPU; writes nothing")
    options = parser.parse_args()
    if not options.dry_run and not torch.cuda.is_available():
        print("no GPU here: nothing was measured (--dry-run tries the script on the CPU)", file=sys.stderr)
        return NO_GPU
    setup = make_setup(options)
    for section in options.sections:
        figures, table = SECTIONS[section](setup)
        if not options.dry_run:
            write_section("gpu", section, figures, f"python benchmarks/gpu.py --sections {section}", table)
        print(f"{table}\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
