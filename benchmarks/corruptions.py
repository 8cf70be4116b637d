"""Probe, prompts, LoRA and full fine-tuning on corrupted test images: forward passes only.

    vpt bench run benchmarks/low_data.toml --out RUNS
    vpt bench run benchmarks/low_data_fixed.toml --out FIXED_RUNS
    python benchmarks/corruptions.py store --data FOLDER --images IMAGES
    python benchmarks/corruptions.py score RUNS --images IMAGES --records RECORDS
    python benchmarks/corruptions.py score FIXED_RUNS --images IMAGES --records RECORDS
    python benchmarks/corruptions.py report --records RECORDS

`store` writes 300 test images of each set, clean and with six corruptions of ImageNet-C (Hendrycks and Dietterich, ICLR
2019) at severity 3, at 224 px. `score` lets every tuned file of the plan, which keeps them, answer; a result is a file
of its own, so that the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import statistics
import sys
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

import vpt
from report import BENCHMARKS_DIR, RESULTS_DIR, write_between_marks, write_section
from vpt.core.io import write_atomic
from vpt.experiments.results import load_results
from vpt.experiments.store import Store
from vpt.plots import canvas, style
from vpt.training import DeviceDataset, Examples, predict_logits

SETS = {"signdigits": "sign digits", "rsscn7": "RSSCN7", "dtd10": "DTD-10", "caltech101": "Caltech-101"}
PAGE = BENCHMARKS_DIR.parent / "docs" / "prompt-family.md"
SIZE, COUNT, TRIALS = 224, 300, 2000
Pixels = NDArray[np.float64]  # (224, 224, 3), between 0 and 1
Runs = dict[tuple[str, str], list[NDArray[np.bool_]]]  # set, method -> (corruptions, images) of every seed


def noise(image: Pixels, rng: np.random.Generator) -> Pixels:
    noisy: Pixels = image + rng.normal(0, 0.18, image.shape)
    return noisy


def blur(image: Pixels, rng: np.random.Generator) -> Pixels:
    return to_pixels(to_image(image).filter(ImageFilter.GaussianBlur(3)))


def jpeg(image: Pixels, rng: np.random.Generator) -> Pixels:
    to_image(image).save(file := io.BytesIO(), "JPEG", quality=15)
    return to_pixels(Image.open(file))


def pixelate(image: Pixels, rng: np.random.Generator) -> Pixels:
    small = to_image(image).resize((int(0.4 * SIZE), int(0.4 * SIZE)), Image.Resampling.BOX)
    return to_pixels(small.resize((SIZE, SIZE), Image.Resampling.NEAREST))


def contrast(image: Pixels, rng: np.random.Generator) -> Pixels:
    mean = image.mean((0, 1))
    flat: Pixels = (image - mean) * 0.2 + mean
    return flat


def brightness(image: Pixels, rng: np.random.Generator) -> Pixels:
    hue, saturation, value = to_image(image).convert("HSV").split()
    brighter = value.point([min(255, level + round(0.3 * 255)) for level in range(256)])
    return to_pixels(Image.merge("HSV", (hue, saturation, brighter)).convert("RGB"))


CORRUPTIONS: dict[str, Callable[[Pixels, np.random.Generator], Pixels]] = {
    "clean": lambda image, rng: image,
    "noise": noise, "blur": blur, "JPEG": jpeg, "pixelate": pixelate, "contrast": contrast, "brightness": brightness,
}  # fmt: skip


def to_image(image: Pixels) -> Image.Image:
    return Image.fromarray((255 * np.clip(image, 0, 1)).round().astype(np.uint8))


def to_pixels(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("RGB"), np.float64) / 255


def store(data: Path, images: Path) -> None:
    """Write the corrupted images of every set as one array, and their classes."""
    images.mkdir(parents=True, exist_ok=True)
    for name in SETS:
        rng = np.random.default_rng(0)
        folder = data / name / "test"
        classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
        paths = sorted(folder.rglob("*.jpg"))
        paths = [paths[index] for index in sorted(rng.permutation(len(paths))[:COUNT])]
        pixels = np.empty((len(CORRUPTIONS), len(paths), 3, SIZE, SIZE), np.uint8)
        for j, path in enumerate(paths):
            with Image.open(path) as image:
                whole = to_pixels(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))
            for i, corrupt in enumerate(CORRUPTIONS.values()):
                pixels[i, j] = np.asarray(to_image(corrupt(whole, rng))).transpose(2, 0, 1)
        np.save(images / f"{name}.npy", pixels)
        write_atomic(images / f"{name}-classes.json", json.dumps(classes).encode())
        np.save(images / f"{name}-labels.npy", np.array([classes.index(path.parent.name) for path in paths]))
        print(f"{name}: {len(paths)} images, {len(CORRUPTIONS)} ways", flush=True)


def score(runs: Path, images: Path, records: Path) -> None:
    """Let every tuned file of a plan's final runs answer, and write which answers are right."""
    folder = Store(runs)
    plan = folder.load_experiment()
    backbone = vpt.load_backbone(plan.backbone, weights=plan.weights)
    cells = load_results(folder).cells.values()  # without runs of an earlier form of the plan
    done = [record for cell in cells for record in cell.final_records if record.status == "done"]
    records.mkdir(parents=True, exist_ok=True)
    for record in sorted(done, key=lambda one: (one.task, one.method, one.config["training"]["seed"])):
        name = record.task.rsplit("-", 1)[0]
        pixels_of, labels = np.load(images / f"{name}.npy", mmap_mode="r"), np.load(images / f"{name}-labels.npy")
        checksum = zlib.crc32(pixels_of[:, ::50].tobytes(), zlib.crc32(labels.tobytes()))
        out = records / f"{record.id}-{checksum:08x}.json"  # of these images
        if out.exists() or not folder.tuned_path(record.id).exists():
            continue
        model = vpt.load(folder.tuned_path(record.id), backbone)
        classes = json.loads((images / f"{name}-classes.json").read_text(encoding="utf-8"))
        if list(model.classes or ()) != classes:
            sys.exit(f"{folder.tuned_path(record.id)} has the classes {model.classes}, and {images} has {classes}")
        right = {}
        for pixels, corruption in zip(pixels_of, CORRUPTIONS, strict=True):
            dataset = DeviceDataset.for_model(model, Examples(np.ascontiguousarray(pixels), labels))
            logits = predict_logits(model, dataset, bf16=True)
            right[corruption] = (logits.argmax(1).numpy() == labels).astype(int).tolist()
        result = {"set": name, "method": record.method, "seed": record.config["training"]["seed"], "right": right}
        write_atomic(out, json.dumps(result).encode())
        means = ", ".join(f"{corruption} {100 * np.mean(hits):.1f}" for corruption, hits in right.items())
        print(f"{name}  {record.method}  seed {result['seed']}  {means}", flush=True)


