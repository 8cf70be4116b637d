"""Which method works on which of timm's models: attach, train a step, compare with timm, merge.

    python benchmarks/families.py                       the smallest model of each family, about an hour of one core
    python benchmarks/families.py --all                 every model of timm's registry
    python benchmarks/families.py --models vgg11 dla34  these alone; what they were before is forgotten

Weights are random, so nothing is downloaded. Models below 30 million parameters run at the smallest size that they
take; the others are built on the meta device, where tensors have shapes and no values. A model whose result is in
results/families.json is not run again. A refusal counts as false where the model's own modules contradict it
(refusals.py), and as unexpected where families.toml does not list it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
import traceback
import warnings
from collections import defaultdict
from functools import lru_cache
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from families_table import METHODS, find_faults, list_outcomes, make_table, summarize
from refusals import contradiction
from report import BENCHMARKS_DIR, RESULTS_DIR, write_between_marks, write_section
from vpt import Backbone, TunedModel, attach, load_backbone
from vpt.core.io import write_atomic
from vpt.errors import BackboneError, UnsupportedError

MERGEABLE = ("linear", "bias", "lora", "lora(targets=all)", "ssf", "full")
CLASSES, MOST_PARAMETERS, TOLERANCE = 3, 30_000_000, 2e-3
SIZES = (32, 64, 128)  # then the model's own
DOCS_PAGE = BENCHMARKS_DIR.parent / "docs" / "reference" / "model-families.md"
Cell = dict[str, Any]  # outcome, reason, and for a refusal what contradicts it


def count_parameters() -> dict[str, int]:
    """Parameters of every architecture of timm, without classifier; results/families_registry.json keeps them."""
    path = RESULTS_DIR / "families_registry.json"
    known: dict[str, int] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    missing = [name for name in timm.list_models() if name not in known]
    for name in missing:
        with torch.device("meta"):
            known[name] = sum(weight.numel() for weight in timm.create_model(name, num_classes=0).parameters())
    if missing:
        write_atomic(path, json.dumps(known, indent=0, sort_keys=True).encode())
    return {name: known[name] for name in timm.list_models()}


def family_of(name: str) -> str:
    """The file in timm that makes a model, and the beginning of the model's name."""
    prefix = re.sub(r"\d.*$", "", name.partition("_")[0]) or name
    return f"{timm.model_entrypoint(name).__module__.rpartition('.')[2]}: {prefix}"


def smallest_of_each_family(parameters: dict[str, int]) -> list[str]:
    families = defaultdict(list)
    for name, count in parameters.items():
        families[family_of(name)].append((count, name))
    return [min(members)[1] for members in families.values()]


def sweep_model(name: str) -> dict[str, Any]:
    """The outcome of every method on one model."""
    start, device = time.perf_counter(), "meta"
    plain = _make_plain(name, {}, device)
    parameters = sum(weight.numel() for weight in plain.parameters())
    found = {"family": family_of(name), "class": type(plain).__name__, "parameters": parameters}
    try:
        size = _smallest_size(name, plain)
        device = "cpu" if parameters < MOST_PARAMETERS else "meta"
        torch.manual_seed(0)
        backbone = load_backbone(name, image_size=size, pretrained=False, device=device)
        size = backbone.preprocessing.size
        _make_unlike_fresh(backbone.module)
        with torch.no_grad():
            reference = backbone.module(_images(size, device))
        cells = {method: _try_method(backbone, method, reference) for method in METHODS}
    except BackboneError as error:
        size, cells = 0, {method: {"outcome": "refused", "reason": str(error)} for method in METHODS}
    judged = _make_fresh(name, size, "meta") if size else plain
    for cell in (*cells.values(), *(cell["merge"] for cell in cells.values() if "merge" in cell)):
        if cell["outcome"] == "refused":
            cell["false"] = contradiction(judged, cell["reason"])
    return {**found, "size": size, "device": device, "cells": cells, "seconds": round(time.perf_counter() - start, 1)}


def _smallest_size(name: str, plain: nn.Module) -> int | None:
    """The first of SIZES that timm's own forward takes; None where only the model's own size remains.

    A size at which linear layers have other shapes, as those that mix tokens do, would show another model.
    """
    own = _linear_shapes(plain)
    for size in SIZES:
        try:
            backbone = load_backbone(name, image_size=size, pretrained=False, device="meta")
            backbone.module(_images(size, "meta"))
            if all(own.get(path, shape) == shape for path, shape in _linear_shapes(backbone.module).items()):
                return size
        except Exception:  # timm has as many ways to say that it needs another size as it has authors
            continue
    return None


def _linear_shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {path: module.weight.shape for path, module in model.named_modules() if isinstance(module, nn.Linear)}


def _make_plain(name: str, options: dict[str, Any], device: str) -> nn.Module:
    with torch.device(device), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: nn.Module = timm.create_model(name, num_classes=CLASSES, **options)
    return model.eval()


@torch.no_grad()
def _make_unlike_fresh(model: nn.Module) -> None:
    """Biases of 0 and scales of 1e-6 would hide a fault."""
    for weight in model.parameters():
        if weight.dim() <= 1:
            weight.add_(0.1 * torch.randn_like(weight))


def _images(size: int, device: str) -> Tensor:
    values = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    return values.to(device)


