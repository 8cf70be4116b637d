"""Fixed recipes against a class token probe: what `vpt tune --epochs` gives without a search.

    python benchmarks/defaults.py --data FOLDER --weights FILE --records FOLDER
    python benchmarks/defaults.py --records FOLDER --report
    python benchmarks/defaults.py --data FOLDER --weights FILE --records FOLDER --split val --rates 0.5 1 2

DeiT-Tiny, 20 images of each class (Caltech-101: 5), drawn anew for each seed; the probe and all methods of a seed share
the draw. Every training is scored on the test images, with the trained head alone and with the ridge head beside it
that is the default; `--heads all` adds ridge heads on the last four blocks and on all. The probe is the better one of
`linear` at its own default, 100 epochs, and of ridge regression on the same feature. `--split val` scores val instead,
without a look at the test images, and `--rates` are factors of the method's default rate: so a recipe is chosen. The
report names the best factor of each method, and what the one that three sets choose costs on the fourth. A result is a
file of its own, so that the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from report import write_section
from vpt import TunedModel
from vpt.core.io import write_atomic
from vpt.model.readout import parse_readout
from vpt.tasks.classification.labels import label_task
from vpt.tasks.classification.prepared_data import ClassificationData
from vpt.tasks.classification.ridge_head import add_ridge_head, solve_head
from vpt.tasks.registry import TASKS
from vpt.training import Callback
from vpt.training.batches import DeviceDataset
from vpt.training.evaluation import predict_logits
from vpt.tuning import make_job, train_model

SETS = {"signdigits": (20, "sign digits"), "rsscn7": (20, "RSSCN7"), "dtd10": (20, "DTD-10"),
        "caltech101": (5, "Caltech-101")}  # fmt: skip
METHODS = ("vpt", "vpt(depth=shallow)", "bias", "lora", "adapter", "ssf", "full")
PROBE, PROBE_EPOCHS = "linear", 100
PROBE_HEADS = ("trained head alone", "ridge regression")
HEADS = {
    "trained head alone": None,
    "and ridge, pooled feature": "linear",
    "and ridge, last 4 blocks": "multi_block(blocks=last4)",
    "and ridge, all blocks": "multi_block(blocks=all, features=cls+mean+std)",
}
SHIPPED = "and ridge, pooled feature"  # what `vpt tune --epochs` has by default
Cell = tuple[str, str, int, int, float]  # set, method, epochs, seed, factor of the rate
Results = dict[Cell, dict[str, float]]  # % by head


def run(
    data: Path, weights: Path, cell: Cell, precision: str, split: str, heads: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Train once, and return the top-1 of a split and the calibration error in %, each with every head."""
    name, method, epochs, seed, factor = cell
    parts: dict[str, Any] = {"val_fraction": 0.0, "train_on": "trainval"} if split == "test" else {"train_on": "train"}
    job = make_job(
        data / name, "unwritten.safetensors", method=method, epochs=epochs, seed=seed,
        backbone="deit_tiny_patch16_224", weights=weights, images_per_class=SETS[name][0], precision=precision,
        **parts,
    )  # fmt: skip
    training = job.config.training
    rates = {"learning_rate": training.learning_rate * factor, "head_lr_scale": training.head_lr_scale / factor}
    job = replace(job, config=job.config.replace(**rates, val_interval=epochs))  # the head keeps its own rate
    prepared = TASKS["classification"].prepare(job, Callback())
    assert isinstance(prepared, ClassificationData)
    if split == "val":
        del prepared.decoded["test"]  # so that nothing can read it
    model, _ = train_model(job, prepared, Callback(), torch.device("cpu"))
    models = {"trained head alone": model}
    passes: dict[str, Any] = {"bf16": precision == "bf16", "on_batch": lambda done, total: None}
    if method == PROBE:
        models["ridge regression"] = copy.deepcopy(model)
        solve_head(models["ridge regression"], prepared.decoded["train"], "auto", **passes)
    for head in () if method == PROBE else heads:
        readout = HEADS[head]
        if readout is not None:
            models[head], _ = add_ridge_head(
                model, parse_readout(readout), prepared.decoded["train"], "auto", **passes
            )  # fmt: skip
    return score(models, prepared, split, bf16=precision == "bf16")


