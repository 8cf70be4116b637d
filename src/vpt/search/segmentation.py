"""The search in segmentation: the head alone and other methods, in equal times, compared on the images of val.

Prompts always take part where they fit; LoRA, and prompts with biases, where every method still gets a training that is
long enough. The head alone is saved as soon as it is trained. If another method replaces it, both are compared on the
test images.
"""

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vpt.core import environment
from vpt.core.array_file import read_array, write_array
from vpt.core.io import make_folder, write_atomic
from vpt.core.text import format_duration
from vpt.data.images import MEMORY_LIMIT
from vpt.data.segmentation_folder import SegmentationDataset
from vpt.errors import SpecError, TrainingError, is_out_of_memory
from vpt.model import tuned_file
from vpt.model.tuned_model import TunedModel
from vpt.search.budget import measure
from vpt.search.context import SearchContext
from vpt.search.mask_comparison import compare_masks, count_pixels, describe_masks
from vpt.search.precision import choose_precision
from vpt.search.trials import OUT_OF_MEMORY, Deadline, OutOfTimeError, StepsOnly, StepTimer
from vpt.tasks.evaluation import make_evaluation
from vpt.tasks.registry import TASKS
from vpt.tasks.segmentation.pair_reader import PairReader, decoded_bytes
from vpt.tasks.segmentation.prediction import PixelScores, score_images, sum_scores
from vpt.tasks.segmentation.sliding_window import InferenceConfig
from vpt.tasks.segmentation.task import SegmentationData
from vpt.training import Callback, CallbackList
from vpt.training.job import Job, RunResult
from vpt.training.run_directory import MetricsRecorder, repeat_command, write_job
from vpt.tuning import finish_job, train_model

_HEAD_ALONE = "linear"
_OTHERS = ("vpt", "lora", "vpt + bias")  # the most promising first
_MIN_ITERATIONS, _MAX_ITERATIONS, _CHECKPOINTS = 20, 2000, 10
_LONG_ENOUGH = 400  # iterations of every method, where there are more than two
_TEST_SHARE = 0.15  # of the budget at most, for the test images
_END_SHARE = 0.02  # of the budget, for files and pictures
_FEWEST_VAL = 3  # images that can tell two methods apart


@dataclass(frozen=True)
class _Search(SearchContext):
    data: SegmentationData
    costs: dict[str, Any]

    def job(self, method: str, iterations: int) -> Job:
        fixed = {"iterations": iterations, "eval_every": math.ceil(iterations / _CHECKPOINTS)}
        return self.request.job(self.request.backbones[0], method, fixed)

    def training_data(self, job: Job) -> SegmentationData:
        """Return the data of a job without val, which it is not scored on while it trains."""
        splits = {name: pairs for name, pairs in self.data.dataset.splits.items() if name != "val"}
        config: Any = job.config
        return replace(self.data, dataset=replace(self.data.dataset, splits=splits), config=config)

    def score(self, model: TunedModel, dataset: SegmentationDataset, split: str) -> list[PixelScores]:
        progress = partial(self.callback.on_data_progress, f"scoring {split}")
        model.eval()
        return list(score_images(model, dataset, split, InferenceConfig(), progress, self.data.reader))


def search(context: SearchContext, finished: RunResult | None) -> RunResult:
    """Find the best of the head alone and other methods within a budget.

    Args:
        context: The search.
        finished: Result of an earlier search on what may be the same images, or None.

    Returns:
        The result.

    Raises:
        SpecError: Several backbones are given.
        DataError: The images have changed since an interrupted search.
    """
    request, callback, decisions = context.request, context.callback, context.decisions
    if len(request.backbones) > 1:
        raise SpecError(f"{', '.join(request.backbones)} are given, and segmentation ranks no backbones; give one")
    asked = list(dict.fromkeys((_HEAD_ALONE, *((request.method,) if request.method else _OTHERS))))
    job = request.job(request.backbones[0], _HEAD_ALONE)
    data = TASKS["segmentation"].prepare(job, callback)
    assert isinstance(data, SegmentationData)
    for note in data.notes:
        callback.on_note(note)
    context.check_images(job, data.digest())
    context = choose_precision(context, request.backbones[0])
    this = _Search(**vars(context), data=_share_pairs(data), costs={})
    if finished is not None:
        return finished
    costs = decisions.decide("costs", lambda: _measure(this, asked))
    methods = [method for method in asked if method in costs["steps"]]
    this = replace(this, costs=costs, data=_sample_test(this, costs))
    lengths = decisions.decide("iterations", lambda: _plan(this, methods))
    rows = [decisions.decide(f"trial {m}", partial(_try, this, m, lengths[m])) for m in methods]
    return _finish(this, rows)


def _share_pairs(data: SegmentationData) -> SegmentationData:
    """Return the data with a reader that keeps train and val for all candidates, unless they stream or are too large.

    Where they are, the reader is that of a training alone.
    """
    splits = ("train", "val")
    if data.streams or decoded_bytes(data.dataset, splits) > MEMORY_LIMIT:
        return data
    return replace(data, reader=PairReader(data.dataset, splits))


