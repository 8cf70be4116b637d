"""What deep prompts cost: inference, a training step and memory, against the frozen forward and the textbook forms.

    python benchmarks/attention.py                      all parts, some twenty minutes of two quiet cores
    python benchmarks/attention.py --sections inference    --help names the others

ViT-S/16, 224 px, random weights (their values change no figure), fp32. All forms run in one process, in turns, each
second round backwards; ratios are taken within a round. Memory is measured in a process of its own for each form.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import timm
import torch

import counted
from measure import CLOCKS, format_quartiles, summarize, time_call, time_paired
from report import write_section
from variants import CLASSES, VIT, make_inference, make_step, make_variant, make_vit
from vpt import attach
from vpt.core import environment

LENGTHS = (1, 10, 50, 100, 200)
COMPARED_LENGTH = 200  # prompts at which the textbook forms run too: they take most of the time
SWIN = "swin_tiny_patch4_window7_224"
FAMILY = (  # the first is what the others are compared with
    "vpt(length=50, dropout=0)", "prefix(length=50, dropout=0)", "vpt(length=50, dropout=0, rank=8)",
    "vpt(length=50, dropout=0, fourier=0.5)", "vpt(length=50, dropout=0, attention=zero_init)",
    "cross(length=50, dropout=0)", "adaptive(length=50, dropout=0)", "gated(length=50, dropout=0)",
    "vpt(length=50, depth=shallow, dropout=0)", "linear", "head2toe",
    "adapter(position=post, init=houlsby, scale=channel, drop_path=0.1)", "lora(rank=32, targets=all)",
    "lora(rank=32, rank_dropout=0.5, targets=all)", "ssf", "bias", "full",
)  # fmt: skip
NAMES = {"plain": "textbook, plain attention", "fused": "textbook, fused attention", "vpt": "vpt", "linear": "linear"}


def time_by_length(kind: str, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Inference or training step of vpt at every length; the reference is the frozen forward."""
    model, images, labels = make_vit(options.batch)
    run = {"inference": make_inference, "step": partial(make_step, labels=labels)}[kind]
    variants: dict[str, Callable[[], object]] = {
        "frozen": make_inference(make_variant("frozen", 0, model), images),
        "0 (linear)": run(make_variant("linear", 0, model), images),
        **{str(length): run(make_variant("vpt", length, model), images) for length in LENGTHS},
    }
    if kind == "step":
        variants["50, dropout 0.1"] = run(make_variant("vpt", 50, model, dropout=0.1), images)
    figures = summarize(time_paired(variants, options.rounds, clock=CLOCKS[options.clock]), "frozen")
    what = {"inference": "Inference", "step": "A training step"}[kind]
    lines = [
        f"**{what}**, ViT-S/16, deep prompts, batch {options.batch}, fp32: times the frozen timm forward "
        f"({figures['frozen']['seconds']['median']:.2f} s); median and quartiles of {options.rounds} rounds.",
        "",
        f"| prompts per block | {' | '.join(name for name in figures if name != 'frozen')} |",
        f"|---|{'---:|' * (len(figures) - 1)}",
        "| vpt | "
        + " | ".join(format_quartiles(f["times_reference"]) for name, f in figures.items() if name != "frozen")
        + " |",
    ]
    return figures, "\n".join(lines)