def score(
    models: Mapping[str, TunedModel], prepared: ClassificationData, split: str, *, bf16: bool
) -> dict[str, dict[str, float]]:
    """Score the heads of a trained model on a split; those that read the pooled feature share a pass."""
    found = {"top1": dict[str, float](), "calibration_error": dict[str, float]()}
    model = models["trained head alone"]
    images = prepared.decoded[split]
    pooled = [head for head in models if models[head].width == model.width]
    for together in (pooled, *([head] for head in models if head not in pooled)):
        first = models[together[0]].eval()
        heads = [models[head].head.eval() for head in together]

        def logits_of(inputs: Tensor, first: TunedModel = first, heads: Sequence[nn.Module] = heads) -> Tensor:
            feature = first.features(inputs)
            return torch.cat([head(feature) for head in heads], dim=1)

        dataset = DeviceDataset.for_model(first, images)
        every = predict_logits(logits_of, dataset, bf16=bf16).chunk(len(together), dim=1)
        for head, logits in zip(together, every, strict=True):
            scores = label_task(model.label_kind).score(logits, dataset.labels, images.groups)
            assert scores.calibration_error is not None
            found["top1"][head] = 100 * scores.metrics["top1"]
            found["calibration_error"][head] = 100 * scores.calibration_error
    return found


def ending(precision: str, split: str) -> str:
    """The end of the names of results."""
    return f"-{precision}.json" if split == "test" else f"-{precision}-{split}.json"