def _measure(this: _Search, methods: Sequence[str]) -> dict[str, Any]:
    """Return the seconds of an optimizer step of each method, None where memory runs out, and of scoring an image.

    A third method, and those behind it, are left out where there is no time for one more.
    """
    costs: dict[str, Any] = {"steps": {}, "score": 0.0}
    for method in methods:
        if len(costs["steps"]) > 1:
            one_more = {name: seconds for name, seconds in costs["steps"].items() if seconds is not None}
            one_more[method] = max(one_more.values())
            if min(_lengths(this, costs, one_more).values()) < _LONG_ENOUGH:
                break
        job, timer = this.job(method, 2), StepTimer(this.budget)
        callbacks = CallbackList([StepsOnly(this.callback), timer])
        try:
            model, _ = train_model(job, this.training_data(job), callbacks, this.device)
            costs["steps"][method] = timer.times[-1] - timer.times[0]
        except (MemoryError, RuntimeError) as error:
            if method == _HEAD_ALONE or not is_out_of_memory(error):
                raise
            costs["steps"][method] = None
        if method == _HEAD_ALONE:
            pairs = this.data.dataset.splits["train"]
            one = replace(this.data.dataset, splits={"train": pairs.select(range(1))})
            with measure(this.budget.clock) as watch:
                this.score(model, one, "train")
            costs["score"] = watch.seconds
    return costs


def _sample_test(this: _Search, costs: dict[str, Any]) -> SegmentationData:
    """Return the data with as many test images as fit."""
    pairs = this.data.dataset.splits.get("test")
    if pairs is None:
        return this.data
    fitting = max(1, int(_TEST_SHARE * this.budget.seconds / max(1e-9, 2 * costs["score"])))
    if fitting >= len(pairs):
        return this.data
    rng = np.random.default_rng(this.data.config.training.seed)
    chosen = np.sort(rng.permutation(len(pairs))[:fitting]).tolist()
    this.callback.on_note(f"{fitting} of {len(pairs)} test images measure; a larger --minutes takes all")
    splits = {**this.data.dataset.splits, "test": pairs.select(chosen)}
    sizes = {**this.data.images, "test": fitting}
    return replace(this.data, dataset=replace(this.data.dataset, splits=splits), images=sizes)


def _seconds_of_tests(this: _Search) -> float:
    """Return the seconds in which two models score the test images, at most a share of the budget."""
    return float(min(2 * this.data.images.get("test", 0) * this.costs["score"], _TEST_SHARE * this.budget.seconds))


def _lengths(this: _Search, costs: dict[str, Any], steps: Mapping[Any, float]) -> dict[Any, int]:
    """Return the iterations that fit into equal times, by the seconds of a step; without val, no image is scored."""
    images = this.data.images
    left = this.budget.remaining - _seconds_of_tests(replace(this, costs=costs)) - _END_SHARE * this.budget.seconds
    share = left / len(steps) - images.get("val", 0) * costs["score"]
    return {name: min(_MAX_ITERATIONS, int(share / max(1e-9, seconds))) for name, seconds in steps.items()}


def _plan(this: _Search, methods: Sequence[str]) -> dict[str, int]:
    """Return the iterations of each method: equal times; 0 where too few fit. Without val, the head alone trains."""
    steps = {method: seconds for method, seconds in this.costs["steps"].items() if seconds is not None}
    for count in range(len(steps), 1, -1) if "val" in this.data.images else ():
        found = _lengths(this, this.costs, dict(list(steps.items())[:count]))
        if min(found.values()) >= (_MIN_ITERATIONS if count == 2 else _LONG_ENOUGH):
            return dict.fromkeys(methods, 0) | found
    alone = {_HEAD_ALONE: steps[_HEAD_ALONE]}
    whole = replace(this.data, images={name: count for name, count in this.data.images.items() if name != "val"})
    (length,) = _lengths(replace(this, data=whole), this.costs, alone).values()
    return dict.fromkeys(methods, 0) | {_HEAD_ALONE: max(1, length)}


