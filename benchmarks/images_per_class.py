"""Accuracy against labeled images of each class: table, differences and the picture of the README.

    vpt bench run benchmarks/images_per_class.toml --out FOLDER --workers 2
    vpt bench run benchmarks/one_image_per_class.toml --out ONE --workers 2
    python benchmarks/images_per_class.py FOLDER ONE

    python benchmarks/prompt_family.py score FOLDER ONE --data DATA --answers ANSWERS
    python benchmarks/images_per_class.py FOLDER ONE --answers ANSWERS    with intervals over test images, too

Cells that are not complete are left out. With one image of each class no ridge head joins, so there a row of prompts
with such a head is that without it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from corruptions import bootstrap
from prompt_family import SETS, format_scores, read_answers
from report import BENCHMARKS_DIR, RESULTS_DIR, write_between_marks, write_section
from vpt.experiments.results import Cell, load_results
from vpt.experiments.significance import paired_interval
from vpt.experiments.store import Store
from vpt.plots import canvas, style

OURS = {  # with a ridge head -> name in a sentence, and the same method without, which stands for it at one image
    "VPT-deep + LoRA, with a ridge head": ("prompts + LoRA", "VPT-deep + LoRA"),
    "VPT-deep, p = 50, with a ridge head": ("prompts", "VPT-deep, p = 50"),
}
OTHERS = ("Full", "Full, with a ridge head", "LoRA", "ridge probe, all blocks")
LOOKS = {  # method -> name, color, marker
    "class token probe": ("linear probe", style.GRAY, "D"),
    "ridge probe, all blocks": ("ridge probe, all blocks", style.INK, "s"),
    "VPT-deep, p = 50": ("prompts", style.SKY, "^"),
    "VPT-deep, p = 50, with a ridge head": ("prompts, ridge head", style.BLUE, "o"),
    "VPT-deep + LoRA, with a ridge head": ("prompts + LoRA, ridge head", style.PURPLE, "*"),
    "LoRA": ("LoRA", style.GREEN, "v"),
    "Full": ("full fine-tuning", style.ORANGE, "P"),
    "Full, with a ridge head": ("full, ridge head", style.VERMILLION, "X"),
}
FIGURE = BENCHMARKS_DIR.parent / "docs" / "images-per-class.svg"
Key = tuple[str, int, str]  # set, images of each class, method


def read_cells(folders: Sequence[Path]) -> dict[Key, Cell]:
    """The cells of both plans that have all their runs."""
    found = {}
    for folder in folders:
        for cell in load_results(Store(folder)).cells.values():
            name, count = cell.task.name.rsplit("-", 1)
            if cell.complete and cell.scores:
                found[name, int(count), cell.method] = cell
    for name, count, method in list(found):
        for ours, (_, plain) in OURS.items():
            if count == 1 and method == plain:
                found[name, count, ours] = found[name, count, method]
    return {key: cell for key, cell in found.items() if key[2] in LOOKS}


def compare(cells: Mapping[Key, Cell], answers: Path | None) -> list[dict[str, Any]]:
    """Points of each of ours above each of the others, with a 95 % interval, paired."""
    right = {} if answers is None else read_answers({(str(key), ""): cell for key, cell in cells.items()}, answers)
    rows = []
    for (name, count, method), own in product(sorted(cells), OURS):
        ours, theirs = cells.get((name, count, own)), cells[name, count, method]
        if ours is None or method not in OTHERS:
            continue
        pair = [right.get((str((name, count, one)), "")) for one in (own, method)]
        if pair[0] is not None and pair[1] is not None:
            points, low, high = bootstrap(100 * (pair[0].astype(np.float64) - pair[1]))
        else:
            scores = [[100 * score for score in cell.scores] for cell in (ours, theirs)]
            points = statistics.fmean(scores[0]) - statistics.fmean(scores[1])
            low, high = paired_interval(*scores) or (points, points)
        over = "seeds" if pair[0] is None or pair[1] is None else "seeds and images"
        rows.append({"set": name, "images": count, "ours": own, "above": method, "points": points, "low": low,
                     "high": high, "over": over})  # fmt: skip
    return rows


def format_table(cells: Mapping[Key, Cell], differences: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a row for each method, and below our prompts' points above others."""
    columns = sorted({key[:2] for key in cells}, key=lambda key: (list(SETS).index(key[0]), key[1]))
    draws = {key[:2]: len(cell.scores) for key, cell in cells.items()}
    titles = [f"{SETS[name]}, {count} (n = {draws[name, count]})" for name, count in columns]
    lines = [
        "**Accuracy by labeled images of each class**, DeiT-Tiny: test top-1 in %, mean ± standard deviation of n "
        "draws of the training images. Rates are chosen on val once for each set, at five images; that of VPT-deep + "
        "LoRA is one for both sets, tried once on val at 20 images. With one image of each class the penalty of the "
        "ridge probe is fixed, and no ridge head joins a trained one.",
        "",
        f"| method | {' | '.join(titles)} |",
        f"|---|{'---:|' * len(columns)}",
    ]
    for method in LOOKS:
        found = [cells.get((*column, method)) for column in columns]
        if any(found):
            texts = [format_scores([100 * score for score in cell.scores]) if cell else "–" for cell in found]
            lines.append(f"| {method} | {' | '.join(texts)} |")
    kinds = " or ".join(sorted({str(row["over"]) for row in differences}))
    for own, method in product(OURS, OTHERS):
        pairs = {
            (row["set"], row["images"]): row for row in differences if (row["ours"], row["above"]) == (own, method)
        }
        texts = [
            f"{row['points']:+.1f} ({row['low']:+.1f} to {row['high']:+.1f})" if (row := pairs.get(column)) else "–"
            for column in columns
        ]
        if pairs:
            lines.append(f"| {OURS[own][0]}, with a ridge head, above {method} | {' | '.join(texts)} |")
    return "\n".join([*lines, "", f"In brackets: 95 % intervals, paired over {kinds}."])


