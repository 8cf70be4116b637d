"""Prompt methods published since the paper, beside probes, VPT, LoRA and full fine-tuning, with five images of a class.

    vpt bench run benchmarks/low_data.toml --out RUNS
    vpt bench run benchmarks/low_data_family.toml --out FAMILY_RUNS
    python benchmarks/prompt_family.py score RUNS FAMILY_RUNS --data FOLDER --answers ANSWERS
    python benchmarks/prompt_family.py report RUNS FAMILY_RUNS --answers ANSWERS

    python benchmarks/attention.py --sections family    what inference and a training step cost, if not measured yet

`score` lets every tuned file answer all test images of its set; a result is a file of its own, so that the same command
goes on where it was. `report` writes scores, and differences from VPT-deep with intervals over seeds and images.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import vpt
from corruptions import PAGE, SIZE, bootstrap
from report import RESULTS_DIR, write_between_marks, write_section
from vpt.core.io import write_atomic
from vpt.experiments.results import Cell, load_results
from vpt.experiments.store import Store
from vpt.methods import parse_method
from vpt.plots import canvas, style
from vpt.training import DeviceDataset, Examples, predict_logits

SETS = {"signdigits": "sign digits", "rsscn7": "RSSCN7"}
REFERENCE = "VPT-deep, p = 50"
Answers = Mapping[tuple[str, str], NDArray[np.bool_]]  # set, method -> (seeds, images)


@cache
def read_test_images(folder: Path, size: int = SIZE) -> tuple[Examples, list[str], str]:
    """All test images of a set, scaled as the plans do, the names of their classes, and a checksum."""
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    paths = sorted(folder.rglob("*.jpg"))
    pixels = np.empty((len(paths), 3, size, size), np.uint8)
    for i, path in enumerate(paths):
        with Image.open(path) as image:
            scaled = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
        pixels[i] = np.asarray(scaled).transpose(2, 0, 1)
    labels = np.array([classes.index(path.parent.name) for path in paths])
    checksum = zlib.crc32(pixels[::50].tobytes(), zlib.crc32(labels.tobytes()))
    return Examples(pixels, labels), classes, f"{checksum:08x}"


def score(folders: Sequence[Path], data: Path, answers: Path) -> None:
    """Write, for every tuned file of the plans' final runs, which answers are right."""
    answers.mkdir(parents=True, exist_ok=True)
    for folder in map(Store, folders):
        plan = folder.load_experiment()
        size = plan.protocol.image_size or SIZE
        backbone = vpt.load_backbone(plan.backbone, weights=plan.weights, image_size=size)
        for cell in load_results(folder).cells.values():
            for record in cell.final_records:
                examples, classes, checksum = read_test_images(data / set_of(cell) / "test", size)
                path, out = folder.tuned_path(record.id), answers / f"{record.id}.json"
                if not path.exists() or (out.exists() and read_json(out)["images"] == checksum):
                    continue
                model = vpt.load(path, backbone)
                if list(model.classes or ()) != classes:
                    sys.exit(f"{path} has the classes {model.classes}, and {data} has {classes}")
                logits = predict_logits(model, DeviceDataset.for_model(model, examples), bf16=True)
                right = logits.argmax(1).numpy() == examples.labels
                write_atomic(out, json.dumps({"images": checksum, "right": right.astype(int).tolist()}).encode())
                print(f"{cell.task.name}  {cell.method}  {100 * right.mean():.1f} %", flush=True)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def set_of(cell: Cell) -> str:
    """The set of a task that is called SET-COUNT."""
    return cell.task.name.rsplit("-", 1)[0]


def read_cells(folders: Sequence[Path]) -> dict[tuple[str, str], Cell]:
    """Cells of comparable plans by set and method, without those that are refused or lack a run."""
    cells = load_results(*map(Store, folders)).cells.values()
    return {(set_of(cell), cell.method): cell for cell in cells if cell.complete and cell.scores}


def read_answers(cells: Mapping[tuple[str, str], Cell], answers: Path) -> Answers:
    """Right answers of every cell whose tuned files have all answered, in the order of the seeds.

    They are those of the scores: another batch in bf16 changes an answer or two.
    """
    found = {}
    for key, cell in cells.items():
        runs = sorted(cell.final_records, key=lambda record: record.config["training"]["seed"])
        paths = [answers / f"{record.id}.json" for record in runs]
        if all(path.exists() for path in paths):
            found[key] = np.array([read_json(path)["right"] for path in paths], bool)
            for record, right in zip(runs, found[key], strict=True):
                if abs(right.mean() - record.score) > 0.01:
                    sys.exit(f"{record.id} has {right.mean():.3f} of {answers} right, and scored {record.score:.3f}")
    return found


def read_family() -> Any:
    """What `attention.py --sections family` measured."""
    return read_json(RESULTS_DIR / "attention.json")["family"]


def read_costs() -> dict[str, dict[str, float]]:
    """Times VPT-deep of inference and of a training step, by the text of the method; of results/attention.json."""
    figures, costs = read_family()["values"], dict[str, dict[str, float]]()
    for kind in ("inference", "step"):
        for spec, figure in figures[kind].items():
            costs.setdefault(str(parse_method(spec)), {})[kind] = figure["times_reference"]["median"]
    return costs


def without_start(text: str) -> str:
    """The text of a method that begins at random, and costs the same."""
    method = parse_method(text)
    if isinstance(method, vpt.VPT):
        method = replace(method, init="random", expansion=vpt.VPT().expansion)
    return str(method)


