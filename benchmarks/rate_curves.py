"""The learning-rate curve of every method of a comparison: top-1 on val against the peak rate, a line for each set.

    vpt bench run benchmarks/low_data.toml --out RUNS
    python benchmarks/rate_curves.py RUNS MORE_RUNS

One training a point, with the first draw. Where a plan searches weight decay, too, a point is the best one. A method
that two folders have is refused, as their curves would be of other settings.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from report import BENCHMARKS_DIR, RESULTS_DIR, write_between_marks, write_section
from vpt.experiments.results import load_results
from vpt.experiments.store import Store
from vpt.plots import canvas, style

SETS = {"signdigits": "sign digits", "rsscn7": "RSSCN7", "dtd10": "DTD-10", "caltech101": "Caltech-101"}
PAGE = BENCHMARKS_DIR.parent / "docs" / "prompt-family.md"
COLUMNS = 4
Curves = Mapping[str, Mapping[str, Mapping[float, float]]]  # method -> set -> peak rate -> top-1 on val in %


def read_curves(folders: Sequence[Path]) -> Curves:
    """Curves of all methods that were trained at two rates or more, in the order of the plans."""
    found: dict[str, dict[str, dict[float, float]]] = defaultdict(lambda: defaultdict(dict))
    for cell in load_results(*map(Store, folders)).cells.values():
        points = found[cell.method][cell.task.name.rsplit("-", 1)[0]]
        for record in cell.search_records:
            training = record.config["training"]
            rate = training["learning_rate"] * training["batch_size"] / 256  # the peak
            if record.status == "done" and record.score is not None:
                points[rate] = max(points.get(rate, 0.0), 100 * record.score)
    return {
        method: {name: dict(sorted(points.items())) for name, points in sets.items() if len(points) > 1}
        for method, sets in found.items()
        if any(len(points) > 1 for points in sets.values())
    }


def format_table(curves: Curves) -> str:
    """Markdown: a row for each method and set."""
    lines = [
        "**Learning rates**: top-1 in % on 200 images of val against the peak rate, five images of each class, one "
        "training a point (of a probe: the best of its weight decays). The best of each row is bold; diverged runs are "
        "left out.",
        "",
        "| method | set | peak rate: top-1 |",
        "|---|---|---|",
    ]
    for method, sets in curves.items():
        for name, points in sets.items():
            best = max(points.values())
            texts = [
                f"{rate:.2g}: {f'**{top1:.1f}**' if top1 == best else f'{top1:.1f}'}" for rate, top1 in points.items()
            ]
            lines.append(f"| {method} | {SETS[name]} | {', '.join(texts)} |")
    return "\n".join(lines)


def draw(curves: Curves, path: Path) -> None:
    """A panel for each method, a line for each set."""
    names = list(dict.fromkeys(name for sets in curves.values() for name in sets))
    looks = dict(zip(names, style.series_styles(len(names)), strict=True))
    rows = math.ceil(len(curves) / COLUMNS)
    figure = canvas.make_figure(2.6 * COLUMNS, 2.1 * rows)
    panels = figure.subplots(rows, COLUMNS, sharey=True, squeeze=False).flatten()
    for axes, (method, sets) in zip(panels, curves.items(), strict=False):
        for name, points in sets.items():
            axes.plot(list(points), list(points.values()), linewidth=0.8, label=SETS[name], **looks[name])
        rates = sorted({rate for points in sets.values() for rate in points})
        axes.set_xscale("log")
        axes.set_xticks(rates, [f"{rate:.2g}" for rate in rates], fontsize=7)
        axes.minorticks_off()
        axes.set_title(method, fontsize=8)
    for axes in panels[len(curves) :]:
        axes.set_visible(False)
    for axes in panels[::COLUMNS]:
        axes.set_ylabel("top-1 on val, %")
    for axes in panels[max(0, len(curves) - COLUMNS) : len(curves)]:
        axes.set_xlabel("peak learning rate")
    max(panels, key=lambda axes: len(axes.lines)).legend(frameon=False, fontsize=7)
    canvas.save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of the plans' runs")
    options = parser.parse_args()
    curves = read_curves(options.runs)
    if not curves:
        sys.exit(f"{', '.join(map(str, options.runs))}: no method was trained at two rates")
    values: dict[str, Any] = {
        method: {name: {f"{rate:.6g}": top1 for rate, top1 in points.items()} for name, points in sets.items()}
        for method, sets in curves.items()
    }
    table = format_table(curves)
    write_section("rate_curves", "rate_curves", values, "python benchmarks/rate_curves.py RUNS MORE_RUNS", table)
    write_between_marks(PAGE, "rate_curves", (RESULTS_DIR / "rate_curves.md").read_text(encoding="utf-8").rstrip())
    draw(curves, RESULTS_DIR / "rate_curves.png")
    print(table)


if __name__ == "__main__":
    main()