def _try(this: _Search, method: str, iterations: int) -> dict[str, Any]:
    """Train a method on train, and score it on each image of val."""
    row: dict[str, Any] = {"method": method, "iterations": iterations}
    if this.costs["steps"][method] is None:
        return {**row, "status": OUT_OF_MEMORY}
    if not iterations:
        return {**row, "status": "not begun: too few iterations fit"}
    start, job, folder = this.budget.elapsed, this.job(method, iterations), _folder(this)
    name = "".join(char if char.isalnum() else "_" for char in method)
    receivers = [this.callback]
    if method != _HEAD_ALONE:  # which has to end, so that there is a model
        scoring = _seconds_of_tests(this) + this.data.images.get("val", 0) * this.costs["score"]
        receivers.append(Deadline(this.budget, this.budget.seconds * (1 - _END_SHARE) - scoring))
    try:
        checkpoint = folder / f"{name}.safetensors"
        model, _ = train_model(job, this.training_data(job), CallbackList(receivers), this.device, checkpoint)
    except OutOfTimeError:
        return {**row, "status": "stopped: slower than planned", "seconds": this.budget.elapsed - start}
    except TrainingError as error:
        return {**row, "status": f"diverged: {error}", "seconds": this.budget.elapsed - start}
    row |= {"status": "tried", "name": name}
    if method == _HEAD_ALONE:  # from here on there is a model to use
        tuned_file.save(model, job.out, split_options=job.split_options, save_dtype=job.save_dtype)
        write_job(job, this.data.digest())
    saved = f"; saved to {job.out}" if method == _HEAD_ALONE else ""
    if "val" not in this.data.images:
        this.callback.on_note(f"{method}: trained{saved}")
        return {**row, "seconds": this.budget.elapsed - start}
    scores = this.score(model, this.data.dataset, "val")
    write_array(folder / f"{name}-pixels.npy", count_pixels(scores))
    total = sum_scores(scores, model.num_classes)
    this.callback.on_note(f"{method}: {100 * total.mean_per_class:.1f} % mean IoU on val, {len(scores)} images{saved}")
    return {**row, "score": total.mean_per_class, "log_loss": total.loss, "images": len(scores),
            "seconds": this.budget.elapsed - start}  # fmt: skip


def _folder(this: _Search) -> Path:
    folder = this.job(_HEAD_ALONE, 1).run_dir / "search"
    make_folder(folder)
    return folder


def _why_one(this: _Search, rows: list[dict[str, Any]]) -> str:
    """Return why one method alone was tried to its end."""
    if len(rows) == 1:
        return "the head alone is all that was asked for"
    failed = [row for row in rows if row["status"].startswith(("diverged", "stopped"))]
    if failed:
        return "; ".join(f"{row['method']} {row['status']}" for row in failed)
    if "val" not in this.data.images:
        return "there are no images of val to choose by, so the head alone was trained"
    return f"nothing but the head alone fits {format_duration(this.budget.seconds)}"


def _convinces(row: dict[str, Any]) -> bool:
    """Return True where a method is above the head alone by more than the error, on enough images to know that."""
    against = row["comparison"]
    return bool(row["images"] >= _FEWEST_VAL and against["gain"] > against["error"])


def _finish(this: _Search, rows: list[dict[str, Any]]) -> RunResult:
    folder, callback = _folder(this), this.callback
    alone, others = rows[0], rows[1:]
    tried = [row for row in rows if row["status"] == "tried"]
    if not tried:
        raise TrainingError(f"{alone['method']} is {alone['status']}; give --iterations and a smaller --lr")
    shipped, comparison, words = tried[0], None, _why_one(this, rows)
    compared = [row for row in others if "score" in row and "score" in alone]
    for row in compared:
        files = [folder / f"{each['name']}-pixels.npy" for each in (row, alone)]
        advice = "--overwrite begins the search anew"
        row["comparison"] = compare_masks(*(read_array(file, "file of counts", advice) for file in files))
    if compared:
        best = max(compared, key=lambda row: (_convinces(row), row["comparison"]["gain"]))
        comparison, shipped = best["comparison"], best if _convinces(best) else alone
        words = f"{describe_masks(comparison, best['method'], best['images'])} on val"
        words += ", whose images took part in the choice" if shipped is best else ": the head alone was kept"
    job = this.job(shipped["method"], shipped["iterations"])
    write_job(job, this.data.digest())
    checkpoint = folder / f"{shipped['name']}.safetensors"
    if checkpoint.exists() and not job.checkpoint.exists():
        write_atomic(job.checkpoint, checkpoint.read_bytes())
    recorder = MetricsRecorder(job.run_dir / "metrics.jsonl")
    callbacks = CallbackList([recorder, callback])
    model, history = train_model(job, this.training_data(job), callbacks, this.device, job.checkpoint)
    split = this.data.eval_split
    scores = this.score(model, this.data.dataset, split)
    total = sum_scores(scores, model.num_classes)
    if comparison is not None and shipped is not alone and split == "test":
        baseline = this.job(alone["method"], alone["iterations"])
        other, _ = train_model(  # which is in its checkpoint
            baseline, this.training_data(baseline), Callback(), this.device, folder / f"{alone['name']}.safetensors"
        )
        comparison = compare_masks(count_pixels(scores), count_pixels(this.score(other, this.data.dataset, split)))
        words = f"{describe_masks(comparison, shipped['method'], len(scores))} on test"
    evaluation = make_evaluation(split, len(scores), total, this.data.classes)
    found = {
        "minutes": this.request.minutes,
        "metric": "miou",
        "seconds": this.budget.elapsed,
        "backbones": None,
        "tried": rows,
        "shipped": shipped["method"],
        "score": total.mean_per_class,
        "interval": list(total.intervals()["miou"]),
        "images": len(scores),
        "optimistic": split != "test",
        "comparison": comparison,
        "words": words,
        "repeat": repeat_command(job),
    }
    result = finish_job(
        job, this.data, model, history, evaluation, callback, environment.peak_memory(this.device), search=found
    )
    shutil.rmtree(folder, ignore_errors=True)
    return result