def read_records(records: Path) -> Runs:
    """Right answers of every seed, in the order of the seeds."""
    found: dict[tuple[str, str], dict[int, NDArray[np.bool_]]] = defaultdict(dict)
    for path in records.glob("*.json"):
        one = json.loads(path.read_text(encoding="utf-8"))
        found[one["set"], one["method"]][one["seed"]] = np.array([one["right"][key] for key in CORRUPTIONS], bool)
    return {cell: [seeds[seed] for seed in sorted(seeds)] for cell, seeds in sorted(found.items())}


def bootstrap(points: NDArray[np.float64]) -> tuple[float, float, float]:
    """The mean of (seeds, images), and its 95 % interval by a bootstrap over both; of few seeds, it is too narrow."""
    (seeds, images), rng = points.shape, np.random.default_rng(0)
    samples = [points[rng.integers(0, seeds, seeds)][:, rng.integers(0, images, images)].mean() for _ in range(TRIALS)]
    low, high = np.percentile(samples, [2.5, 97.5])
    return float(points.mean()), float(low), float(high)


def loss_interval(seeds: Sequence[NDArray[np.bool_]]) -> tuple[float, float, float]:
    """Points that the mean corruption costs, and their interval."""
    right = 100 * np.stack(seeds).astype(np.float64)
    return bootstrap(right[:, 0] - right[:, 1:].mean(1))


