"""Accuracy against labeled images of each class: table, differences and the picture of the README.

    vpt bench run benchmarks/images_per_class.toml --out FOLDER --workers 2     and so each plan of PLANS, below
    python benchmarks/prompt_family.py score FOLDER --data DATA --answers ANSWERS
    python benchmarks/images_per_class.py FOLDER --answers ANSWERS

A folder is one of runs, or one with the runs.csv that `vpt bench report` wrote. Without a folder, those of results/ are
read. Answers are kept in results/images_per_class/answers.json; with them, intervals are over test images, too. A
method that lacks a draw that others have is left out. With one image of each class no ridge head joins, so there a row
of prompts with such a head is that without it.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from corruptions import SETS, bootstrap
from prompt_family import format_scores
from report import BENCHMARKS_DIR, RESULTS_DIR, format_provenance, write_between_marks, write_section
from vpt.core.io import write_atomic
from vpt.experiments.reports.run_table import to_csv
from vpt.experiments.significance import paired_t_interval
from vpt.plots import canvas, style

PLANS = (
    "images_per_class",
    "images_per_class_dtd10",
    "images_per_class_caltech101",
    "one_image_per_class",
    "all_images_signdigits",
    "all_images_rsscn7",
)
ALL = 100  # in place of the number of images of each class where all of them train; its place in the picture, too
ANSWERS = RESULTS_DIR / "images_per_class" / "answers.json"
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


@dataclass(frozen=True)
class Runs:
    """The final runs of a method on a set with as many images of each class.

    size: Side of the images in pixels. processors: Where they ran. seeds: The draws. top1: Test top-1 in %, in their
    order. ids: Ids of the runs.
    """

    size: int
    processors: frozenset[str]
    seeds: tuple[int, ...]
    top1: tuple[float, ...]
    ids: tuple[str, ...]


def read_runs(folder: Path) -> dict[Key, Runs]:
    """The methods of a folder that have all draws that any method has there."""
    stored = folder / "runs.csv"
    text = to_csv(folder) if (folder / "plan.json").exists() else stored.read_text(encoding="utf-8")
    rows: dict[Key, dict[int, dict[str, str]]] = {}
    for row in csv.DictReader(io.StringIO(text)):
        if row["stage"] == "final" and row["metric"] == "top1":
            name, count = row["task"].rsplit("-", 1)
            key = (name, ALL if count == "all" else int(count), row["method"])
            rows.setdefault(key, {})[int(row["seed"])] = row
    found = {}
    for key, runs in rows.items():
        if len(runs) == max(len(other) for column, other in rows.items() if column[:2] == key[:2]):
            in_order = [runs[seed] for seed in sorted(runs)]
            top1 = tuple(100 * float(run["value"]) for run in in_order)
            processors = frozenset(run["gpus"] or run["processor"] for run in in_order)
            ids = tuple(run["run_id"] for run in in_order)
            found[key] = Runs(int(in_order[0]["image_size"]), processors, tuple(sorted(runs)), top1, ids)
    return found


def read_all(folders: Sequence[Path]) -> dict[Key, Runs]:
    """The methods of all folders that have a row in the table."""
    found = {key: runs for folder in folders for key, runs in read_runs(folder).items()}
    for name, count, method in list(found):
        for ours, (_, plain) in OURS.items():
            if count == 1 and method == plain:
                found[name, count, ours] = found[name, count, method]
    return {key: runs for key, runs in found.items() if key[2] in LOOKS}


def keep_answers(folder: Path, ids: Sequence[str]) -> None:
    """Add the answers of a folder to those that are kept: bits in hexadecimal, with a checksum of the images."""
    kept = read_json(ANSWERS) if ANSWERS.exists() else {}
    for run_id in ids:
        if (path := folder / f"{run_id}.json").exists():
            answers = read_json(path)
            bits = np.packbits(np.array(answers["right"], bool)).tobytes().hex()
            kept[run_id] = {"images": answers["images"], "count": len(answers["right"]), "right": bits}
    write_atomic(ANSWERS, json.dumps(kept, indent=1).encode())


def pair_answers(ours: Runs, theirs: Runs, kept: Mapping[str, Any]) -> NDArray[np.float64] | None:
    """Points of ours above theirs, of the shape (draws, images); None where a run has not answered."""
    if any(run_id not in kept for run_id in ours.ids + theirs.ids):
        return None
    if len({kept[run_id]["images"] for run_id in ours.ids + theirs.ids}) > 1:
        sys.exit(f"{', '.join(ours.ids + theirs.ids)} answered different images: score them again")
    return read_right(ours, kept) - read_right(theirs, kept)


def read_right(runs: Runs, kept: Mapping[str, Any]) -> NDArray[np.float64]:
    """Which answers are right, 100 or 0, of the shape (draws, images)."""
    rows = []
    for run_id, top1 in zip(runs.ids, runs.top1, strict=True):
        bits = np.frombuffer(bytes.fromhex(kept[run_id]["right"]), np.uint8)
        rows.append(100.0 * np.unpackbits(bits)[: kept[run_id]["count"]])
        if abs(rows[-1].mean() - top1) > 1:  # another batch in bf16 changes an answer or two
            sys.exit(f"{run_id} scored {top1:.1f} %, and {rows[-1].mean():.1f} % of its answers are right")
    return np.array(rows)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def compare(cells: Mapping[Key, Runs], kept: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Points of each of ours above each of the others, with a 95 % interval, paired."""
    rows = []
    for (name, count, method), own in product(sorted(cells), OURS):
        ours, theirs = cells.get((name, count, own)), cells[name, count, method]
        if ours is None or method not in OTHERS:
            continue
        if ours.seeds != theirs.seeds:
            sys.exit(
                f"{name}-{count}: {own} has the draws {ours.seeds}, and {method} {theirs.seeds}; do the others, too"
            )
        answers = pair_answers(ours, theirs, kept)
        if answers is not None:
            points, low, high = bootstrap(answers)
        else:
            points = statistics.fmean(ours.top1) - statistics.fmean(theirs.top1)
            low, high = paired_t_interval(ours.top1, theirs.top1) or (points, points)
        over = "draws" if answers is None else "draws and images" if len(ours.seeds) > 1 else "images"
        rows.append({"set": name, "images": count, "ours": own, "above": method, "points": points, "low": low,
                     "high": high, "over": over})  # fmt: skip
    return rows


