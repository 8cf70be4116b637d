"""What common shortcuts of published comparisons are worth, in points, beside honest scoring.

    python benchmarks/shortcuts.py prepare --data FOLDER --weights FILE --out FOLDER

    vpt bench run FOLDER/plan.toml --out FOLDER/plain
    vpt bench run FOLDER/jpeg.toml --out FOLDER/jpeg
    vpt bench run FOLDER/inception.toml --out FOLDER/inception
    python benchmarks/shortcuts.py report FOLDER

Five images of each class train DeiT-Tiny, and 300 test images a set score it. In the first plan that `prepare` writes,
the split that is scored after every fifth epoch holds the test images, which is the shortcut that is measured; nothing
is chosen by it while training. A run says what all shortcuts of scoring are worth:

    best epoch           the best of the scored epochs, instead of the last one
    best seed            the best of the seeds, instead of their mean
    best epoch and seed  the best epoch of the best seed

Three others are trained anew, on the same draws: images that are saved as JPEG of quality 75 after they are resized,
the other normalization, and a plan's default rate instead of the one that val chose on sign digits.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from report import BENCHMARKS_DIR, RESULTS_DIR, write_between_marks, write_section
from vpt.experiments.significance import paired_t_interval
from vpt.experiments.store import Store
from vpt.plots import canvas, style

SETS = {"signdigits": (50, "sign digits"), "rsscn7": (67, "RSSCN7")}  # epochs of at least 200 steps of 16 images
PER_CLASS, TEST_IMAGES, SIZE, QUALITY = 5, 300, 224, 75
TRIALS = 10_000  # draws of the bootstrap over seeds
# The rates are those that sign digits chose on val in results/low_data, per 256 images; so did RSSCN7 for `full`.
METHODS = {
    "VPT-deep": 'spec = "vpt(length=50, dropout=0)"\nlearning_rate = 0.08\n',
    "Full": 'spec = "full"\nlearning_rate = 0.0016\n',
}
UNTUNED = {"VPT-deep": 'spec = "vpt(length=50, dropout=0)"\n', "Full": 'spec = "full"\n'}
PLANS = {"plan": ("imagenet", 5), "jpeg": ("imagenet", 3), "inception": ("inception", 3)}  # normalization, seeds
SCORING = ("best epoch", "best seed", "best epoch and seed")
TRAINING = {"jpeg": "JPEG, quality 75", "inception": "the other normalization", "untuned": "default rate"}
Curve = list[float]  # test top-1 of the scored epochs in %
Curves = dict[tuple[str, str], dict[int, Curve]]  # set, method -> seed -> curve


def prepare(data: Path, weights: Path, out: Path) -> None:
    """Link and convert the images, and write the three plans."""
    if any(path.is_symlink() for path in (out / "data").glob("*/*")):
        sys.exit(f"{out} is of an earlier version, whose folders are links; give another folder")
    for name in SETS:
        for part, source in (("train", "train"), ("val", "test"), ("test", "test")):
            paths = sorted((data / name / source).rglob("*.jpg"))
            if source == "test":
                order = np.random.default_rng(0).permutation(len(paths))
                paths = [paths[index] for index in sorted(order[:TEST_IMAGES])]
            for path in paths:
                inside = Path(part) / path.relative_to(data / name / source)
                link, copy = out / "data" / name / inside, out / "data" / f"{name}-jpeg" / inside
                link.parent.mkdir(parents=True, exist_ok=True)
                copy.parent.mkdir(parents=True, exist_ok=True)
                if not link.is_symlink():
                    link.symlink_to(path.resolve())
                with Image.open(path) as image:
                    small = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
                small.save(copy, quality=QUALITY)
    for plan in PLANS:
        (out / f"{plan}.toml").write_text(make_plan(plan, weights.resolve()), encoding="utf-8")


def make_plan(plan: str, weights: Path) -> str:
    """The plan as TOML; only the first one has untuned rows."""
    folder = "-jpeg" if plan == "jpeg" else ""
    normalization, seeds = PLANS[plan]
    tasks = [
        f'{{ name = "{name}", data = "data/{name}{folder}", images_per_class = {PER_CLASS}, epochs = {epochs} }},'
        for name, (epochs, _) in SETS.items()
    ]
    rows = dict(METHODS)
    if plan == "plan":
        rows |= {f"{name}, untuned": row for name, row in UNTUNED.items()}
    methods = [f'\n[[methods]]\nname = "{name}"\n{row}' for name, row in rows.items()]
    return "\n".join(
        [
            f'name = "shortcuts, {plan}"',
            'backbone = "deit_tiny_patch16_224"',
            f'weights = "{weights}"',
            'interpolation = "bilinear"',
            f'normalization = "{normalization}"',
            'train_on = "train"',
            f"seeds = {seeds}",
            "keep_tuned = false",
            "tasks = [",
            *tasks,
            "]",
            "",
            "[training]",
            'optimizer = "adamw"',
            "weight_decay = 1e-4",
            "epochs = 50",
            "batch_size = 16",
            'precision = "bf16"',
            f"val_interval = {5 if plan == 'plan' else 1000}",  # the last epoch is always scored
            *methods,
        ]
    )


def read_curves(folder: Path) -> Curves:
    """Curves of the runs that are done."""
    runs: Curves = defaultdict(dict)
    for record in Store(folder).records().values():
        if record.status == "done":
            scored = [100 * epoch["val_metric"] for epoch in record.history if epoch["val_metric"] is not None]
            runs[record.task, record.method][record.config["training"]["seed"]] = scored
    return {cell: dict(sorted(seeds.items())) for cell, seeds in sorted(runs.items())}


def scoring_gains(curves: Sequence[Curve]) -> dict[str, float]:
    """What each shortcut of scoring adds to the mean of the last epochs, in points."""
    last, best = [curve[-1] for curve in curves], [max(curve) for curve in curves]
    honest = statistics.fmean(last)
    gains = statistics.fmean(best) - honest, max(last) - honest, max(best) - honest
    return dict(zip(SCORING, gains, strict=True))


def with_intervals(curves: Mapping[str, Curves]) -> Iterator[dict[str, Any]]:
    """Every shortcut on every set and method: points and their 95 % interval.

    Where each seed has a difference, it is Student's; the best of the seeds has that of a bootstrap over them.
    """
    rng, plain = np.random.default_rng(0), curves["plan"]
    for (task, method), seeds in plain.items():
        if method not in METHODS:
            continue
        runs = list(seeds.values())
        draws = rng.integers(0, len(runs), (TRIALS, len(runs)))
        samples = [scoring_gains([runs[i] for i in draw]) for draw in draws]
        last = [run[-1] for run in runs]
        for name, points in scoring_gains(runs).items():
            low, high = np.percentile([sample[name] for sample in samples], [2.5, 97.5])
            if name == "best epoch":
                low, high = paired_t_interval([max(run) for run in runs], last) or (points, points)
            yield row_of(task, method, name, points, low, high, len(runs))
        found = {kind: curves[kind].get((task, method), {}) for kind in ("jpeg", "inception")}
        for kind, other in {**found, "untuned": plain.get((task, f"{method}, untuned"), {})}.items():
            both = sorted(seeds.keys() & other.keys())
            if both:
                ours, theirs = ([own[seed][-1] for seed in both] for own in (other, seeds))
                points = statistics.fmean(ours) - statistics.fmean(theirs)
                low, high = paired_t_interval(ours, theirs) or (points, points)
                yield row_of(task, method, TRAINING[kind], points, low, high, len(both))


def row_of(task: str, method: str, shortcut: str, points: float, low: float, high: float, seeds: int) -> dict[str, Any]:
    return {"set": task, "method": method, "shortcut": shortcut, "points": points, "low": float(low),
            "high": float(high), "seeds": seeds}  # fmt: skip


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A panel for each set: points with intervals, a row for each shortcut and a marker for each method."""
    shortcuts = list(dict.fromkeys(row["shortcut"] for row in rows))
    tasks = list(dict.fromkeys(row["set"] for row in rows))
    figure = canvas.make_figure(4.2 * len(tasks), 0.45 * len(shortcuts) + 1.2)
    panels = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    for axes, task in zip(panels, tasks, strict=True):
        for number, (method, color) in enumerate(zip(METHODS, (style.BLUE, style.ORANGE), strict=True)):
            cells = [row for row in rows if (row["set"], row["method"]) == (task, method)]
            heights = [shortcuts.index(row["shortcut"]) + 0.2 * (number - 0.5) for row in cells]
            points = [row["points"] for row in cells]
            errors = [[row["points"] - row["low"] for row in cells], [row["high"] - row["points"] for row in cells]]
            axes.errorbar(points, heights, xerr=np.abs(errors), fmt="os"[number], color=color, label=method, capsize=2)
        axes.axvline(0, color=style.GRAY, linewidth=0.8)
        axes.set_title(SETS[task][1])
        axes.set_xlabel("points of top-1")
    panels[0].set_yticks(range(len(shortcuts)), shortcuts)
    panels[0].invert_yaxis()
    panels[-1].legend(frameon=False)
    canvas.save_figure(figure, path)


