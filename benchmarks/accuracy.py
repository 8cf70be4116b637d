"""Accuracy of the methods on real images: DeiT-Tiny on four small sets, several seeds, one table.

    python benchmarks/accuracy.py --weights deit_tiny.safetensors --data FOLDER --epochs 2

FOLDER holds the sets as class folders with train and test (caltech101, dtd10, rsscn7, signdigits). Each run is the
same job that `vpt tune ... --train-on trainval` does; killed, it goes on where it stopped. A run's record lies under
--work, the table and all figures under --results.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

TASKS = ("signdigits", "rsscn7", "dtd10", "caltech101")
# Learning rates (per 256) and the head's share: chosen on parts of the training images, for all sets alike (LOG.md).
PROMPTS = {"learning_rate": 0.1, "head_lr_scale": 0.02}
FULL = {"learning_rate": 0.001}
# The probe's weight decay: from 0.003, 0.01, 0.03 and 0.1, by cross-validation in five parts of the training images.
PROBE_DECAY = {"signdigits": 0.01, "rsscn7": 0.1, "dtd10": 0.1, "caltech101": 0.01}
RANDOM_CROPS_DECAY = {
    "signdigits": 0.003,
    "rsscn7": 0.03,
    "dtd10": 0.1,
    "caltech101": 0.01,
}  # the same, with random crops
PROBE = {"optimizer": "sgd", "learning_rate": 0.2, "epochs": 100, "batch_size": 64}
# With random crops there is more to learn: so long and so gently that the loss ends within 0.001 of its minimum.
RANDOM_CROPS = {
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "epochs": 1000,
    "batch_size": 256,
    "augment": "random_resized_crop",
}


def configs(task: str, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Row -> recipe. Probes are computed on cached features; what is tuned begins with the head of the first."""
    tuned = {
        "optimizer": "adamw",
        "weight_decay": 1e-4,
        "epochs": options.epochs,
        "batch_size": options.batch_size,
        "probe_epochs": PROBE["epochs"],
        "probe_weight_decay": PROBE_DECAY[task],
    }
    return {
        "linear": {**PROBE, "weight_decay": PROBE_DECAY[task]},
        "linear(output=cls_image_mean)": {**PROBE, "weight_decay": PROBE_DECAY[task]},
        "linear, random crops": {**RANDOM_CROPS, "weight_decay": RANDOM_CROPS_DECAY[task]},
        "vpt(dropout=0)": {**tuned, **PROMPTS},
        'vpt(depth="shallow", dropout=0)': {**tuned, **PROMPTS},
        "full": {**tuned, **FULL},
    }


