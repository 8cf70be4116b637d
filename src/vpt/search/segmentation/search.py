"""The search in segmentation: the head alone and other methods, in equal times, compared on the images of val.

The head alone, a probe that is solved for unless a head is asked for, is saved as soon as it is there. If another
method replaces it, both are compared on the test images.
"""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from vpt.core import environment
from vpt.core.array_file import read_array, write_array
from vpt.core.io import make_folder, write_atomic
from vpt.core.text import file_stem, format_duration
from vpt.data.decoding.arrays import MEMORY_LIMIT
from vpt.errors import TrainingError
from vpt.model import tuned_file
from vpt.search.candidates import Candidate
from vpt.search.context import SearchContext
from vpt.search.precision import choose_precision
from vpt.search.segmentation.candidates import HEAD_ALONE, MaskSearch
from vpt.search.segmentation.comparison import FEWEST_IMAGES, compare_masks, count_pixels, describe_masks
from vpt.search.segmentation.costs import (
    END_SHARE,
    TOO_FEW,
    measure_costs,
    plan_lengths,
    sample_scored,
    seconds_of_tests,
)
from vpt.search.segmentation.ranking import choose_backbone_of_masks, choose_image_size
from vpt.search.status import KILLED, SLOWER_THAN_PLANNED, Status, end, or_out_of_memory
from vpt.search.trials import Deadline, OutOfTimeError
from vpt.tasks.evaluation import make_evaluation
from vpt.tasks.registry import TASKS
from vpt.tasks.search_rows import describe_status
from vpt.tasks.segmentation.pair_reader import PairReader, decoded_bytes
from vpt.tasks.segmentation.prediction import sum_scores
from vpt.tasks.segmentation.task import SegmentationData
from vpt.training import Callback, CallbackList
from vpt.training.job import RunResult
from vpt.training.run_directory import MetricsRecorder, repeat_command, write_job
from vpt.tuning import finish_job, marked_splits, train_model


def search_masks(context: SearchContext, finished: RunResult | None) -> RunResult:
    """Find the best of the head alone and other methods within a budget.

    Args:
        context: The search.
        finished: Result of an earlier search on what may be the same images, or None.

    Returns:
        The result.

    Raises:
        DataError: The images have changed since an interrupted search.
    """
    request, callback, decisions = context.request, context.callback, context.decisions
    job = request.job(request.backbones[0], HEAD_ALONE.method)
    data = TASKS["segmentation"].prepare(job, callback)
    assert isinstance(data, SegmentationData)
    for note in data.notes:
        callback.on_note(note)
    context.check_images(job, data.digest())
    if finished is not None:
        return finished
    data, backbone, ranking = choose_backbone_of_masks(context, _share_pairs(data))
    context = choose_precision(context, backbone)
    context, data, sizes = choose_image_size(context, data, backbone)
    search = MaskSearch(**vars(context), data=data, backbone=backbone, costs={})
    costs = decisions.decide("costs", lambda: measure_costs(search))
    search = replace(search, costs=costs)
    search = replace(search, data=sample_scored(search))
    lengths = decisions.decide("iterations", lambda: plan_lengths(search))
    rows = list[dict[str, Any]]()
    for name, candidate in search.candidates.items():
        if name in costs["refused"]:
            rows.append({**_row(search, candidate, 0), **costs["refused"][name]})
        elif name in lengths:
            killed = {**_row(search, candidate, lengths[name]), **KILLED}
            carry_out = partial(_try, search, candidate, lengths[name])
            rows.append(decisions.decide_or_give_up(f"trial {name}", carry_out, killed))
    return _finish(search, rows, backbones=ranking, image_sizes=sizes)


def _share_pairs(data: SegmentationData) -> SegmentationData:
    """Return the data with a reader that keeps train and val for all candidates, unless they stream or are too large.

    Where they are, the reader is that of a training alone.
    """
    splits = ("train", "val")
    if data.streams or decoded_bytes(data.dataset, splits) > MEMORY_LIMIT:
        return data
    return replace(data, reader=PairReader(data.dataset, splits))