def format_count(count: int) -> str:
    """Images of each class, as the table and the picture have them."""
    return "all" if count == ALL else str(count)


def title(name: str, size: int) -> str:
    """The name of a set, with the size of its images where that is not 224."""
    return SETS[name] if size == 224 else f"{SETS[name]}, {size} px"


def columns_of(cells: Mapping[Key, Runs]) -> dict[tuple[str, int], Runs]:
    """Set and images of each class, in the order of the tables, with the runs of one method there."""
    order = sorted(cells, key=lambda key: (list(SETS).index(key[0]), key[1]))
    return {key[:2]: cells[key] for key in order}


def format_scores_table(cells: Mapping[Key, Runs]) -> str:
    """Markdown: a row for each set and number of images, a column for each method."""
    methods = [method for method in LOOKS if any(key[2] == method for key in cells)]
    lines = [
        "**Test top-1**, DeiT-Tiny, in %: mean ± standard deviation of n draws of the training images. Learning "
        "rates were selected on val once for each dataset, at five images per class. VPT-deep + LoRA has one rate for "
        "sign digits and RSSCN7, which was tried once on val at 20 images per class. On DTD-10 and Caltech-101, the "
        "initialization of the head (random or linear probe) was also selected on val. On the other datasets it is "
        "random. With one image per class, the penalty of the ridge probe is fixed, and there is no ridge head, so "
        "the columns of prompts 'with a ridge head' show the trained head alone.",
        "",
        f"| dataset | images | n | {' | '.join(methods)} |",
        f"|---|---:|---:|{'---:|' * len(methods)}",
    ]
    for (name, count), one in columns_of(cells).items():
        found = [cells.get((name, count, method)) for method in methods]
        texts = [format_scores(list(runs.top1)) if runs else "–" for runs in found]
        lines.append(f"| {title(name, one.size)} | {format_count(count)} | {len(one.top1)} | {' | '.join(texts)} |")
    processors = sorted(frozenset().union(*(runs.processors for runs in cells.values())))
    lines += ["", f"Runs in bf16 on {' and '.join(processors)}."]
    return "\n".join(lines)