def read_results(folder: Path, ends: str, metric: str = "top1") -> Results:
    """The results in a folder whose names end like that."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob(f"*{ends}"))]
    return {
        (one["set"], one["method"], one["epochs"], one["seed"], one.get("rate_factor", 1.0)): one[metric]
        for one in found
        if metric in one
    }


def probe_scores(results: Results, name: str) -> dict[int, float]:
    """Top-1 of the probe on a set by seed: of the head with the highest mean."""
    runs = {cell[3]: found for cell, found in results.items() if cell[:3] == (name, PROBE, PROBE_EPOCHS)}
    by_head = {
        head: {seed: found[head] for seed, found in runs.items()}
        for head in PROBE_HEADS
        if runs and all(head in found for found in runs.values())
    }
    return max(by_head.values(), key=lambda scores: statistics.fmean(scores.values()), default={})


def difference(results: Results, name: str, method: str, epochs: int, factor: float, head: str) -> list[float]:
    """Top-1 minus that of the probe, in points, of every seed that has both."""
    ours = {cell[3]: found for cell, found in results.items() if (*cell[:3], cell[4]) == (name, method, epochs, factor)}
    probes = probe_scores(results, name)
    return [ours[seed][head] - probes[seed] for seed in sorted(ours) if seed in probes and head in ours[seed]]


def describe(values: Sequence[float]) -> str:
    """Mean, standard deviation and number."""
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):+.1f}{spread} ({len(values)})" if values else "–"


def format_table(results: Results, split: str) -> str:
    """Markdown: a row for each training and head, a column for each set."""
    probes = {name: list(probe_scores(results, name).values()) for name in SETS}
    factors = len({cell[4] for cell in results}) > 1
    lines = [
        f"**Fixed recipes**: points of {split} top-1 above the class token probe, mean ± standard deviation over the "
        "same draws (number of them). The probe of a set is the better one of a trained head and of ridge regression.",
        "",
        f"| epochs | method |{' rate, times the default |' if factors else ''} head | "
        f"{' | '.join(title for _, title in SETS.values())} |",
        f"|---:|---|{'---:|' if factors else ''}---|{'---:|' * len(SETS)}",
        f"| {PROBE_EPOCHS} | class token probe: top-1 in % |{' |' if factors else ''} | "
        + " | ".join(describe(scores).removeprefix("+") for scores in probes.values())
        + " |",
    ]
    for epochs, method, factor in rows_of(results):
        for head in HEADS:
            cells = [describe(difference(results, name, method, epochs, factor, head)) for name in SETS]
            if set(cells) != {"–"}:
                rate = f" {factor:g} |" if factors else ""
                lines.append(f"| {epochs} | `{method}` |{rate} {head} | {' | '.join(cells)} |")
    return "\n".join(lines)


def rows_of(results: Results) -> list[tuple[int, str, float]]:
    """Epochs, method and factor of what was trained, in the order of tables."""
    found = {(cell[2], cell[1], cell[4]) for cell in results if cell[1] != PROBE}
    return sorted(found, key=lambda row: (row[0], METHODS.index(row[1]), row[2]))


def choose(means: Mapping[float, Mapping[str, float]], sets: Iterable[str]) -> float:
    """The factor with the highest mean over sets, of equals the one next to the default."""
    names = list(sets)
    return max(means, key=lambda factor: (statistics.fmean(means[factor][name] for name in names), -abs(factor - 1)))


def format_choice(results: Results) -> str:
    """Markdown: the factor that all sets choose, and on each set what the choice of the three others costs."""
    lines = [
        "**Choice of the rate**, with the head that is the default: factor of the default rate with the highest mean "
        "over the four sets. Left out: on each set, what the factor that the three other sets choose gains over the "
        "default rate, in points. Only seeds that all factors have count.",
        "",
        f"| epochs | method | chosen | {' | '.join(f'{title}, left out' for _, title in SETS.values())} |",
        f"|---:|---|---:|{'---:|' * len(SETS)}",
    ]
    for epochs, method in dict.fromkeys(row[:2] for row in rows_of(results)):
        factors = [row[2] for row in rows_of(results) if row[:2] == (epochs, method)]
        means: dict[float, dict[str, float]] = {factor: {} for factor in factors}
        for name in SETS:
            seeds = [{c[3] for c in results if (*c[:3], c[4]) == (name, method, epochs, factor)} for factor in factors]
            for factor in factors:
                scores = [results[name, method, epochs, seed, factor][SHIPPED] for seed in set.intersection(*seeds)]
                if scores:
                    means[factor][name] = statistics.fmean(scores)
        if len(factors) > 1 and 1.0 in means and all(len(one) == len(SETS) for one in means.values()):
            others = {name: choose(means, SETS.keys() - {name}) for name in SETS}
            gains = [means[factor][name] - means[1.0][name] for name, factor in others.items()]
            lines.append(
                f"| {epochs} | `{method}` | {choose(means, SETS):g} | {' | '.join(f'{gain:+.1f}' for gain in gains)} |"
            )
    return "\n".join(lines)


def format_verdicts(results: Results) -> str:
    """Markdown: on how many sets each recipe is no lower than the probe, and on how many above it."""
    lines = [
        "**Against the probe**, with the head that is the default, at the default rate: number of sets where the mean "
        "is no lower than the probe minus the standard deviation of the differences, and above it by more than that. "
        "One draw has no deviation: there it counts as 0.",
        "",
        "| epochs | method | no lower | above |",
        "|---:|---|---:|---:|",
    ]
    for epochs, method, factor in rows_of(results):
        found = [difference(results, name, method, epochs, factor, SHIPPED) for name in SETS]
        known = [values for values in found if values]
        if factor == 1 and known:
            spreads = [statistics.stdev(values) if len(values) > 1 else 0.0 for values in known]
            margins = list(zip([statistics.fmean(values) for values in known], spreads, strict=True))
            counts = (sum(mean >= -spread for mean, spread in margins), sum(mean > spread for mean, spread in margins))
            lines.append(f"| {epochs} | `{method}` | {counts[0]} of {len(known)} | {counts[1]} of {len(known)} |")
    return "\n".join(lines)


def format_calibration(errors: Results, split: str) -> str:
    """Markdown: a row for each head, a column for each length of training at the default rate."""
    errors = {cell: found for cell, found in errors.items() if cell[4] == 1}
    lengths = list(dict.fromkeys(row[:2] for row in rows_of(errors)))
    sets_of = [{cell[0] for cell in errors if (cell[2], cell[1]) == length} for length in lengths]
    shared = set.intersection(*sets_of) if sets_of else set[str]()
    titles = ", ".join(title for name, (_, title) in SETS.items() if name in shared)
    lines = [
        f"**Calibration error** on {split} of the same runs on {titles}, in %, mean over sets and draws (number of "
        "runs).",
        "",
        f"| head | {' | '.join(f'`{method}`, {epochs} epochs' for epochs, method in lengths)} |",
        f"|---|{'---:|' * len(lengths)}",
    ]
    for head in HEADS:
        cells = []
        for length in lengths:
            same = [found for cell, found in errors.items() if (cell[2], cell[1]) == length and cell[0] in shared]
            values = [found[head] for found in same if head in found]
            cells.append(f"{statistics.fmean(values):.1f} ({len(values)})" if values else "–")
        if set(cells) != {"–"}:
            lines.append(f"| {head} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_report(results: Results, errors: Results, command: str, split: str) -> None:
    names = ("set", "method", "epochs", "seed", "rate_factor", "top1", "calibration_error")
    values: list[Mapping[str, Any]] = [
        dict(zip(names, (*cell, found, errors.get(cell)), strict=True)) for cell, found in sorted(results.items())
    ]
    tables = [format_table(results, split)]
    tables.append(format_verdicts(results))
    if len({cell[4] for cell in results}) > 1:
        tables.append(format_choice(results))
    if errors:
        tables.append(format_calibration(errors, split))
    table = "\n\n".join(tables)
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
    parser.add_argument("--rates", nargs="+", type=float, default=[1.0], help="factors of the method's default rate")
    parser.add_argument("--heads", choices=["default", "all"], default="default", help="ridge heads beside the trained")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--split", choices=["test", "val"], default="test", help="images that are scored")
    options = parser.parse_args()
    ends = ending(options.precision, options.split)
    options.records.mkdir(parents=True, exist_ok=True)
    if not options.report:
        if options.data is None or options.weights is None:
            parser.error("--data and --weights are needed to train")
        known, heads = read_results(options.records, ends), list(HEADS)[1:] if options.heads == "all" else [SHIPPED]
        probes = product(options.seeds, [PROBE_EPOCHS], [PROBE], [1.0])
        trainings = product(options.seeds, options.epochs, options.methods, options.rates)
        for seed, epochs, method, factor in [*probes, *trainings]:
            for name in options.sets:
                cell = name, method, epochs, seed, factor
                if cell in known and known[cell].keys() >= set(PROBE_HEADS if method == PROBE else heads):
                    continue
                start = time.monotonic()
                found = run(options.data, options.weights, cell, options.precision, options.split, heads)
                result = {"set": name, "method": method, "epochs": epochs, "seed": seed, "rate_factor": factor, **found,
                          "precision": options.precision, "seconds": time.monotonic() - start}  # fmt: skip
                rate = "" if factor == 1 else f"-x{factor:g}"
                file = options.records / f"{name}-{method}-{epochs}-{seed}{rate}{ends}"
                write_atomic(file, json.dumps(result, indent=1).encode())
                print(json.dumps(result), flush=True)
    command = f"python benchmarks/defaults.py --records FOLDER --precision {options.precision} --report"
    command += "" if options.split == "test" else f" --split {options.split}"
    read = partial(read_results, options.records, ends)
    write_report(read("top1"), read("calibration_error"), command, options.split)


if __name__ == "__main__":
    main()
