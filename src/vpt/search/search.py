"""The procedure of a search: open its record, choose backbone and probe, try candidates, write the result.

Every decision stands in decisions.jsonl of the run directory, so that the same command goes on after a kill.
"""

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vpt.backbones import DEFAULT
from vpt.core import environment
from vpt.core.damage import damage_named
from vpt.core.io import empty_folder
from vpt.data.copies import describe_copies
from vpt.data.dataset import Dataset
from vpt.errors import DataError, SpecError
from vpt.methods.registry import parse_method
from vpt.model import tuned_file
from vpt.search.backbones import advise, choose_backbone
from vpt.search.budget import Budget, Clock
from vpt.search.candidates import is_probe
from vpt.search.comparison import interval
from vpt.search.context import SearchContext
from vpt.search.data import Pool, list_images, load_pool
from vpt.search.decisions import Decisions
from vpt.search.finish import finish
from vpt.search.metrics import describe_bounds, describe_value
from vpt.search.outcome import Probe
from vpt.search.precision import choose_precision
from vpt.search.probe import Features, choose_probe, head_grid
from vpt.search.request import SearchRequest
from vpt.search.segmentation import search as segmentation
from vpt.search.selection import Selection
from vpt.search.trials import in_unit_of_labels
from vpt.tasks.classification.label_checks import NOT_FOR_RIDGE
from vpt.tasks.classification.metrics import choose_metric
from vpt.tasks.classification.ridge_head import solve_head_on
from vpt.tasks.registry import TASKS
from vpt.training import Callback, distributed
from vpt.training.job import Job, RunResult
from vpt.training.output_lock import lock_run
from vpt.training.run_directory import check_output_path, files_may_differ, flatten
from vpt.tuning import marked_splits


def run_search(
    request: SearchRequest,
    callback: Callback | None = None,
    *,
    overwrite: bool = False,
    device: str = "auto",
    clock: Clock = time.monotonic,
    started: float | None = None,
) -> RunResult:
    """Find the best model within a budget, resume an interrupted search, or read its result.

    Args:
        request: What is asked for.
        callback: Receiver of progress. Default: none.
        overwrite: True begins anew; the tuned file stays until another one replaces it. Default: False.
        device: "auto", "cpu", "cuda" or "mps". Default: "auto".
        clock: Function that returns seconds. Default: `time.monotonic`.
        started: Time of the start by that clock. Default: now.

    Returns:
        The result. Its `search` has the candidates, the comparison with the probe, and the time.

    Raises:
        SpecError: The output belongs to another run, or an option does not fit the data.
        DataError: Images cannot be used, or have changed since an interrupted search.
        BackboneError: The backbone cannot be loaded.
        StorageError: Another process writes this output, or a file cannot be written.
    """
    callback, target = callback or Callback(), distributed.resolve_device(device)
    budget = Budget(60 * request.minutes, clock, clock() if started is None else started)
    environment.keep_freed_memory()
    job = request.job(request.backbones[0], "linear")
    with lock_run(job):
        return _run_search(request, job, budget, callback, overwrite, target)


def _run_search(
    request: SearchRequest, job: Job, budget: Budget, callback: Callback, overwrite: bool, target: torch.device
) -> RunResult:
    decisions = _open(request, job, budget, overwrite)
    finished = _read_result(job)
    if finished is not None:
        shutil.rmtree(job.run_dir / "search", ignore_errors=True)  # a kill at the end has left it
    if finished is not None and not files_may_differ(job):
        callback.on_note(f"{job.out} was made by this very search before; --overwrite does it again")
        return finished
    callback.on_note(_first_line(request, target))
    search = segmentation.search_masks if request.task == "segmentation" else _search_classification
    return search(SearchContext(request, budget, decisions, callback, target), finished)


def _search_classification(context: SearchContext, finished: RunResult | None) -> RunResult:
    first = context.request.job(context.request.backbones[0], "linear")
    dataset, fractions = list_images(first)
    if not len(dataset.test) and first.options.test_fraction > 0:  # type: ignore[attr-defined]
        unit = "image" if dataset.train.groups is None else "group"
        context.callback.on_note(
            f"classes of one or two {unit}s are too small to split off test images, so the score is of training images "
            "that are left out, and optimistic; a split test/ of its own gives an honest one"
        )
    for note in describe_copies(dataset.splits):
        context.callback.on_note(note)
    metric = choose_metric(dataset.label_kind, context.request.metric)
    context = replace(context, request=replace(context.request, metric=metric))
    backbone, ranking = choose_backbone(context, dataset)
    context = choose_precision(context, backbone)
    request = context.request
    job = request.job(backbone, "linear")
    pool = load_pool(context, job, dataset, fractions)
    if finished is not None:
        shutil.rmtree(job.run_dir / "search", ignore_errors=True)
        return finished
    features = Features(pool.features, pool.table, pool.labels, len(pool.data.classes), pool.groups)
    found = _choose_head(context, features)
    probe = _fit_probe(context, pool, features, backbone, found)
    chosen = next(row for row in found["candidates"] if row["head"] == found["head"])
    selection = Selection(
        **vars(context), backbone=backbone, pool=pool, features=features, head=found["head"], penalty=found["penalty"],
        ridge_seconds=chosen["seconds"], folder=job.run_dir / "search",
    )  # fmt: skip
    only_probe = request.method is not None and is_probe(parse_method(request.method))
    rows = [] if only_probe or features.one_of_each_class else selection.try_all()
    return finish(selection, probe, found["candidates"], rows, ranking)