def _row(search: MaskSearch, candidate: Candidate, iterations: int) -> dict[str, Any]:
    """Return what is known of a candidate before it trains."""
    factor = {} if candidate.factor == 1 else {"factor": candidate.factor}
    head = {"head": head} if (head := candidate.recipe.get("head")) else {}
    if candidate == HEAD_ALONE and search.solved_images is not None:
        head = {"head": search.solved_head, "lda": search.solved_images}
    return {"method": candidate.method, **head, **factor, "iterations": iterations}


def _candidate(search: MaskSearch, row: dict[str, Any]) -> Candidate:
    """Return the candidate of a row."""
    return next(one for one in search.candidates.values() if (one.method, one.factor, one.recipe.get("head")) == (
        row["method"], row.get("factor", 1), None if "lda" in row else row.get("head")
    ))  # fmt: skip


def _try(search: MaskSearch, candidate: Candidate, iterations: int) -> dict[str, Any]:
    """Return the row of a candidate."""
    row = _row(search, candidate, iterations)
    if not iterations and "lda" not in row:
        return {**row, **TOO_FEW}
    return or_out_of_memory(partial(_carry_out, search, candidate, row), row)


def _carry_out(search: MaskSearch, candidate: Candidate, row: dict[str, Any]) -> dict[str, Any]:
    """Train a candidate on train, and score it on each image of val."""
    start, job, folder = search.budget.elapsed, search.job(candidate, row["iterations"]), _folder(search)
    name = file_stem(candidate.name)
    is_alone, receivers = candidate == HEAD_ALONE, [search.callback]
    if not is_alone:  # which has to end, so that there is a model
        after = seconds_of_tests(search) + search.data.images.get("val", 0) * search.costs["score"]
        after += 3 * search.solving_seconds  # of this candidate, and at the end of the one that ships and the probe
        receivers.append(Deadline(search.budget, search.budget.seconds * (1 - END_SHARE) - after))
    try:
        checkpoint = folder / f"{name}.safetensors"
        model, _ = train_model(job, search.training_data(job), CallbackList(receivers), search.device, checkpoint)
        if is_alone:  # from here on there is a model to use
            tuned_file.save(model, job.out, split_options=marked_splits(job, search.data), save_dtype=job.save_dtype)
            write_job(job, search.data.digest())
        scores = search.score(model, search.data.dataset, "val") if "val" in search.data.images else None
    except OutOfTimeError:
        return {**row, **SLOWER_THAN_PLANNED, "seconds": search.budget.elapsed - start}
    except TrainingError as error:
        return {**row, **end(Status.DIVERGED, str(error)), "seconds": search.budget.elapsed - start}
    row |= {"status": Status.TRIED.value, "name": name}
    saved = f"; saved to {job.out}" if is_alone else ""
    named = f"the probe, {row['head']}" if "lda" in row else candidate.name
    if scores is None:
        search.callback.on_note(f"{named}: {'solved for' if 'lda' in row else 'trained'}{saved}")
        return {**row, "seconds": search.budget.elapsed - start}
    write_array(folder / f"{name}-pixels.npy", count_pixels(scores))
    total = sum_scores(scores, model.num_classes)
    score = f"{100 * total.mean_per_class:.1f} % mean IoU on val, {len(scores)} images"
    search.callback.on_note(f"{named}: {score}{saved}")
    return {**row, "score": total.mean_per_class, "log_loss": total.loss, "images": len(scores),
            "seconds": search.budget.elapsed - start}  # fmt: skip


def _folder(search: MaskSearch) -> Path:
    folder = search.job(HEAD_ALONE, 1).run_dir / "search"
    make_folder(folder)
    return folder


