"""How long `vpt tune --minutes` takes from command to written file, and how good its model is.

    python benchmarks/minutes.py --data FOLDER --backbone deit_tiny_patch16_224.fb_in1k --weights FILE
    python benchmarks/minutes.py --data FOLDER --minutes 10 --methods linear vpt lora full --records RECORDS

Every search is a process of its own, on a machine that does nothing else. `--methods` gives each of these methods the
same minutes, too: the search is narrowed to it and the probe. In classification, the model of the whole search is
compared with each of theirs on every test image. With `--records`, searches and their files stay in a folder, and are
not done again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import vpt
from corruptions import bootstrap
from report import write_section
from vpt.core.io import write_atomic

TOLERANCE = 0.1  # of the budget


def measure(minutes: float, data: Path, options: list[str], method: str | None, out: Path) -> dict[str, Any]:
    """Run one search, among all methods or narrowed to one; the figures of its result and its seconds."""
    line = [sys.executable, "-m", "vpt", "tune", str(data), "--out", str(out), "--minutes", f"{minutes:g}"]
    start = time.perf_counter()
    narrowed = ["--method", method] if method else []
    done = subprocess.run([*line, "--json", *options, *narrowed], check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    result = json.loads(done.stdout)
    search = result["search"]
    tried = sum("score" in row for row in search["candidates"])
    return {"minutes": minutes, "asked": method or "all", "seconds": seconds, "share": seconds / (60 * minutes),
            "tried": tried, "shipped": search["selected"], "method": result["method"], "head": result["head"],
            "metric": search["metric"], "score": search["score"], "interval": search["interval"],
            "images": result["images"], "image_size": result["job"]["image_size"]}  # fmt: skip


def format_size(figures: dict[str, Any]) -> str:
    """The size of the images, where the search has chosen another one than that of the backbone."""
    return f", {figures['image_size']} px" if figures.get("image_size") else ""


def measure_once(folder: Path, minutes: float, data: Path, options: list[str], method: str | None) -> dict[str, Any]:
    """The record of a search in the folder, after the search if it has none."""
    name = f"{data.name}-{minutes:g}-{method or 'all'}"
    record, out = folder / f"{name}.json", folder / f"{name}.safetensors"
    if not record.exists():
        figures = measure(minutes, data, options, method, out)
        write_atomic(record, json.dumps({**figures, "file": out.name}, indent=1).encode())
    found: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
    return found


def read_right(file: Path, data: Path, **backbone: Any) -> NDArray[np.float64]:
    """Which test images a file answers rightly, 100 or 0, of the shape (1, images)."""
    images = sorted(path for path in (data / "test").rglob("*") if path.is_file())
    answers = vpt.predict(str(file), images, **backbone)
    return np.array([[100.0 * (one.label == path.parent.name) for one, path in zip(answers, images, strict=True)]])


def compare(figures: list[dict[str, Any]], folder: Path, data: Path, **backbone: Any) -> None:
    """Add to each narrowed search what the whole search of as many minutes has above it on all test images."""
    whole = {f["minutes"]: read_right(folder / f["file"], data, **backbone) for f in figures if f["asked"] == "all"}
    for f in figures:
        if f["asked"] != "all" and f["minutes"] in whole:
            f["below"] = bootstrap(whole[f["minutes"]] - read_right(folder / f["file"], data, **backbone))


def format_below(figures: dict[str, Any]) -> str:
    """Points with their 95 % interval over test images."""
    if "below" not in figures:
        return "–"
    points, low, high = figures["below"]
    return f"{points:+.1f} ({low:+.1f} to {high:+.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 3, 10])
    parser.add_argument("--methods", nargs="+", default=[], help="methods that get the same minutes, each alone")
    parser.add_argument("--backbone")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--images-per-class", type=int)
    parser.add_argument("--records", type=Path, help="folder that keeps the searches and their files")
    options = parser.parse_args()
    given = {
        "--backbone": options.backbone,
        "--weights": options.weights,
        "--images-per-class": options.images_per_class,
    }
    flags = [part for name, value in given.items() if value for part in (name, str(value))]
    asked = [(minutes, method) for minutes in options.minutes for method in (None, *options.methods)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.records or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        figures = [measure_once(folder, minutes, options.data, flags, method) for minutes, method in asked]
        if options.methods and (options.data / "test").is_dir() and figures[0].get("metric") != "miou":
            compare(figures, folder, options.data, backbone=options.backbone, weights=options.weights)
    late = [f for f in figures if f["share"] > 1 + TOLERANCE]
    lines = [
        f"**Budgets** on {options.data.name}, {options.backbone or 'the embedded backbone'}: seconds from the command "
        f"to the end of its process.{' The score is mean IoU.' if figures[0].get('metric') == 'miou' else ''}",
        "",
        "| minutes | methods | seconds | of the budget | tried | shipped | score, % (95 % interval) | test images "
        "| all methods minus this one, points |",
        "|---:|---|---:|---:|---:|---|---:|---:|---:|",
        *(
            f"| {f['minutes']:g} | {f['asked']} | {f['seconds']:.0f} | {100 * f['share']:.0f} % | {f['tried']} "
            f"| {f['shipped']}{format_size(f)} "
            f"| {100 * f['score']:.1f} ({100 * f['interval'][0]:.1f} to {100 * f['interval'][1]:.1f}) "
            f"| {f['images'].get('test', 0)} | {format_below(f)} |"
            for f in figures
        ),
    ]
    table = "\n".join(lines)
    names = [Path(flag).name for flag in flags]  # no path of this machine
    names += ["--methods", *(f'"{method}"' for method in options.methods)] if options.methods else []
    times = ["--minutes", *(f"{minutes:g}" for minutes in options.minutes)]
    command = " ".join(["python benchmarks/minutes.py --data", options.data.name, *times, *names])
    section = f"{'methods' if options.methods else 'minutes'} on {options.data.name}"
    write_section("minutes", section, {"runs": figures}, command, table)
    print(table)
    if late:
        print(f"{len(late)} of {len(figures)} took more than {100 * TOLERANCE:.0f} % above the budget", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
