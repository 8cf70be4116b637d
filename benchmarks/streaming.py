"""Peak memory of a run at two numbers of images, and the throughput of the loader against that of its decoder.

    python benchmarks/streaming.py

A linear probe of the embedded backbone is tuned on streamed PNG files of 32 x 32 px. Peak memory is that of the
processes together: proportional set size, which counts a shared page once, and without pages of files, which the
system takes back when it needs them; the sum with them is recorded, too. The loader is timed on JPEG files of
500 x 375 px, and the decoder on the same files in as many processes, each of which decodes its part and hands nothing
over. Linux only.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data import draw_jpegs
from measure import format_quartiles, quartiles
from report import write_section
from vpt.data.decoding.batches import BatchRequest
from vpt.data.decoding.stream import ImageLoader
from vpt.data.images.files import capture_warnings
from vpt.data.images.inputs import read_image
from vpt.data.preprocessing import Preprocessing

INTERVAL = 0.1  # seconds between two looks at the memory
PREPROCESSING = Preprocessing(size=224)
WARM_UP = 16  # images that a process decodes before it is timed


def draw_pngs(folder: Path, count: int, classes: int = 10) -> None:
    """Noise around one color of each class."""
    rng = np.random.default_rng(0)
    colors = rng.integers(64, 192, (classes, 3))
    for label in range(classes):
        (folder / f"class{label}").mkdir(parents=True)
    for number in range(count):
        label = number % classes
        pixels = colors[label] + rng.integers(-60, 61, (32, 32, 3))
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        image.save(folder / f"class{label}" / f"{number:06}.png", compress_level=1)


def children_of(pid: int) -> list[int]:
    """The process and all its descendants."""
    found = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            found += children_of(int(child))
    return found


def memory_of(pid: int) -> tuple[int, int]:
    """Bytes of a process tree: without and with pages of files."""
    own = total = 0
    for process in children_of(pid):
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:  # it has ended
            continue
        values = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines[1:]}
        own += values["Pss_Anon"] + values["Pss_Shmem"]
        total += values["Pss"]
    return own, total


def measure_run(folder: Path, out: Path, workers: int) -> dict[str, Any]:
    """Tune a linear probe in a process of its own, and look at its memory until it ends."""
    command = [
        sys.executable, "-m", "vpt", "tune", str(folder), "--out", str(out), "--method", "linear", "--epochs", "2",
        "--loading", "stream", "--workers", str(workers),
    ]  # fmt: skip
    started, peaks = time.perf_counter(), (0, 0)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        try:
            found = memory_of(process.pid)
        except OSError:
            break
        peaks = max(peaks[0], found[0]), max(peaks[1], found[1])
        time.sleep(INTERVAL)
    if process.wait():
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return {"peak": peaks[0], "peak_with_files": peaks[1], "seconds": time.perf_counter() - started}


def decode_part(paths: list[Path], barrier: Any) -> None:
    """What a worker does without a loader: decode and resize, after a few images as those of the loader have."""
    with capture_warnings():
        for path in paths[:WARM_UP]:
            PREPROCESSING.resize_image(read_image(path)[0])
        barrier.wait()
        for path in paths:
            PREPROCESSING.resize_image(read_image(path)[0])
    barrier.wait()


def time_decoder(paths: list[Path], workers: int) -> float:
    """Images a second of the decoder alone, in several processes."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(workers + 1)
    processes = [context.Process(target=decode_part, args=(paths[k::workers], barrier)) for k in range(workers)]
    for process in processes:
        process.start()
    barrier.wait()
    start = time.perf_counter()
    barrier.wait()
    seconds = time.perf_counter() - start
    for process in processes:
        process.join()
    return len(paths) / seconds


def time_loader(loader: ImageLoader, count: int, batch: int) -> float:
    """Images a second of the loader, whose workers run already."""
    requests = [BatchRequest(np.arange(start, min(count, start + batch))) for start in range(0, count, batch)]
    start = time.perf_counter()
    loader.plan(requests)
    for request in requests:
        loader.load(request)
    return count / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs=2, default=[10_000, 100_000])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--files", type=int, default=1024, help="JPEG files of the throughput")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        paths = list(draw_jpegs(root, options.files).paths)
        loader = ImageLoader([tuple(paths)], PREPROCESSING, workers=options.workers)
        time_loader(loader, options.batch, options.batch)  # starts the workers
        rounds = [
            (time_decoder(paths, options.workers), time_loader(loader, len(paths), options.batch))
            for _ in range(options.rounds)
        ]
        runs = {}
        for count in options.images:
            folder = root / f"images{count}"
            draw_pngs(folder, count)
            runs[count] = measure_run(folder, root / f"{count}.safetensors", options.workers)
    small, large = (runs[count] for count in options.images)
    figures = {
        "throughput": {
            "decoder": quartiles([decoder for decoder, _ in rounds]),
            "loader": quartiles([own for _, own in rounds]),
            "share": quartiles([own / decoder for decoder, own in rounds]),
        },
        "memory": {
            "runs": {str(count): run for count, run in runs.items()},
            "ratio": large["peak"] / small["peak"],
            "ratio_with_files": large["peak_with_files"] / small["peak_with_files"],
        },
    }
    speed, memory = figures["throughput"], figures["memory"]
    rows = [
        f"| {count:,} | {run['peak'] / 2**20:.0f} MiB | {run['peak_with_files'] / 2**20:.0f} MiB | "
        f"{run['seconds']:.0f} s |"
        for count, run in runs.items()
    ]
    table = "\n".join(
        [
            f"**Streaming**: a linear probe on PNG files of 32 x 32 px with {options.workers} workers.",
            "",
            "| images | peak memory of all processes | with pages of files | time |",
            "|---:|---:|---:|---:|",
            *rows,
            f"| ratio | {memory['ratio']:.2f} | {memory['ratio_with_files']:.2f} | |",
            "",
            f"JPEG files of 500 x 375 px: the loader gives {format_quartiles(speed['loader'], 0)} images/s with "
            f"{options.workers} workers, the decoder alone {format_quartiles(speed['decoder'], 0)}: "
            f"{format_quartiles(speed['share'])} of it.",
        ]
    )
    command = (
        f"python benchmarks/streaming.py --images {options.images[0]} {options.images[1]} --workers {options.workers} "
        f"--files {options.files} --batch {options.batch} --rounds {options.rounds}"
    )
    write_section("streaming", "streaming", figures, command, table)
    print(table, f"(load {os.getloadavg()[0]:.1f})")


if __name__ == "__main__":
    main()