def runs(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every run, method by method: what matters most is known first."""
    for row in options.rows or configs(TASKS[0], options):
        for seed in range(options.seeds):
            for task in TASKS:
                config = {**configs(task, options)[row], "seed": seed}
                yield {"task": task, "row": row, "method": row.partition(", random")[0], "config": config}


def run(spec: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """One run in a process of its own, so that its peak memory is its own."""
    name = "".join(c if c.isalnum() else "_" for c in f"{spec['task']} {spec['row']} {spec['config']['seed']}")
    job = json.dumps({**spec, "data": str(options.data / spec["task"]), "weights": str(options.weights)})
    code = "import sys; sys.path.insert(0, sys.argv[3]); import accuracy; accuracy.run_job(sys.argv[1], sys.argv[2])"
    out = options.work / f"{name}.safetensors"
    here = str(Path(__file__).parent)
    threads = {
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // options.workers)),
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    process = subprocess.run(
        [sys.executable, "-c", code, job, str(out), here], env={**os.environ, **threads}, check=False
    )
    if process.returncode:
        raise SystemExit(f"{name} failed with exit code {process.returncode}")
    return {**spec, "result": json.loads((out.with_suffix(".run") / "result.json").read_text())}


def run_job(job: str, out: str) -> None:
    """The inside of that process."""
    from vpt.training import TrainingConfig
    from vpt.training.job import Job
    from vpt.tuning import tune

    spec = json.loads(job)
    result = tune(
        Job(
            data=spec["data"],
            out=Path(out),
            config=TrainingConfig(**{**spec["config"], "warmup_epochs": spec["config"]["epochs"] / 10}),
            method=spec["method"],
            backbone="deit_tiny_patch16_224",
            weights=Path(spec["weights"]),
            train_on="trainval",
            interpolation="bilinear",
            cache=Path(out).parent / "features",
        )
    )
    print(f"{spec['task']:<11} {spec['row']:<32} seed {spec['config']['seed']}  top-1 {result.top1:.4f}  "
          f"{result.seconds:.0f} s", flush=True)  # fmt: skip


def table(records: list[dict[str, Any]], command: str) -> str:
    """Mean and spread over seeds, Markdown."""
    rows = list(dict.fromkeys(record["row"] for record in records))
    lines = [f"| method | trained | {' | '.join(TASKS)} | mean |", "|---|---|" + "---|" * (len(TASKS) + 1)]
    for row in rows:
        cells, means = [], []
        row_records = [record for record in records if record["row"] == row]
        for task in TASKS:
            values = [100 * record["result"]["top1"] for record in row_records if record["task"] == task]
            means.append(statistics.mean(values))
            std = statistics.stdev(values) if len(values) > 1 else float("nan")
            cells.append(f"{means[-1]:.2f} ± {std:.2f}")
        trained = max(record["result"]["trainable_parameters"] for record in row_records)
        lines.append(f"| {row} | {trained:,} | {' | '.join(cells)} | {statistics.mean(means):.2f} |")
    sample = records[0]["result"]
    seeds = len({record["config"]["seed"] for record in records})
    environment = sample["environment"]
    tuned = next(record["config"] for record in records if "probe_epochs" in record["config"])
    decays, cropped = (
        ", ".join(f"{task} {decay:g}" for task, decay in chosen.items()) for chosen in (PROBE_DECAY, RANDOM_CROPS_DECAY)
    )
    lines += [
        "",
        f"Top-1 in %, mean ± standard deviation over n = {seeds} seeds, test set, last epoch; trained on all "
        "training images.",
        "The splits are these sets' own, not VTAB's: the figures compare methods with each other, not with the paper.",
        "",
        f"linear: {PROBE['epochs']} epochs on frozen features, SGD {PROBE['learning_rate']:g} per 256, "
        f"batch {PROBE['batch_size']}, weight decay: {decays}; it reads CLS, or CLS and the mean over patches. "
        f"With random crops: {RANDOM_CROPS['epochs']} epochs, each with one of sixteen parts of each image, drawn once (half "
        f"to all of its area, mirrored or not), or the image itself; SGD {RANDOM_CROPS['learning_rate']:g} per 256, batch "
        f"{RANDOM_CROPS['batch_size']}, weight decay: {cropped}. The last three begin with the head of the first probe, "
        f"and then train for {tuned['epochs']} epochs through the backbone: AdamW, weight decay "
        f"{tuned['weight_decay']:g}, batch {tuned['batch_size']}, cosine; full {FULL['learning_rate']:g} per 256; "
        f"prompts (p = 10) {PROMPTS['learning_rate']:g} per 256, their head {PROMPTS['head_lr_scale']:g} times that. "
        "Images are scaled to 224 x 224, bilinear, and but for those crops not augmented.",
        "",
        f"Hardware: {environment['processor']}, {environment['cores']} cores. Versions: "
        + ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
        + f".\nCommand: {command}",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="DeiT-Tiny, .safetensors or .pth")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", nargs="+", default=[], help="only these; others stay as they were [default: all]")
    parser.add_argument("--workers", type=int, default=2, help="runs at once")
    parser.add_argument("--work", type=Path, default=Path("scratch/accuracy"))
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    with ThreadPoolExecutor(options.workers) as pool:
        records = list(pool.map(lambda spec: run(spec, options), runs(options)))
    for record in records:
        for path in ("data", "out", "weights", "cache"):  # places of one machine say nothing to others
            record["result"]["job"].pop(path, None)
        record["result"].pop("file", None)
        record["result"]["history"] = record["result"]["history"][-1:]  # a thousand epochs are in the run folder
    command = (
        f"python benchmarks/accuracy.py --weights WEIGHTS --data FOLDER --epochs {options.epochs} "
        f"--batch-size {options.batch_size} --seeds {options.seeds}"
    )
    if options.rows:
        command += " --rows " + " ".join(f'"{row}"' for row in options.rows)
    for record in records:
        record["command"] = command
    options.results.mkdir(parents=True, exist_ok=True)
    path = options.results / "accuracy.json"
    saved = json.loads(path.read_text())["runs"] if path.exists() else []
    new_rows = {record["row"] for record in records}
    order = list(configs(TASKS[0], options))
    records = sorted(
        [*records, *(record for record in saved if record["row"] not in new_rows)], key=lambda r: order.index(r["row"])
    )
    commands = "; ".join(f"`{each}`" for each in dict.fromkeys(record["command"] for record in records))
    markdown = table(records, commands)
    (options.results / "accuracy.md").write_text(f"# Accuracy on real images, DeiT-Tiny/16\n\n{markdown}")
    path.write_text(json.dumps({"runs": records}, indent=1))
    print(markdown)


if __name__ == "__main__":
    main()