def format_table(rows: Sequence[Mapping[str, Any]], curves: Curves) -> str:
    """Markdown: the honest scores, then a row for each shortcut."""
    cells = [cell for cell in curves if cell[1] in METHODS]
    names = [f"{SETS[task][1]}, {method}" for task, method in cells]
    honest = [[curve[-1] for curve in curves[cell].values()] for cell in cells]
    spread = [statistics.stdev(scores) if len(scores) > 1 else 0.0 for scores in honest]
    scores = [f"{statistics.fmean(one):.1f} ± {sd:.1f} ({len(one)})" for one, sd in zip(honest, spread, strict=True)]
    lines = [
        f"**Shortcuts**: points of test top-1 above honest scoring (last epoch, mean over seeds; their number in "
        f"brackets), on {TEST_IMAGES} test images a set, with 95 % intervals: Student's over seeds; for the best seed "
        "by a bootstrap over them, which cannot exceed the best that was seen.",
        "",
        f"| shortcut | {' | '.join(names)} |",
        f"|---|{'---:|' * len(names)}",
        f"| none: top-1 in %, ± standard deviation | {' | '.join(scores)} |",
    ]
    for shortcut in dict.fromkeys(row["shortcut"] for row in rows):
        found = {(row["set"], row["method"]): row for row in rows if row["shortcut"] == shortcut}
        texts = [
            f"{row['points']:+.1f} ({row['low']:+.1f} to {row['high']:+.1f}, n = {row['seeds']})"
            if (row := found.get(cell))
            else "–"
            for cell in cells
        ]
        lines.append(f"| {shortcut} | {' | '.join(texts)} |")
    return "\n".join(lines)