def textbook(kind: str, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """How many times faster than the textbook forms vpt is."""
    model, images, labels = make_vit(options.batch)
    run = {"inference": make_inference, "step": partial(make_step, labels=labels)}[kind]
    variants = {
        variant: run(make_variant(variant, COMPARED_LENGTH, model), images) for variant in ("vpt", "fused", "plain")
    }
    figures = summarize(time_paired(variants, options.rounds, clock=CLOCKS[options.clock]), "vpt")
    what = {"inference": "inference", "step": "a training step"}[kind]
    faster = "; ".join(
        f"{format_quartiles(figures[variant]['times_reference'])} times faster than {NAMES[variant]}"
        for variant in ("fused", "plain")
    )
    text = (
        f"**Against the textbook**, ViT-S/16, {COMPARED_LENGTH} deep prompts, batch {options.batch}, fp32, {what}: "
        f"{faster}; median and quartiles of {options.rounds} rounds."
    )
    return figures, text


def family(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Inference and a training step of prompt methods and others; the reference is vpt with 50 prompts."""
    model, images, labels = make_vit(options.batch)
    figures, rows = dict[str, Any](), dict[str, list[str]]()
    for kind, make in (("inference", make_inference), ("step", partial(make_step, labels=labels))):
        variants = {spec: make(attach(model, spec, CLASSES), images) for spec in FAMILY}
        figures[kind] = summarize(time_paired(variants, options.rounds, clock=CLOCKS[options.clock]), FAMILY[0])
        for spec, figure in figures[kind].items():
            rows.setdefault(spec, []).append(format_quartiles(figure["times_reference"]))
    lines = [
        f"**Methods**, ViT-S/16, batch {options.batch}, fp32: times `{FAMILY[0]}`; median and quartiles of "
        f"{options.rounds} rounds.",
        "",
        "| method | inference | training step |",
        "|---|---:|---:|",
        *(f"| `{spec}` | {' | '.join(cells)} |" for spec, cells in rows.items()),
    ]
    return figures, "\n".join(lines)


def bf16(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """A training step in bf16 with fused attention and without, as vpt trains; the reference is fp32."""
    _, images, labels = make_vit(options.batch)
    figures, rows, before = dict[str, Any](), list[str](), timm.layers.use_fused_attn()
    for spec in ("vpt(length=50, dropout=0)", "lora(rank=32, targets=all)", "full"):
        variants = {}
        for name, precision, fused in (("fp32", "fp32", True), ("bf16", "bf16", True), ("apart", "bf16", False)):
            timm.layers.set_fused_attn(fused)
            network = attach(timm.create_model(VIT, num_classes=0), spec, CLASSES)
            variants[name] = make_step(network, images, labels, precision)
        figures[spec] = summarize(time_paired(variants, options.rounds, clock=CLOCKS[options.clock]), "fp32")
        cells = [format_quartiles(figures[spec][name]["times_reference"]) for name in ("bf16", "apart")]
        rows.append(f"| `{spec}` | {' | '.join(cells)} |")
    timm.layers.set_fused_attn(before)
    lines = [
        f"**bf16 on a CPU**, ViT-S/16, batch {options.batch}: a training step, times that in fp32; median and "
        f"quartiles of {options.rounds} rounds.",
        "",
        "| method | bf16 | bf16, `TIMM_FUSED_ATTN=0` |",
        "|---|---:|---:|",
        *rows,
    ]
    return figures, "\n".join(lines)


def swin(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Swin-T with 50 deep prompts in every window."""
    model = timm.create_model(SWIN, num_classes=0).eval()
    images = torch.randn(options.batch, 3, 224, 224)
    variants = {variant: make_inference(make_variant(variant, 50, model), images) for variant in ("frozen", "vpt")}
    figures = summarize(time_paired(variants, 2 * options.rounds, clock=CLOCKS[options.clock]), "frozen")
    text = (
        f"**Swin-T**, 50 deep prompts, batch {options.batch}, inference: "
        f"{format_quartiles(figures['vpt']['times_reference'])} times the frozen timm forward "
        f"({figures['frozen']['seconds']['median']:.2f} s); median and quartiles of {2 * options.rounds} rounds."
    )
    return figures, text


def memory(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Peak memory of a training step, each form in a process of its own."""
    figures: dict[str, Any] = {}
    compared = [(variant, length) for length in (50, COMPARED_LENGTH) for variant in ("vpt", "fused", "plain")]
    for variant, length in [("frozen", 0), ("linear", 0), *compared]:
        command = [sys.executable, __file__, "--peak", variant, str(length), "--batch", str(options.batch)]
        done = subprocess.run(command, capture_output=True, check=True, text=True)
        figures[f"{variant} {length}"] = json.loads(done.stdout)
    lines = [
        f"**Peak memory** of two training steps (`frozen`: of a forward pass), ViT-S/16, batch {options.batch}, fp32, "
        "in MB: of the process, and above what it held with the model loaded; one process each.",
        "",
        "| form | prompts per block | process | above the model | of textbook, fused | of textbook, plain |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, figure in figures.items():
        variant, length = name.split()
        shares = ["", ""]
        if variant == "vpt":
            shares = [f"{figure['above'] / figures[f'{other} {length}']['above']:.2f} "
                      f"({figure['process'] / figures[f'{other} {length}']['process']:.2f})"
                      for other in ("fused", "plain")]  # fmt: skip
        sizes = [f"{figure[key] / 1e6:,.0f}" for key in ("process", "above")]
        lines.append(f"| {NAMES.get(variant, variant)} | {length or ''} | {' | '.join([*sizes, *shares])} |")
    lines += ["", "Shares are of what stands above the model; in brackets, of the whole process."]
    return figures, "\n".join(lines)


def measure_peak_memory(variant: str, length: int, batch: int) -> None:
    """The inside of a process that measures memory: bytes, as JSON."""
    model, images, labels = make_vit(batch)
    network = make_variant(variant, length, model)
    run = make_inference(network, images) if variant == "frozen" else make_step(network, images, labels)
    cpu = torch.device("cpu")
    environment.reset_peak_memory(cpu)
    before = environment.peak_memory(cpu)
    run()
    run()
    process = environment.peak_memory(cpu)
    print(json.dumps({"process": process, "above": process - before}))


def profile(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Where a step's time goes, and how near its matrix products are to what the machine can do."""
    model, images, labels = make_vit(options.batch)
    kinds = {
        "matrix products": ("aten::addmm", "aten::mm", "aten::bmm", "aten::mkldnn_convolution", "aten::baddbmm"),
        "attention": (
            "aten::_scaled_dot_product_flash_attention_for_cpu",
            "aten::_scaled_dot_product_flash_attention_for_cpu_backward",
        ),
        "GELU": ("aten::gelu", "aten::gelu_backward"),
        "LayerNorm": ("aten::native_layer_norm", "aten::native_layer_norm_backward"),
        "copies": ("aten::copy_", "aten::cat", "aten::fill_", "aten::constant_pad_nd"),
    }
    figures: dict[str, Any] = {"ceiling": _peak_rates()}
    for name, variant, length in (("frozen", "frozen", 0), ("vpt, p = 50", "vpt", 50), ("vpt, p = 200", "vpt", 200)):
        network = make_variant(variant, length, model)
        run = make_inference(network, images) if variant == "frozen" else make_step(network, images, labels)
        run()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            run()
        times = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
        total = sum(times.values())
        shares = {kind: sum(times.get(key, 0) for key in keys) / total for kind, keys in kinds.items()}
        figures[name] = {**shares, "all else": 1 - sum(shares.values()), "seconds": total / 1e6}
    rows = [*kinds, "all else"]
    runs = [name for name in figures if name != "ceiling"]
    lines = [
        f"**Where the time goes**: share of operations, ViT-S/16, batch {options.batch} "
        "(frozen: a forward pass; the others: a training step).",
        "",
        f"| | {' | '.join(runs)} |",
        f"|---|{'---:|' * len(runs)}",
        *(f"| {row} | {' | '.join(f'{100 * figures[name][row]:.1f} %' for name in runs)} |" for row in rows),
        "",
        f"The machine's ceilings, measured: {figures['ceiling']['products'] / 1e9:.0f} GFLOP/s in the products of an "
        f"MLP layer, {figures['ceiling']['bytes'] / 1e9:.1f} GB/s in copying. "
        f"{_describe_flop_limit(options.batch, figures)}",
    ]
    return figures, "\n".join(lines)


def _peak_rates() -> dict[str, float]:
    """Operations per second in the largest product of a block, and bytes per second read and written in a copy."""
    x, w, out = torch.randn(16 * 197, 384), torch.randn(384, 1536), torch.empty(16 * 197, 1536)
    source, target = torch.zeros(2**26), torch.zeros(2**26)
    product = min(time_call(partial(torch.mm, x, w, out=out)) for _ in range(20))
    copied = min(time_call(partial(target.copy_, source)) for _ in range(5))
    return {"products": 2 * x.numel() * 1536 / product, "bytes": 2 * source.nbytes / copied}


def _describe_flop_limit(batch: int, figures: dict[str, Any]) -> str:
    """The frozen forward and the step in operations, counted by hand, and the time they would take at the ceiling."""
    shape = (197, 384, 12, 16)  # of ViT-S/16 at 224 px
    frozen = counted.forward(*shape, batch)
    lines = []
    for length in (50, 200):
        step_flops = counted.step(*shape, length, batch)
        seconds = step_flops / figures["ceiling"]["products"]
        measured = figures[f"vpt, p = {length}"]["seconds"]
        lines.append(
            f"a step with p = {length} is {step_flops / 1e9:.0f} GFLOP ({step_flops / frozen:.2f} times frozen), at "
            f"the ceiling {seconds:.2f} s of the {measured:.2f} s measured"
        )
    return f"The frozen forward is {frozen / 1e9:.0f} GFLOP; {'; '.join(lines)}."


SECTIONS: dict[str, Callable[[argparse.Namespace], tuple[dict[str, Any], str]]] = {
    "inference": partial(time_by_length, "inference"),
    "step": partial(time_by_length, "step"),
    "textbook": partial(textbook, "step"),
    "textbook-inference": partial(textbook, "inference"),
    "memory": memory,
    "swin": swin,
    "family": family,
    "bf16": bf16,
    "profile": profile,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument(
        "--clock", choices=list(CLOCKS), default="wall", help="cpu: for a busy machine, with one thread"
    )
    parser.add_argument("--peak", nargs=2, metavar=("VARIANT", "LENGTH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    environment.keep_freed_memory()
    if options.peak:
        measure_peak_memory(options.peak[0], int(options.peak[1]), options.batch)
        return
    for section in options.sections:
        figures, table = SECTIONS[section](options)
        command = (
            f"python benchmarks/attention.py --sections {section} --batch {options.batch} --rounds {options.rounds}"
        )
        if options.clock == "cpu":
            command += " --clock cpu"
            table += "\n\nSeconds of the CPU on a busy machine, not of the clock."
        write_section("attention", section, figures, command, table)
        print(f"{table}\n", flush=True)


if __name__ == "__main__":
    main()