def draw(cells: Mapping[Key, Cell]) -> None:
    """A panel for each set: a line for each method, with the standard deviation over draws."""
    names = [name for name in SETS if any(key[0] == name for key in cells)]
    with mpl.rc_context({"svg.hashsalt": "vpt", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = make_figure(cells, names)
        figure.savefig(FIGURE, metadata={"Date": None}, facecolor="white")


def make_figure(cells: Mapping[Key, Cell], names: Sequence[str]) -> Figure:
    """Return the figure."""
    figure = canvas.make_figure(4.2 * len(names) + 1.6, 3.4)
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        counts = sorted({key[1] for key in cells if key[0] == name})
        for number, (method, (label, color, marker)) in enumerate(LOOKS.items()):
            shown = [count for count in counts if (name, count, method) in cells]
            scores = [[100 * score for score in cells[name, count, method].scores] for count in shown]
            means = [statistics.fmean(one) for one in scores]
            spread = [statistics.stdev(one) if len(one) > 1 else 0.0 for one in scores]
            places = [
                count * 1.03 ** (number - len(LOOKS) / 2) for count in shown
            ]  # so that bars do not hide each other
            axes.errorbar(places, means, yerr=spread, color=color, marker=marker, label=label, capsize=2, linewidth=1.2)
        axes.set_xscale("log")
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.minorticks_off()
        axes.set_xlabel("labeled images of each class")
        axes.set_title(SETS[name])
    panels[0].set_ylabel("test top-1, %")
    panels[-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of the runs of both plans")
    parser.add_argument("--answers", type=Path, help="folder of the answers that prompt_family.py stored")
    options = parser.parse_args()
    cells = read_cells(options.runs)
    differences = compare(cells, options.answers)
    if not differences:
        sys.exit(f"{', '.join(map(str, options.runs))}: no cell of prompts and of another method is complete")
    table = format_table(cells, differences)
    scores = [
        {"set": name, "images": count, "method": method, "top1": [100 * score for score in cell.scores]}
        for (name, count, method), cell in sorted(cells.items())
    ]
    command = "python benchmarks/images_per_class.py FOLDER ONE" + (" --answers ANSWERS" if options.answers else "")
    write_section("images_per_class", "accuracy", {"scores": scores, "differences": differences}, command, table)
    text = (RESULTS_DIR / "images_per_class.md").read_text(encoding="utf-8").rstrip()
    write_between_marks(BENCHMARKS_DIR.parent / "README.md", "images_per_class", text)
    draw(cells)
    print(table)


if __name__ == "__main__":
    main()