def format_differences(cells: Mapping[Key, Runs], differences: Sequence[Mapping[str, Any]], own: str) -> str:
    """Markdown: points of one of ours above others, a row for each set and number of images."""
    lines = [
        f"**{own} ({OURS[own][0]}), minus others**, in points (95 % interval):",
        "",
        f"| dataset | images | {' | '.join(OTHERS)} | paired over |",
        f"|---|---:|{'---:|' * len(OTHERS)}---|",
    ]
    for (name, count), one in columns_of(cells).items():
        rows = {
            row["above"]: row for row in differences if (row["set"], row["images"], row["ours"]) == (name, count, own)
        }
        texts = [format_difference(rows[method]) if method in rows else "–" for method in OTHERS]
        if rows:
            kinds = " or ".join(sorted({str(row["over"]) for row in rows.values()}))
            lines.append(f"| {title(name, one.size)} | {format_count(count)} | {' | '.join(texts)} | {kinds} |")
    return "\n".join(lines)


def format_difference(row: Mapping[str, Any]) -> str:
    """Points with their interval; one draw without answers has none."""
    known = row["low"] < row["high"]
    return f"{row['points']:+.1f}" + (f" ({row['low']:+.1f} to {row['high']:+.1f})" if known else "")


def draw(cells: Mapping[Key, Runs]) -> None:
    """A panel for each set: a line for each method, with the standard deviation over draws."""
    names = [name for name in SETS if any(key[0] == name for key in cells)]
    with mpl.rc_context({"svg.hashsalt": "vpt", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = make_figure(cells, names)
        figure.savefig(FIGURE, metadata={"Date": None}, facecolor="white")


def make_figure(cells: Mapping[Key, Runs], names: Sequence[str]) -> Figure:
    """Return the figure."""
    columns = min(2, len(names))
    rows = math.ceil(len(names) / columns)
    figure = canvas.make_figure(4.2 * columns + 1.6, 3.3 * rows)
    grid, every = figure.subplots(rows, columns, squeeze=False), sorted({key[1] for key in cells})
    for axes in grid.flat[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(grid.flat, names, strict=False):
        counts = sorted({key[1] for key in cells if key[0] == name})
        for number, (method, (label, color, marker)) in enumerate(LOOKS.items()):
            shown = [count for count in counts if (name, count, method) in cells]
            scores = [cells[name, count, method].top1 for count in shown]
            means = [statistics.fmean(one) for one in scores]
            spread = [statistics.stdev(one) if len(one) > 1 else 0.0 for one in scores]
            places = [
                count * 1.03 ** (number - len(LOOKS) / 2) for count in shown
            ]  # so that bars do not hide each other
            axes.errorbar(places, means, yerr=spread, color=color, marker=marker, label=label, capsize=2, linewidth=1.2)
        axes.set_xscale("log")
        axes.set_xlim(0.8 * every[0], every[-1] / 0.8)
        axes.set_xticks(every, [format_count(count) for count in every])
        axes.minorticks_off()
        axes.set_xlabel("labeled images of each class")
        axes.set_title(title(name, next(runs.size for key, runs in cells.items() if key[0] == name)))
    for axes in grid[:, 0]:
        axes.set_ylabel("test top-1, %")
    grid[0, -1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="*", help="folders of runs, or of their runs.csv; default: results/")
    parser.add_argument("--answers", type=Path, help="folder of the answers that prompt_family.py stored")
    options = parser.parse_args()
    stored = [RESULTS_DIR / plan for plan in PLANS if (RESULTS_DIR / plan / "runs.csv").exists()]
    cells = read_all(options.runs or stored)
    if options.answers:
        keep_answers(options.answers, [run_id for runs in cells.values() for run_id in runs.ids])
    differences = compare(cells, read_json(ANSWERS) if ANSWERS.exists() else {})
    if not differences:
        sys.exit(f"{', '.join(map(str, options.runs or stored))}: no prompts beside another method with all draws")
    main_recipe, *others = OURS
    table = f"{format_scores_table(cells)}\n\n{format_differences(cells, differences, main_recipe)}"
    scores = [
        {"set": name, "images": count, "method": method, "size": runs.size, "top1": runs.top1}
        for (name, count, method), runs in sorted(cells.items())
    ]
    command = "python benchmarks/images_per_class.py"
    write_section("images_per_class", "accuracy", {"scores": scores, "differences": differences}, command, table)
    for own in others:  # its values are among those above
        name, _ = OURS[own]
        write_section("images_per_class", name, {}, command, format_differences(cells, differences, own))
    text = f"{table}\n\n{format_provenance(read_json(RESULTS_DIR / 'images_per_class.json')['accuracy'])}"
    write_between_marks(BENCHMARKS_DIR.parent / "README.md", "images_per_class", text)
    draw(cells)
    print(table)


if __name__ == "__main__":
    main()
