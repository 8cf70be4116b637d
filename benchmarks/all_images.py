"""Curves of trainings on all images of a set: top-1 on val and the training loss against the epoch.

    vpt bench run benchmarks/all_images_signdigits.toml --out FOLDER
    python benchmarks/all_images.py FOLDER MORE_FOLDERS

A training has converged where its last quarter no longer moves top-1 on val. images_per_class.py has the test scores.
A ridge head is not part of a curve: it joins at the end.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from corruptions import SETS
from images_per_class import LOOKS
from report import RESULTS_DIR, write_section
from vpt.experiments.results import load_results
from vpt.experiments.store import Store
from vpt.plots import canvas

Curve = Mapping[str, list[tuple[int, float]]]  # "val_metric" and "train_loss" -> epoch and value
Curves = Mapping[str, Mapping[str, Curve]]  # set -> method -> curve
PANELS = {"val_metric": "top-1 on val, %", "train_loss": "training loss"}


def read_curves(folders: Sequence[Path]) -> Curves:
    """The curves of all final trainings through the backbone, which have an entry for each epoch."""
    found: dict[str, dict[str, Curve]] = {}
    for cell in (cell for folder in folders for cell in load_results(Store(folder)).cells.values()):
        for record in cell.final_records:
            curve = {name: read_values(record.history, name) for name in PANELS}
            if len(curve["val_metric"]) > 1:
                found.setdefault(cell.task.name.rsplit("-", 1)[0], {})[cell.method] = curve
    return found


def read_values(history: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    """Epoch and value, where an epoch has one; top-1 in %."""
    scale = 100 if name == "val_metric" else 1
    return [(epoch["epoch"], scale * epoch[name]) for epoch in history if epoch[name] is not None]


def format_table(curves: Curves) -> str:
    """Markdown: top-1 on val after quarters of the training, a row for each set and method."""
    lines = [
        "**Trainings on all images**: top-1 on 200 images of val in %, and the training loss at the end; one draw. A "
        "ridge head joins afterwards.",
        "",
        "| set | method | epochs | half | three quarters | end | training loss |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for name, methods in curves.items():
        for method, curve in methods.items():
            last = curve["val_metric"][-1][0]
            parts = [
                next(value for epoch, value in reversed(curve["val_metric"]) if epoch <= share * last)
                for share in (0.5, 0.75, 1)
            ]
            scores = " | ".join(f"{value:.1f}" for value in parts)
            lines.append(f"| {SETS[name]} | {method} | {last} | {scores} | {curve['train_loss'][-1][1]:.3f} |")
    return "\n".join(lines)


def draw(curves: Curves, path: Path) -> None:
    """A row of panels for each set, a line for each method."""
    figure = canvas.make_figure(9, 2.9 * len(curves))
    panels = figure.subplots(len(curves), len(PANELS), squeeze=False)
    for row, (name, methods) in zip(panels, curves.items(), strict=True):
        for axes, (part, label) in zip(row, PANELS.items(), strict=True):
            for method, curve in methods.items():
                text, color, marker = LOOKS[method]
                axes.plot(*zip(*curve[part], strict=True), color=color, marker=marker, markersize=3, label=text)
            axes.set_title(SETS[name], fontsize=9)
            axes.set_ylabel(label)
            axes.set_xlabel("epoch")
    panels[0, 0].legend(frameon=False, fontsize=7)
    canvas.save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of the plans' runs")
    options = parser.parse_args()
    curves = read_curves(options.runs)
    if not curves:
        sys.exit(f"{', '.join(map(str, options.runs))}: no training was validated twice")
    table = format_table(curves)
    write_section("all_images", "curves", {"curves": curves}, "python benchmarks/all_images.py FOLDER FOLDER", table)
    draw(curves, RESULTS_DIR / "all_images.png")
    print(table)


if __name__ == "__main__":
    main()