def _try_method(backbone: Backbone, method: str, reference: Tensor) -> Cell:
    try:
        torch.manual_seed(0)
        model = attach(backbone, method, CLASSES)
        _check_values(model, backbone, reference)
        cell: Cell = {"outcome": "works"}
        if method in MERGEABLE:
            cell["merge"] = _try_merge(model, backbone)
        _check_step(model, backbone)  # last: it changes the running statistics of what trains
    except UnsupportedError as error:
        return {"outcome": "refused", "reason": str(error)}
    except Exception as error:  # whatever it is, it is what this sweep looks for
        return {"outcome": "crash", "reason": _describe(error)}
    return cell


def _check_step(model: TunedModel, backbone: Backbone) -> None:
    """A training step: logits of the right shape, and gradients that are numbers."""
    images = _images(backbone.preprocessing.size, next(model.head.parameters()).device.type)
    logits = model.train()(images)
    assert logits.shape == (len(images), CLASSES), f"logits have shape {tuple(logits.shape)}"
    F.cross_entropy(logits, torch.zeros(len(images), dtype=torch.long, device=images.device)).backward()
    gradients = [weight.grad for weight in model.trainable_parameters() if weight.grad is not None]
    assert gradients, "nothing has a gradient"
    assert images.is_meta or all(bool(g.isfinite().all()) for g in gradients), "a gradient is not finite"
    model.zero_grad()


@torch.no_grad()
def _check_values(model: TunedModel, backbone: Backbone, reference: Tensor) -> None:
    """The feature before training is timm's own; prompts give the same in both of their forms."""
    images = _images(backbone.preprocessing.size, reference.device.type)
    features = model.eval().features(images)
    assert features.shape == (len(images), model.width), f"features have shape {tuple(features.shape)}"
    if model.method.identity_at_init and reference.shape == features.shape:
        _assert_equal(features, reference, "the feature before training and timm's")
    if model.method.name == "vpt":
        concatenated = attach(backbone, "vpt(impl=concat)", CLASSES).eval()
        concatenated.load_trainable_state_dict(model.trainable_state_dict())
        _assert_equal(features, concatenated.features(images), "prompts as keys and values, and concatenated,")


@torch.no_grad()
def _try_merge(model: TunedModel, backbone: Backbone) -> Cell:
    """timm alone, with the merged weights, gives the same logits."""
    images = _images(backbone.preprocessing.size, next(model.head.parameters()).device.type)
    for weight in model.trainable_parameters():
        weight.add_(0.02 * torch.randn_like(weight))
    try:
        state, fresh = model.merge(), _make_fresh(backbone.name, backbone.preprocessing.size, images.device.type)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # copying into meta tensors does nothing, and says so
            fresh.load_state_dict(state)
        _assert_equal(model.eval()(images), fresh(images), "the logits of the tuned and of the merged model")
    except UnsupportedError as error:
        return {"outcome": "refused", "reason": str(error)}
    except Exception as error:
        return {"outcome": "crash", "reason": _describe(error)}
    return {"outcome": "works"}


@lru_cache(maxsize=1)
def _make_fresh(name: str, size: int, device: str) -> nn.Module:
    try:
        return _make_plain(name, {"img_size": size}, device)
    except TypeError:
        return _make_plain(name, {}, device)


def _assert_equal(actual: Tensor, expected: Tensor, what: str) -> None:
    assert actual.shape == expected.shape, f"{what} have shapes {tuple(actual.shape)} and {tuple(expected.shape)}"
    if actual.is_meta or not expected.isfinite().all():  # a deep net may overflow with random weights
        return
    off = float((actual - expected).abs().max() / expected.abs().max().clamp(min=1e-6))
    assert off < TOLERANCE, f"{what} differ by {off:.1e} of the largest value"


def _describe(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {str(error)[:300]} ({frame.filename.rpartition('/')[2]}, {frame.name})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="every model of the registry")
    parser.add_argument("--models", nargs="+", metavar="NAME", help="these models, again if need be")
    parser.add_argument("--again", action="store_true", help="run once more what has faults")
    parser.add_argument("--most", type=int, metavar="N", help="stop after N models")
    parser.add_argument("--dry-run", action="store_true", help="print the result of --models and write nothing")
    options = parser.parse_args()
    path = RESULTS_DIR / "families.json"
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() and not options.dry_run else {}
    models: dict[str, dict[str, Any]] = stored.get("sweep", {}).get("values", {})
    if options.models:
        names = options.models
    else:
        parameters = count_parameters()
        names = list(parameters) if options.all else smallest_of_each_family(parameters)
        names.sort(key=parameters.__getitem__)
        faulty = {fault.split(", ")[0].partition(": ")[2] for fault in find_faults(models)} if options.again else set()
        names = [name for name in names if name not in models or name in faulty]
    for name in names[: options.most]:
        models[name] = sweep_model(name)
        cells = {column: cell["outcome"] for _, _, column, cell in list_outcomes({name: models[name]})}
        print(f"{name}, {models[name]['size']} px, {models[name]['seconds']} s: {cells}", flush=True)
        if not options.dry_run:
            write_result(models)
    faults = find_faults(models)
    print("\n".join([summarize(models, faults), *faults, "", make_table(models)]))
    sys.exit(1 if faults else 0)


def write_result(models: dict[str, dict[str, Any]]) -> None:
    ordered = dict(sorted(models.items(), key=lambda item: (item[1]["family"], item[1]["parameters"])))
    summary, table = summarize(ordered, find_faults(ordered)), make_table(ordered)
    write_section("families", "sweep", ordered, "python benchmarks/families.py", f"{summary}\n\n{table}")
    write_between_marks(DOCS_PAGE, "families", f"{summary}\n\n{table}")


if __name__ == "__main__":
    main()
