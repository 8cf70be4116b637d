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
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from defaults_report import (
    HEADS,
    METHODS,
    PROBE,
    PROBE_EPOCHS,
    PROBE_HEADS,
    SETS,
    SHIPPED,
    Cell,
    ending,
    read_results,
    write_report,
)
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
