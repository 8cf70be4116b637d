"""A thousand tuned files on one backbone: memory, time to load, the first request, and throughput. Linux only.

    python benchmarks/many_tasks.py
    python benchmarks/many_tasks.py --backbone deit_tiny_patch16_224 --weights FILE

In one process, without HTTP. Batches of as many images are of one task, each of another task with prompts, or each of
another task with LoRA, whose layers share no forward pass; the forms take turns, every second round backwards.
"""

from __future__ import annotations

import argparse
import gc
import random
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from measure import format_quartiles, quartiles, summarize, time_paired
from report import write_section
from vpt import attach, load_backbone, save
from vpt.backbones import DEFAULT, Backbone
from vpt.serving.bank import Bank

CLASSES = 10


def make_files(backbone: Backbone, method: str, count: int, folder: Path) -> None:
    """Write tuned files of one method and of random weights."""
    folder.mkdir()
    model = attach(backbone, method, CLASSES)
    generator = torch.Generator().manual_seed(0)
    for number in range(count):
        with torch.no_grad():
            for weight in model.trainable_parameters():
                weight.normal_(std=0.05, generator=generator)
        save(model, folder / f"{number}.safetensors")


def memory() -> int:
    """Bytes that this process has of its own."""
    gc.collect()
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon")) * 1024


def predict(bank: Bank, names: list[str], image: Image.Image) -> None:
    bank.predict([bank.make_request(name, image) for name in names])


def load(folder: Path, backbone: Backbone, image: Image.Image) -> tuple[Bank, dict[str, float]]:
    """Serve a folder with all weights in memory; seconds of wall and CPU and bytes, each for one task."""
    bank = Bank([folder], backbone=backbone)
    names = list(bank.tasks)
    predict(bank, names[:1], image)  # what the first task alone takes, such as the network with slots for prompts
    before, start, cpu = memory(), time.perf_counter(), time.process_time()
    bank.preload()
    left = max(1, len(names) - 1)
    return bank, {
        "seconds": (time.perf_counter() - start) / left,
        "cpu_seconds": (time.process_time() - cpu) / left,
        "bytes": (memory() - before) / left,
        "file_bytes": (folder / f"{names[0]}.safetensors").stat().st_size,
    }


def first_requests(folder: Path, backbone: Backbone, image: Image.Image, count: int) -> dict[str, list[float]]:
    """Seconds of the first request of tasks, whose weights are read then, and of their second."""
    bank = Bank([folder], backbone=backbone)
    names = random.Random(0).sample(list(bank.tasks), count + 1)
    predict(bank, names[:1], image)
    found: dict[str, list[float]] = {"first": [], "second": []}
    for name in names[1:]:
        for seconds in found.values():
            start = time.perf_counter()
            predict(bank, [name], image)
            seconds.append(time.perf_counter() - start)
    return found


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    backbone = load_backbone(options.backbone, weights=options.weights)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    make_files(backbone, options.method, options.tasks, folder / "prompts")
    make_files(backbone, "lora", options.batch, folder / "lora")
    start = time.perf_counter()
    Bank([folder / "prompts"], backbone=backbone)
    headers = time.perf_counter() - start
    requests = first_requests(folder / "prompts", backbone, image, options.requests)
    loras, lora = load(folder / "lora", backbone, image)
    bank, prompts = load(folder / "prompts", backbone, image)
    rng, names = random.Random(1), list(bank.tasks)

    def mixed() -> None:
        predict(bank, rng.sample(names, options.batch), image)

    variants: dict[str, Callable[[], object]] = {
        "one task": partial(predict, bank, names[:1] * options.batch, image),
        "a task for each image": mixed,
        "a LoRA for each image": partial(predict, loras, list(loras.tasks), image),
    }
    throughput = summarize(time_paired(variants, options.rounds), "one task")
    for one in throughput.values():
        seconds = one["seconds"]
        ends = {"median": "median", "low": "high", "high": "low"}
        one["images_a_second"] = {name: options.batch / seconds[other] for name, other in ends.items()}
    return {
        "header_seconds": headers / options.tasks,
        "prompts": prompts,
        "lora": lora,
        "requests": {name: quartiles([1000 * each for each in seconds]) for name, seconds in requests.items()},
        "throughput": throughput,
    }


def format_table(found: dict[str, Any], options: argparse.Namespace) -> str:
    """The figures as Markdown."""
    rows = [
        f"| {method} | {count:,} | {one['file_bytes'] / 1000:.0f} | {one['bytes'] / 1000:.0f} "
        f"| {1000 * one['seconds']:.1f} | {1000 * one['cpu_seconds']:.1f} |"
        for method, count, one in (
            (f"`{options.method}`", options.tasks, found["prompts"]), ("`lora`", options.batch, found["lora"])
        )
    ]  # fmt: skip
    images = [
        f"| {name} | {format_quartiles(one['images_a_second'], 0)} | {format_quartiles(one['times_reference'])} |"
        for name, one in found["throughput"].items()
    ]
    first, second = (format_quartiles(found["requests"][name], 1) for name in ("first", "second"))
    return "\n".join(
        [
            f"**{options.tasks:,} tasks** on {options.backbone}, one process, without HTTP. "
            f"Their headers are read in {1000 * found['header_seconds']:.1f} ms each. The first request of a task, "
            f"whose weights are read then, takes {first} ms, the second {second} ms (n = {options.requests}).",
            "",
            "| method | tasks | file, kB | memory a task, kB | load a task, ms | CPU, ms |",
            "|---|---:|---:|---:|---:|---:|",
            *rows,
            "",
            f"| batch of {options.batch} images | images/s | times the seconds of one task |",
            "|---|---:|---:|",
            *images,
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--method", default="vpt(length=10)")
    parser.add_argument("--backbone", default=DEFAULT)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--requests", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--dry-run", action="store_true", help="write no figures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        found = measure(options, Path(tmp))
    table = format_table(found, options)
    print(table)
    if not options.dry_run:
        given = f" --backbone {options.backbone}" * (options.backbone != DEFAULT)
        given += f" --weights {options.weights.name}" if options.weights else ""
        command = f"python benchmarks/many_tasks.py --tasks {options.tasks}{given} --rounds {options.rounds}"
        write_section("many_tasks", options.backbone, found, command, table)


if __name__ == "__main__":
    main()