def summarize(runs: Runs) -> list[dict[str, Any]]:
    """A row for each set and method."""
    rows = []
    for (name, method), seeds in runs.items():
        top1 = {
            corruption: [float(100 * right[i].mean()) for right in seeds] for i, corruption in enumerate(CORRUPTIONS)
        }
        rows.append({"set": name, "method": method, "top1": top1, "loss": loss_interval(seeds)})
    return rows


def format_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a row for each set and method."""
    lines = [
        f"**Corrupted images**: test top-1 in %, mean over seeds ± standard deviation, of {COUNT} test images a set at "
        "severity 3. Loss: clean minus the mean of the six, in points, with the 95 % interval by a bootstrap over "
        "seeds and images; of n = 1, over images alone, and of three seeds, somewhat too narrow.",
        "",
        f"| set | method | n | {' | '.join(CORRUPTIONS)} | loss |",
        f"|---|---|---:|{'---:|' * len(CORRUPTIONS)}---:|",
    ]
    for row in rows:
        scores = list(row["top1"].values())
        cells = [
            f"{statistics.fmean(one):.1f}" + (f" ± {statistics.stdev(one):.1f}" if len(one) > 1 else "")
            for one in scores
        ]  # fmt: skip
        loss, low, high = row["loss"]
        cells.append(f"{loss:.1f} ({low:.1f} to {high:.1f})")
        lines.append(f"| {SETS[row['set']]} | {row['method']} | {len(scores[0])} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A panel for each set: a line for each method over the corruptions. A method looks the same in all panels."""
    names = [name for name in SETS if any(row["set"] == name for row in rows)]
    methods = sorted({row["method"] for row in rows})
    looks = dict(zip(methods, style.series_styles(len(methods)), strict=True))
    figure = canvas.make_figure(10.0, 3.2 * math.ceil(len(names) / 2) + 0.6)
    panels = figure.subplots(math.ceil(len(names) / 2), 2, sharex=True, sharey=True, squeeze=False).flat
    lines: dict[str, Any] = {}
    for axes, name in zip(panels, names, strict=False):
        for row in (row for row in rows if row["set"] == name):
            means = [statistics.fmean(scores) for scores in row["top1"].values()]
            (line,) = axes.plot(list(CORRUPTIONS), means, linewidth=0.8, label=row["method"], **looks[row["method"]])
            lines[row["method"]] = line
        axes.set_title(SETS[name])
        axes.set_ylabel("top-1, %")
        axes.tick_params(axis="x", rotation=30)
    figure.legend(
        handles=[lines[method] for method in methods], frameon=False, fontsize=8, ncols=4, loc="outside lower center"
    )
    canvas.save_figure(figure, path)


def report(records: Path) -> None:
    """Write the figures, the table and the picture of what is done."""
    rows = summarize(read_records(records))
    if not rows:
        sys.exit(f"{records} has no results: run `score` first")
    table = format_table(rows)
    command = "python benchmarks/corruptions.py report --records RECORDS"
    write_section("corruptions", "corruptions", {"rows": rows}, command, table)
    write_between_marks(PAGE, "corruptions", (RESULTS_DIR / "corruptions.md").read_text(encoding="utf-8").rstrip())
    draw(rows, RESULTS_DIR / "corruptions.png")
    print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    storing, scoring = commands.add_parser("store"), commands.add_parser("score")
    storing.add_argument("--data", type=Path, required=True, help="folder with the four sets")
    scoring.add_argument("runs", type=Path, help="folder of the plan's runs")
    for parts in (storing, scoring):
        parts.add_argument("--images", type=Path, required=True, help="folder of the corrupted images")
    for parts in (scoring, commands.add_parser("report")):
        parts.add_argument("--records", type=Path, required=True, help="folder of the results")
    options = parser.parse_args()
    if options.command == "store":
        store(options.data, options.images)
    elif options.command == "score":
        score(options.runs, options.images, options.records)
    else:
        report(options.records)


if __name__ == "__main__":
    main()
