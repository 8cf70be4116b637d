"""The figure of the README: cost of deep prompts by their number, and accuracy on four sets.

    python benchmarks/readme_figure.py              draw docs/readme-figure.svg from the records in results/
    python benchmarks/readme_figure.py --measure    measure the cost first (some minutes of a quiet core)

The cost is that of a forward pass of ViT-S/16, 224 px, fp32, relative to timm's frozen forward. All variants run in one
process, in turns, every second round backward; ratios are taken within a round, of the process's processor time.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl
import timm
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from measure import CLOCKS, format_quartiles, summarize, time_paired
from report import RESULTS_DIR, write_section
from variants import VIT, make_inference, make_variant
from vpt.plots import style

LENGTHS = (0, 10, 50, 100, 150, 200)
VARIANTS = {"plain": "textbook, plain attention", "fused": "textbook, fused attention", "vpt": "vpt"}
STYLES = {
    "plain": {"color": style.GRAY, "marker": "D", "linestyle": "--"},
    "fused": {"color": style.INK, "marker": "s", "linestyle": ":"},
    "vpt": {"color": style.BLUE, "marker": "o", "linestyle": "-"},
}
ROWS = {
    "linear": "linear probe",
    'vpt(depth="shallow", dropout=0)': "VPT-shallow",
    "vpt(dropout=0)": "VPT-deep",
    "full": "full fine-tuning",
}
SETS = {"signdigits": "sign digits", "rsscn7": "RSSCN7", "dtd10": "DTD-10", "caltech101": "Caltech-101"}
FIGURE = Path(__file__).parents[1] / "docs" / "readme-figure.svg"


def measure_cost(batch: int, rounds: int) -> None:
    """Measure every variant at every number of prompts, and write the record."""
    model = timm.create_model(VIT, num_classes=0).eval()
    images = torch.randn(batch, 3, 224, 224)
    variants = {}
    for length in LENGTHS:
        if length == 100:  # in the middle of a round, so that neither end of it favors the reference
            variants["frozen"] = make_inference(make_variant("frozen", 0, model), images)
        for variant in VARIANTS:
            network = make_variant("linear" if variant == "vpt" and not length else variant, length, model)
            variants[f"{variant} {length}"] = make_inference(network, images)
    values = summarize(time_paired(variants, rounds, clock=CLOCKS["cpu"]), "frozen")
    rows = [
        f"| {name} | "
        + " | ".join(format_quartiles(values[f"{variant} {length}"]["times_reference"]) for length in LENGTHS)
        + " |"
        for variant, name in VARIANTS.items()
    ]
    table = "\n".join(
        [
            f"**Inference by number of deep prompts**, ViT-S/16, batch {batch}, fp32: times the frozen timm forward; "
            f"median and quartiles of {rounds} rounds, in processor time.",
            "",
            f"| prompts per block | {' | '.join(map(str, LENGTHS))} |",
            f"|---|{'---:|' * len(LENGTHS)}",
            *rows,
        ]
    )
    command = f"python benchmarks/readme_figure.py --measure --batch {batch} --rounds {rounds}"
    write_section("readme_figure", "cost", values, command, table)


def draw_cost(axes: Axes, values: dict[str, Any]) -> None:
    """Draw the cost by number of prompts; the band is from the lower to the upper quartile."""
    for variant, name in VARIANTS.items():
        look = STYLES[variant]
        points = [values[f"{variant} {length}"]["times_reference"] for length in LENGTHS]
        axes.plot(LENGTHS, [p["median"] for p in points], **look, markersize=4, label=name)
        low, high = ([point[end] for point in points] for end in ("low", "high"))
        axes.fill_between(LENGTHS, low, high, color=look["color"], alpha=0.2)
    axes.axhline(1, color=style.INK, linewidth=0.8)
    axes.text(200, 0.95, "frozen backbone", ha="right", va="top", fontsize=8, color=style.INK)
    axes.set(xlabel="prompts per block", ylabel="cost of a forward pass (frozen = 1)", ylim=(0, None))
    axes.set_title("Deep prompts at the cost of the frozen backbone", fontsize=10)
    axes.legend(frameon=False, fontsize=8, loc="upper left")


def draw_accuracy(axes: Axes, runs: list[dict[str, Any]]) -> None:
    """Draw mean and standard deviation of the top-1 on each set, as dots: the axis does not begin at 0."""
    styles, width = style.method_styles({name: row for row, name in ROWS.items()}), 0.7 / len(ROWS)
    for column, (row, name) in enumerate(ROWS.items()):
        ours = [run for run in runs if run["row"] == row]
        found = [[100 * run["result"]["top1"] for run in ours if run["task"] == task] for task in SETS]
        places = [place + (column - (len(ROWS) - 1) / 2) * width for place in range(len(SETS))]
        means, spreads = list(map(statistics.mean, found)), list(map(statistics.stdev, found))
        look = {**styles[name], "linestyle": "none"}
        axes.errorbar(places, means, spreads, **look, markersize=6, capsize=2, elinewidth=0.8, label=name)
        for x, mean in zip(places, means, strict=True):
            axes.text(x, 70.3, f"{mean:.1f}", ha="center", va="bottom", fontsize=7, rotation=90)
    axes.set(ylim=(70, 101), xlim=(-0.5, len(SETS) - 0.5), ylabel="test top-1, %, mean ± sd, n = 3 seeds")
    axes.set_xticks(range(len(SETS)), SETS.values())
    axes.grid(axis="y", color=style.RULE)
    axes.set_title("DeiT-Tiny, 800 to 1,000 labeled images a set", fontsize=10)
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 0.14))


def draw() -> None:
    """Draw both panels from the stored records."""
    cost = json.loads((RESULTS_DIR / "readme_figure.json").read_text(encoding="utf-8"))["cost"]["values"]
    runs = json.loads((RESULTS_DIR / "accuracy.json").read_text(encoding="utf-8"))["runs"]
    with mpl.rc_context({"svg.hashsalt": "vpt", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(9.6, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        draw_cost(left, cost)
        draw_accuracy(right, runs)
        figure.savefig(FIGURE, metadata={"Date": None}, facecolor="white")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="measure the cost anew")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    if options.measure:
        measure_cost(options.batch, options.rounds)
    draw()


if __name__ == "__main__":
    main()
