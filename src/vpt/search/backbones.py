"""The choice among backbones by frozen probes, and advice where none is given."""

import time
from functools import partial
from typing import Any

import huggingface_hub
import numpy as np
import torch

from vpt.backbones import DEFAULT, Backbone
from vpt.core.text import format_duration, pluralize
from vpt.data.dataset import Dataset, Split
from vpt.data.decoding.arrays import decode
from vpt.data.splits import stratified_subset
from vpt.search.budget import measure
from vpt.search.comparison import compare
from vpt.search.context import SearchContext
from vpt.search.metrics import describe_bounds, describe_gain, describe_value, make_statistic
from vpt.search.probe import Features, head_grid
from vpt.search.sampling import labeled_images
from vpt.tasks.classification.metrics import METRICS
from vpt.tasks.classification.task import ClassificationTask
from vpt.training import DeviceDataset, Examples
from vpt.training.block_features import BlockFeatureNetwork, compute_block_features
from vpt.training.job import Job

_MOST_IMAGES = 400  # that rank backbones
_SHARE = 0.2  # of the budget that ranking may take
_TRIED = 8  # images that measure the cost of all
_HEADS = 3  # simplest heads of the grid that ranking tries

# Name, parameters in millions, megabytes of the download, license of the weights, and 10^9 multiply-adds of an image.
_BETTER = (
    ("vit_small_patch16_224.augreg_in21k", 22, 120, "Apache-2.0", 4.25),
    ("vit_base_patch16_224.augreg_in21k", 86, 410, "Apache-2.0", 16.9),
)
_EFFICIENCY = 0.5  # of the rate of a large matrix product that a whole backbone reaches


def advise(device: torch.device) -> str:
    """Return advice for searches without `--backbone`.

    Args:
        device: Device of the models.

    Returns:
        What the embedded backbone is for, and two better ones with size, license and expected time.
    """
    rate = _multiply_adds_per_second(device)
    names = [
        f"--backbone {name} ({parameters} M parameters, {size} MB{_cached(name)}, {terms}, about "
        f"{format_duration(max(1, 1000 * cost * 1e9 / rate))} a pass over 1,000 images)"
        for name, parameters, size, terms, cost in _BETTER
    ]
    return f"the embedded backbone ({DEFAULT}) is for trying: better are {' and '.join(names)}"


def _cached(name: str) -> str:
    """Return words for a backbone whose weights need no download."""
    here = huggingface_hub.try_to_load_from_cache(f"timm/{name}", "model.safetensors")
    return " that are here already" if isinstance(here, str) else ""


def _multiply_adds_per_second(device: torch.device) -> float:
    side, times = 512, list[float]()
    matrix = torch.ones(side, side, device=device)
    for _ in range(5):  # the first product starts threads or loads kernels
        start = time.perf_counter()
        float((matrix @ matrix)[0, 0])
        times.append(time.perf_counter() - start)
    return _EFFICIENCY * side**3 / min(times)


def choose_backbone(context: SearchContext, dataset: Dataset) -> tuple[str, dict[str, Any] | None]:
    """Choose a backbone by its best frozen probe on the same images: forward passes only.

    Args:
        context: The search.
        dataset: Its images.

    Returns:
        Its name, and the ranking as JSON values, or None where there is one backbone.
    """
    if len(context.request.backbones) == 1:
        return context.request.backbones[0], None
    ranking = context.decisions.decide("backbone", lambda: _rank(context, dataset))
    context.callback.on_note(ranking["summary"])
    return str(ranking["selected"]), ranking


def _rank(context: SearchContext, dataset: Dataset) -> dict[str, Any]:
    request, budget = context.request, context.budget
    jobs = {name: request.job(name, "linear") for name in request.backbones}
    seed = next(iter(jobs.values())).config.training.seed
    job, share = next(iter(jobs.values())), _SHARE * budget.seconds / len(jobs)
    images = labeled_images(dataset, job)
    if dataset.label_kind == "single_label" and int(np.bincount(images.strata).max()) == 1:
        words = f"backbone {job.backbone}, the first: one image of each class ranks no backbones"
        return {"selected": job.backbone, "candidates": [], "margin": None, "summary": words}
    tried = np.random.default_rng(seed).permutation(len(images))[:_TRIED].astype(np.int64)
    least = 2 * len(dataset.classes)
    count = max(_MOST_IMAGES, least)
    for job in jobs.values():  # a few images tell how many fit for all
        backbone = ClassificationTask().load_backbone(job)  # which may be a download
        _frozen_features(context, job, backbone, images.select(tried), len(dataset.classes))  # allocates memory
        with measure(budget.clock) as watch:
            _frozen_features(context, job, backbone, images.select(tried), len(dataset.classes))
        count = min(count, int(_TRIED * share / max(1e-9, watch.seconds)))
    if count < least:
        words = (
            f"backbone {request.backbones[0]}, the first: the time suffices for {pluralize(count, 'image')} of each "
            f"backbone, and two of each class are {least}; give more --minutes"
        )
        return {"selected": request.backbones[0], "candidates": [], "margin": None, "summary": words}
    chosen = stratified_subset(images, dataset.classes, min(1.0, count / len(images)), seed)
    logits, rows = dict[str, Any](), list[dict[str, Any]]()
    for name, job in jobs.items():
        backbone = ClassificationTask().load_backbone(job)
        features = _frozen_features(context, job, backbone, chosen, len(dataset.classes))
        heads = [request.options["head"]] if "head" in request.options else head_grid(features.table)[:_HEADS]
        solved = (features.ridge(head).best(features.groups) for head in heads)
        best = min(solved, key=lambda found: found.smoothed_loss)
        logits[name] = best.logits
        value = make_statistic(best.logits, features.labels, request.metric)(None)
        rows.append({"backbone": name, "score": value, "log_loss": best.log_loss, "images": len(features.labels)})
    sign = METRICS[request.metric].sign
    first, second = sorted(rows, key=lambda row: (-sign * row["score"], row["log_loss"]))[:2]
    labels = features.labels
    against = compare(
        logits[first["backbone"]], logits[second["backbone"]], labels, request.metric, features.known_groups
    )
    words = (
        f"backbone {first['backbone']}: its frozen probe has {describe_value(request.metric, first['score'])}, "
        f"{describe_gain(request.metric, against.gain)} (95 % interval "
        f"{describe_bounds(request.metric, against.low, against.high)}) {'above' if sign > 0 else 'below'} "
        f"{second['backbone']} on {len(labels)} images"
    )
    return {"selected": first["backbone"], "candidates": rows, "margin": against.to_dict(), "summary": words}


def _frozen_features(context: SearchContext, job: Job, backbone: Backbone, images: Split, num_classes: int) -> Features:
    device, report = context.device, context.callback.on_data_progress
    network = BlockFeatureNetwork(backbone, device)
    progress, skips = partial(report, f"images for {job.backbone}"), bool(job.to_dict()["skip_corrupt"])
    pixels = decode(images, backbone.preprocessing, skip_corrupt=skips, progress=progress)
    given = DeviceDataset(Examples(pixels.images, pixels.labels), backbone.preprocessing, device)
    progress = partial(report, f"features of {job.backbone}")
    bf16 = job.config.training.use_bf16(device)
    values = compute_block_features(network, given, bf16=bf16, on_batch=progress)
    return Features(values, network.table, pixels.labels, num_classes, pixels.groups)