def _choose_head(context: SearchContext, features: Features) -> dict[str, Any]:
    """Return head and penalty of the probe, with a row for each head that was tried."""
    request = context.request
    heads = [request.options["head"]] if "head" in request.options else head_grid(features.table)
    dtype = request.options.get("save_dtype", "fp32")
    found: dict[str, Any] = context.decisions.decide(
        "probe", lambda: choose_probe(features, heads, request.metric, context.budget, request.max_size, dtype)
    )
    if features.one_of_each_class:
        context.callback.on_note(
            "each class has one training image, so none can be left out: the penalty of the probe is "
            f"{found['penalty']:g}, no other method is compared with it, and scores out of fold say nothing; give more "
            "images to choose by"
        )
    elif features.one_group:
        context.callback.on_note(
            "the training images are one group, so none can be left out: the penalty of the probe is "
            f"{found['penalty']:g}, and scores out of fold say nothing; give images of other groups to choose by"
        )
    return found


def _fit_probe(context: SearchContext, pool: Pool, features: Features, backbone: str, found: dict[str, Any]) -> Probe:
    """Fit the probe and save it, so that from here on there is a model to use."""
    fixed = {**pool.options, **dict.fromkeys(NOT_FOR_RIDGE), "head": found["head"], "ridge": found["penalty"]}
    job = context.request.job(backbone, "linear", {**fixed, "train_on": pool.train_on})
    data = pool.job_data(job, pool.examples)
    torch.manual_seed(job.config.training.seed)
    model = TASKS[job.config.task].attach(job, data).to(context.device)
    left_out = solve_head_on(
        model, features.values, features.table, features.labels, found["penalty"], copies=features.groups
    )
    if data.labels.calibrates:
        model.label_kind = data.labels.calibrate(torch.from_numpy(left_out.logits), torch.from_numpy(pool.labels))
    model.eval()
    probe = Probe(job, data, model, in_unit_of_labels(model, left_out.logits))
    metric = context.request.metric
    value = next(row for row in found["candidates"] if row["head"] == found["head"])["score"]

    def save() -> str:
        scores = {f"out_of_fold_{metric}": value} if features.can_leave_out else {}
        tuned_file.save(
            model, job.out, scores=scores, split_options=marked_splits(job, data), save_dtype=job.save_dtype
        )
        pool.write_job(job)
        return str(job.out)

    context.decisions.decide("saved", save)
    known = ""
    if features.can_leave_out:
        bounds = describe_bounds(metric, *interval(probe.left_out, pool.labels, metric, pool.groups))
        images = f"{len(pool.labels)} images"
        known = f": {describe_value(metric, value)} out of fold (95 % interval {bounds}, {images})"
    context.callback.on_note(f"the probe, {found['head']}{known}; saved to {job.out}")
    return probe


def _open(request: SearchRequest, job: Job, budget: Budget, overwrite: bool) -> Decisions:
    """Open the record of a search in its run directory.

    A SpecError is raised for a directory of another search or run, and in several processes.
    """
    distributed.init_process_group()
    if distributed.world_size() > 1:
        raise SpecError(
            f"a search within {request.minutes:g} minutes runs in one process, and there are "
            f"{distributed.world_size()}; give --epochs or --iterations"
        )
    path = job.run_dir / "decisions.jsonl"
    if not path.exists():
        check_output_path(job, overwrite)
    if overwrite:
        empty_folder(job.run_dir)
    if not path.exists() and (job.run_dir / "job.json").exists():
        raise SpecError(
            f"{job.run_dir} holds a run of fixed length, and no search; give its --epochs, --iterations or --lr to go "
            "on, another --out, or --overwrite to begin a search"
        )
    decisions = Decisions(path, budget)
    now = json.loads(json.dumps(request.to_dict()))
    recorded, after = flatten(decisions.decide("request", lambda: now, later=True)), flatten(now)
    defaults = flatten({"options": job.default_dict()})  # of options that were added since
    before = {**defaults, **recorded}
    for values in (before, after):  # "photos/" is "photos"
        values["data"] = os.path.normpath(values["data"])
    differing = [f"{k}: {before.get(k)} then, {v} now" for k, v in sorted(after.items()) if before.get(k) != v]
    if differing:
        raise SpecError(
            f"{job.run_dir} holds a search with other settings ({', '.join(differing)}); give another --out, or "
            "--overwrite to begin anew"
        )
    return decisions


def _read_result(job: Job) -> RunResult | None:
    path = Path(job.run_dir) / "result.json"
    if not path.exists() or not job.out.exists():
        return None
    with damage_named(path, "result", "--overwrite does the search again", DataError):
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return RunResult(**values) if values.get("search") else None


def _first_line(request: SearchRequest, device: torch.device) -> str:
    name = "the CPU" if device.type == "cpu" else "the GPU"
    fixed = "--iterations or --lr" if request.task == "segmentation" else "--epochs or --lr"
    unit = "minute" if request.minutes == 1 else "minutes"
    text = f"{request.minutes:g} {unit} on {name} for the best model (--minutes; {fixed} train without a search)"
    is_own_data = isinstance(request.data, Dataset) or Path(str(request.data).partition(",")[0]).exists()
    if request.backbones == (DEFAULT,) and is_own_data:
        return f"{text}; {advise(device)}"
    return text
