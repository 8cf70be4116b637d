"""Fixed recipes against a class token probe: what `vpt tune --epochs` gives without a search.

    python benchmarks/defaults.py --data FOLDER --weights FILE --records FOLDER
    python benchmarks/defaults.py --records FOLDER --report
    python benchmarks/defaults.py --data FOLDER --weights FILE --records FOLDER --split val    to choose a recipe by

DeiT-Tiny, 20 images of each class (Caltech-101: 5), drawn anew for each seed; the probe and all methods of a seed
share the draw. Every training is scored on the test images, or on val without a look at them, four times: with the
trained head alone, and with a ridge head beside it that reads the pooled feature, the last four blocks, or all
blocks. The probe is `linear` at its own default, 100 epochs. A result is a file of its own, so that the same command
goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from report import write_section
from vpt import TunedModel
from vpt.core.io import write_atomic
from vpt.model.readout import parse_readout
from vpt.tasks.base import PreparedData
from vpt.tasks.classification.ridge_head import add_ridge_head
from vpt.tasks.registry import TASKS
from vpt.training import Callback
from vpt.tuning import make_job, train_model

SETS = {"signdigits": (20, "sign digits"), "rsscn7": (20, "RSSCN7"), "dtd10": (20, "DTD-10"),
        "caltech101": (5, "Caltech-101")}  # fmt: skip
METHODS = ("vpt", "vpt(depth=shallow)", "bias", "lora", "adapter", "ssf", "full")
PROBE, PROBE_EPOCHS = "linear", 100
HEADS = {
    "trained head alone": None,
    "and ridge, pooled feature": "linear",
    "and ridge, last 4 blocks": "multi_block(blocks=last4)",
    "and ridge, all blocks": "multi_block(blocks=all, features=cls+mean+std)",
}
Results = dict[tuple[str, str, int, int], dict[str, float]]  # set, method, epochs, seed -> % by head


def run(
    data: Path, weights: Path, name: str, method: str, epochs: int, seed: int, precision: str, split: str
) -> dict[str, dict[str, float]]:
    """Train once, and return the top-1 of a split and the calibration error in %, each with every head."""
    parts: dict[str, Any] = {"val_fraction": 0.0, "train_on": "trainval"} if split == "test" else {"train_on": "train"}
    job = make_job(
        data / name, "unwritten.safetensors", method=method, epochs=epochs, seed=seed,
        backbone="deit_tiny_patch16_224", weights=weights, images_per_class=SETS[name][0], precision=precision,
        **parts,
    )  # fmt: skip
    prepared = TASKS["classification"].prepare(job, Callback())
    if split == "val":
        del prepared.images["test"]  # so that val is what is scored
    model, _ = train_model(job, prepared, Callback(), torch.device("cpu"))
    found = {"top1": dict[str, float](), "calibration_error": dict[str, float]()}
    score("trained head alone", prepared, model, found)
    if method == PROBE:
        return found
    for head, text in HEADS.items():
        if text is not None:
            joined, _ = add_ridge_head(
                model, parse_readout(text), prepared.decoded["train"],  # type: ignore[attr-defined]
                "auto", bf16=precision == "bf16", on_batch=lambda done, total: None,
            )  # fmt: skip
            joined.label_kind = model.label_kind
            score(head, prepared, joined, found)
    return found


def score(head: str, prepared: PreparedData, model: TunedModel, found: Mapping[str, dict[str, float]]) -> None:
    evaluation = prepared.score(model, Callback())
    assert evaluation.calibration_error is not None
    found["top1"][head] = 100 * evaluation.metrics["top1"]
    found["calibration_error"][head] = 100 * evaluation.calibration_error


def ending(precision: str, split: str) -> str:
    """The end of the names of results."""
    return f"-{precision}.json" if split == "test" else f"-{precision}-{split}.json"


def read_results(folder: Path, ends: str, metric: str = "top1") -> Results:
    """The results in a folder whose names end like that."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob(f"*{ends}"))]
    return {
        (one["set"], one["method"], one["epochs"], one["seed"]): one[metric] for one in found if metric in one
    }  # fmt: skip


def difference(results: Results, name: str, method: str, epochs: int, head: str) -> list[float]:
    """Top-1 minus that of the probe, in points, of every seed that has both."""
    seeds = sorted(seed for key in results for seed in [key[3]] if key[:3] == (name, method, epochs))
    pairs = [(results[name, method, epochs, seed], results.get((name, PROBE, PROBE_EPOCHS, seed))) for seed in seeds]
    return [found[head] - probe["trained head alone"] for found, probe in pairs if probe is not None]


def describe(values: Sequence[float]) -> str:
    """Mean, standard deviation and number."""
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):+.1f}{spread} ({len(values)})" if values else "–"