def _why_one(search: MaskSearch, rows: list[dict[str, Any]]) -> str:
    """Return why one method alone was tried to its end."""
    if search.request.method == HEAD_ALONE.method:
        return f"{search.rival} is all that was requested"
    if "val" not in search.data.images:
        return f"there are no images of val to choose by, so {search.rival} was kept"
    failed = [row for row in rows if row["status"] not in (Status.TRIED, Status.NO_TIME)]
    if failed:
        return "; ".join(f"{_candidate(search, row).name}: {describe_status(row)}" for row in failed)
    return f"nothing but {search.rival} fits {format_duration(search.budget.seconds)}"


def _convinces(row: dict[str, Any]) -> bool:
    """Return True where a method is above the head alone by more than the error, on enough images to know that."""
    against = row["comparison"]
    return bool(row["images"] >= FEWEST_IMAGES and against["gain"] > against["error"])


def _finish(search: MaskSearch, rows: list[dict[str, Any]], **rankings: dict[str, Any] | None) -> RunResult:
    folder, callback = _folder(search), search.callback
    alone, others = rows[0], rows[1:]
    tried = [row for row in rows if row["status"] == Status.TRIED]
    if not tried:
        raise TrainingError(f"{alone['method']}: {describe_status(alone)}; give --iterations and a smaller --lr")
    shipped, comparison, compared_on, words = tried[0], None, "val", _why_one(search, rows)
    compared = [row for row in others if "score" in row and "score" in alone]
    for row in compared:
        files = [folder / f"{each['name']}-pixels.npy" for each in (row, alone)]
        advice = "--overwrite begins the search anew"
        row["comparison"] = compare_masks(*(read_array(file, "file of counts", advice) for file in files))
    if compared:
        best = max(compared, key=lambda row: (_convinces(row), row["comparison"]["gain"]))
        comparison, shipped = best["comparison"], best if _convinces(best) else alone
        words = f"{describe_masks(comparison, _candidate(search, best).noun, best['images'], search.rival)} on val"
        words += ", whose images took part in the choice" if shipped is best else f": {search.rival} was kept"
    job = search.job(_candidate(search, shipped), shipped["iterations"])
    write_job(job, search.data.digest())
    checkpoint = folder / f"{shipped['name']}.safetensors"
    if checkpoint.exists() and not job.checkpoint.exists():
        write_atomic(job.checkpoint, checkpoint.read_bytes())
    recorder = MetricsRecorder(job.run_dir / "metrics.jsonl")
    callbacks = CallbackList([recorder, callback])
    model, history = train_model(job, search.training_data(job), callbacks, search.device, job.checkpoint)
    split = search.data.eval_split
    scores = search.score(model, search.data.dataset, split)
    total = sum_scores(scores, model.num_classes)
    if comparison is not None and shipped is not alone and split == "test":
        baseline = search.job(HEAD_ALONE, alone["iterations"])
        other, _ = train_model(  # which is in its checkpoint
            baseline, search.training_data(baseline), Callback(), search.device, folder / f"{alone['name']}.safetensors"
        )
        compared_on = split
        comparison = compare_masks(count_pixels(scores), count_pixels(search.score(other, search.data.dataset, split)))
        words = f"{describe_masks(comparison, _candidate(search, shipped).noun, len(scores), search.rival)} on test"
    evaluation = make_evaluation(split, len(scores), total, search.data.classes)
    found = {
        "minutes": search.request.minutes,
        "metric": "miou",
        "seconds": search.budget.elapsed,
        **rankings,
        "candidates": [{key: value for key, value in row.items() if key != "name"} for row in rows],
        "selected": _candidate(search, shipped).name,
        "score": total.mean_per_class,
        "interval": list(total.intervals()["miou"]),
        "images": len(scores),
        "optimistic": split != "test",
        "comparison": comparison,
        "comparison_split": None if comparison is None else compared_on,
        "summary": words,
        "repeat_command": repeat_command(job),
    }
    result = finish_job(
        job, search.data, model, history, evaluation, callback, environment.peak_memory(search.device), search=found
    )
    shutil.rmtree(folder, ignore_errors=True)
    return result