def difference(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Points of top-1 above the other, and their interval over seeds and images, both paired."""
    if ours.shape != theirs.shape:
        sys.exit(f"answers of {ours.shape} and {theirs.shape} seeds and images cannot be paired: score both again")
    return bootstrap(100 * (ours.astype(np.float64) - theirs))


def summarize(cells: Mapping[tuple[str, str], Cell], answers: Answers) -> list[dict[str, Any]]:
    """A row for each method: what it trains and stores, and its scores on each set."""
    rows, costs = [], read_costs()
    for method in dict.fromkeys(method for _, method in cells):
        own = {name: cells[name, method] for name in SETS if (name, method) in cells}
        runs = [record for cell in own.values() for record in cell.final_records]
        sets = dict[str, dict[str, Any]]()
        for name, cell in own.items():
            sets[name] = {"top1": [100 * one for one in cell.scores]}
            if method != REFERENCE and {(name, method), (name, REFERENCE)} <= answers.keys():
                sets[name]["difference"] = difference(answers[name, method], answers[name, REFERENCE])
        trained = statistics.fmean(record.parameters["trainable"] for record in runs)
        kilobytes = statistics.fmean(record.cost["file_bytes"] for record in runs) / 1000
        # A ridge head takes passes of its own, which nobody timed.
        cost = {} if "ridge" in runs[0].config else costs.get(without_start(runs[0].config["method"]), {})
        rows.append({"method": method, "trained": trained, "kilobytes": kilobytes, "cost": cost, "sets": sets})
    return sorted(
        rows, key=lambda row: -statistics.fmean(statistics.fmean(one["top1"]) for one in row["sets"].values())
    )


def format_scores(scores: Sequence[float]) -> str:
    """Mean, and standard deviation of two or more."""
    return f"{statistics.fmean(scores):.1f}" + (f" ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else "")


def format_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a row for each method, the best first."""
    names = " | ".join(f"{label} | {label}, above VPT-deep" for label in SETS.values())
    seeds = max(len(cell["top1"]) for row in rows for cell in row["sets"].values())
    lines = [
        f"**Five images of each class**, DeiT-Tiny: test top-1 in %, mean ± standard deviation of {seeds} draws of the "
        "training images. Above VPT-deep: points, with the 95 % interval by a bootstrap over draws and test images, "
        "too narrow for so few draws. Trained: thousands of parameters, head included. File: kB. Step, inference: a "
        f"training step and a forward pass on ViT-S/16, times VPT-deep (`{read_family()['command']}`).",
        "",
        f"| method | trained | file | step | inference | {names} |",
        f"|---|---:|---:|---:|---:|{'---:|---:|' * len(SETS)}",
    ]
    for row in rows:
        texts = [row["method"], f"{row['trained'] / 1000:,.0f}", f"{row['kilobytes']:,.0f}"]
        texts += [f"{row['cost'][kind]:.2f}" if kind in row["cost"] else "–" for kind in ("step", "inference")]
        for name in SETS:
            cell = row["sets"].get(name)
            texts.append(format_scores(cell["top1"]) if cell else "–")
            found = cell and cell.get("difference")
            texts.append("{:+.1f} ({:+.1f} to {:+.1f})".format(*found) if found else "–")
        lines.append(f"| {' | '.join(texts)} |")
    return "\n".join(lines)


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A panel for each set: the difference of each method from VPT-deep, with its interval."""
    methods = [row["method"] for row in rows]
    figure = canvas.make_figure(4.2 * len(SETS), 0.24 * len(methods) + 1.0)
    panels = figure.subplots(1, len(SETS), sharey=True, squeeze=False)[0]
    for axes, (name, label) in zip(panels, SETS.items(), strict=True):
        found = {row["method"]: row["sets"].get(name, {}).get("difference") for row in rows}
        shown = {method: one for method, one in found.items() if one}
        points, low, high = np.array(list(shown.values())).reshape(-1, 3).T
        heights = [methods.index(method) for method in shown]
        axes.errorbar(points, heights, xerr=[points - low, high - points], fmt="o", color=style.BLUE, capsize=2)
        axes.axvline(0, color=style.GRAY, linewidth=0.8)
        axes.set_title(label)
        axes.set_xlabel("points of top-1 above VPT-deep")
    panels[0].set_yticks(range(len(methods)), methods)
    panels[0].set_ylim(len(methods) - 0.5, -0.5)  # the best above
    canvas.save_figure(figure, path)


def report(folders: Sequence[Path], answers: Path) -> None:
    """Write the figures, the table and the picture of what is done."""
    cells = read_cells(folders)
    rows = summarize(cells, read_answers(cells, answers))
    if not rows:
        sys.exit(f"{', '.join(map(str, folders))}: no method has all its runs; run the plans first")
    table = format_table(rows)
    command = "python benchmarks/prompt_family.py report RUNS FAMILY_RUNS --answers ANSWERS"
    write_section("prompt_family", "prompt_family", {"rows": rows}, command, table)
    write_between_marks(PAGE, "prompt_family", (RESULTS_DIR / "prompt_family.md").read_text(encoding="utf-8").rstrip())
    draw(rows, RESULTS_DIR / "prompt_family.png")
    print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    scoring, reporting = commands.add_parser("score"), commands.add_parser("report")
    for parts in (scoring, reporting):
        parts.add_argument("runs", type=Path, nargs="+", help="folders of the plans' runs")
        parts.add_argument("--answers", type=Path, required=True, help="folder of the answers")
    scoring.add_argument("--data", type=Path, required=True, help="folder with signdigits/ and rsscn7/")
    options = parser.parse_args()
    if options.command == "score":
        score(options.runs, options.data, options.answers)
    else:
        report(options.runs, options.answers)


if __name__ == "__main__":
    main()