def format_table(results: Results, split: str) -> str:
    """Markdown: a row for each training and head, a column for each set."""
    probes = {
        name: [found["trained head alone"] for key, found in results.items() if key[:3] == (name, PROBE, PROBE_EPOCHS)]
        for name in SETS
    }
    lines = [
        f"**Fixed recipes**: points of {split} top-1 above the class token probe, mean ± standard deviation over the "
        "same draws (number of them).",
        "",
        f"| epochs | method | head | {' | '.join(title for _, title in SETS.values())} |",
        f"|---:|---|---|{'---:|' * len(SETS)}",
        f"| {PROBE_EPOCHS} | class token probe: top-1 in % | | "
        + " | ".join(f"{statistics.fmean(scores):.1f}" if scores else "–" for scores in probes.values())
        + " |",
    ]
    for epochs, method in sorted({(key[2], key[1]) for key in results if key[1] != PROBE}, key=order):
        for head in HEADS:
            cells = [describe(difference(results, name, method, epochs, head)) for name in SETS]
            lines.append(f"| {epochs} | `{method}` | {head} | {' | '.join(cells)} |")
    return "\n".join(lines)


def order(row: tuple[int, str]) -> tuple[int, int]:
    return row[0], METHODS.index(row[1])


def format_calibration(errors: Results, split: str) -> str:
    """Markdown: a row for each head, a column for each length of training."""
    lengths = sorted({(key[1], key[2]) for key in errors if key[1] != PROBE}, key=lambda row: order(row[::-1]))
    sets_of = [{key[0] for key in errors if key[1:3] == length} for length in lengths]
    shared = set.intersection(*sets_of) if sets_of else set[str]()
    titles = ", ".join(title for name, (_, title) in SETS.items() if name in shared)
    lines = [
        f"**Calibration error** on {split} of the same runs on {titles}, in %, mean over sets and draws (number of "
        "runs).",
        "",
        f"| head | {' | '.join(f'`{method}`, {epochs} epochs' for method, epochs in lengths)} |",
        f"|---|{'---:|' * len(lengths)}",
    ]
    for head in HEADS:
        cells = []
        for length in lengths:
            values = [found[head] for key, found in errors.items() if key[1:3] == length and key[0] in shared]
            cells.append(f"{statistics.fmean(values):.1f} ({len(values)})" if values else "–")
        lines.append(f"| {head} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_report(results: Results, errors: Results, command: str, split: str) -> None:
    values: list[Mapping[str, Any]] = [
        dict(zip(("set", "method", "epochs", "seed", "top1", "calibration_error"), (*key, found, errors.get(key)),
                 strict=True))
        for key, found in sorted(results.items())
    ]  # fmt: skip
    table = format_table(results, split)
    if errors:
        table += f"\n\n{format_calibration(errors, split)}"
    write_section("defaults", "defaults" if split == "test" else split, {"runs": values}, command, table)
    print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the four sets")
    parser.add_argument("--weights", type=Path, help="of DeiT-Tiny")
    parser.add_argument("--records", type=Path, required=True, help="folder of the results")
    parser.add_argument("--report", action="store_true", help="write the table of what is there, and train nothing")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--epochs", nargs="+", type=int, default=[3, 10])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--split", choices=["test", "val"], default="test", help="images that are scored")
    options = parser.parse_args()
    ends = ending(options.precision, options.split)
    options.records.mkdir(parents=True, exist_ok=True)
    if not options.report:
        if options.data is None or options.weights is None:
            parser.error("--data and --weights are needed to train")
        known, probes = (
            read_results(options.records, ends),
            list(product(options.seeds, [PROBE_EPOCHS], [PROBE])),
        )
        for seed, epochs, method in [*probes, *product(options.seeds, options.epochs, options.methods)]:
            for name in options.sets:
                if (name, method, epochs, seed) in known:
                    continue
                start = time.monotonic()
                found = run(options.data, options.weights, name, method, epochs, seed, options.precision, options.split)
                result = {"set": name, "method": method, "epochs": epochs, "seed": seed, **found,
                          "precision": options.precision, "seconds": time.monotonic() - start}  # fmt: skip
                file = options.records / f"{name}-{method}-{epochs}-{seed}{ends}"
                write_atomic(file, json.dumps(result, indent=1).encode())
                print(json.dumps(result), flush=True)
    command = f"python benchmarks/defaults.py --records FOLDER --precision {options.precision} --report"
    command += "" if options.split == "test" else f" --split {options.split}"
    read = partial(read_results, options.records, ends)
    write_report(read("top1"), read("calibration_error"), command, options.split)


if __name__ == "__main__":
    main()