def report(folder: Path) -> None:
    """Write the figures, the table and the picture of what is done."""
    curves = {plan: read_curves(folder / ("plain" if plan == "plan" else plan)) for plan in PLANS}
    if not any(method in METHODS for _, method in curves["plan"]):
        sys.exit(f"{folder / 'plain'} has no tuned run that is done: run {folder / 'plan.toml'} first")
    rows = list(with_intervals(curves))
    table = format_table(rows, curves["plan"])
    values = {"rows": rows, "curves": {f"{task}, {method}": runs for (task, method), runs in curves["plan"].items()}}
    write_section("shortcuts", "shortcuts", values, "python benchmarks/shortcuts.py report FOLDER", table)
    text = (RESULTS_DIR / "shortcuts.md").read_text(encoding="utf-8").rstrip()
    write_between_marks(BENCHMARKS_DIR.parent / "docs" / "prompt-family.md", "shortcuts", text)
    draw(rows, RESULTS_DIR / "shortcuts.png")
    print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    preparing = commands.add_parser("prepare", help="write images and plans")
    preparing.add_argument("--data", type=Path, required=True, help="folder with signdigits/ and rsscn7/")
    preparing.add_argument("--weights", type=Path, required=True, help="of DeiT-Tiny")
    preparing.add_argument("--out", type=Path, required=True)
    commands.add_parser("report", help="write the table and the picture").add_argument("folder", type=Path)
    options = parser.parse_args()
    if options.command == "prepare":
        prepare(options.data, options.weights, options.out)
    else:
        report(options.folder)


if __name__ == "__main__":
    main()
