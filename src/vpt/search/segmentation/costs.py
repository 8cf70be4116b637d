"""What the candidates of a search in segmentation cost, and equal times for all of them."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from vpt.core.text import format_bytes
from vpt.errors import SpecError, TrainingError, UnsupportedError, is_out_of_memory
from vpt.model.attach import attach
from vpt.model.tuned_model import TunedModel
from vpt.search.budget import measure
from vpt.search.candidates import Candidate, bytes_of, is_too_large
from vpt.search.segmentation.candidates import HEAD_ALONE, MaskSearch, find_linear_head
from vpt.search.segmentation.comparison import FEWEST_IMAGES
from vpt.search.status import KILLED, OUT_OF_MEMORY, Status, end
from vpt.search.trials import ImagesOnly, StepsOnly, StepTimer
from vpt.tasks.registry import TASKS
from vpt.tasks.segmentation.task import SegmentationData
from vpt.training import CallbackList
from vpt.tuning import train_model

_MIN_ITERATIONS, _MAX_ITERATIONS = 20, 2000
_LONG_ENOUGH = 400  # iterations of every candidate, where there are more than two
_TEST_SHARE = 0.15  # of the budget at most, for the test images
_VAL_SHARE = 0.04  # of the budget at most, for scoring the images of val once
_STEADY = 0.85  # of the time of a training is planned; where steps slow down, the rest keeps it from being lost
_MEASURED = 5  # images of which features are computed to measure it
END_SHARE = 0.02  # of the budget, for files and pictures
TOO_FEW = end(Status.NO_TIME, "too few iterations fit")


def seconds_of_tests(search: MaskSearch) -> float:
    """Return the seconds in which two models score the test images, at most a share of the budget.

    Args:
        search: The search.

    Returns:
        The seconds.
    """
    seconds = 2 * search.data.images.get("test", 0) * search.costs["score"]
    return float(min(seconds, _TEST_SHARE * search.budget.seconds))


def measure_costs(search: MaskSearch) -> dict[str, Any]:
    """Measure candidates one after the other, as long as there is time for one more.

    Args:
        search: The search.

    Returns:
        "steps", the seconds of an optimizer step by name of candidate, 0 where nothing is trained; "score", those
        of scoring an image; where a head is solved for, "features", those of an image that it is solved on, and
        "solving", those of the rest; "refused", the ends of candidates that are not tried, by name.

    Raises:
        SpecError: The only method, or the head alone, cannot take an option.
        UnsupportedError: The only method does not fit the backbone.
    """
    costs: dict[str, Any] = {"steps": {}, "score": 0.0, "refused": {}}
    steps, refused = costs["steps"], costs["refused"]
    if search.solved_head is None:
        steps[HEAD_ALONE.name], model = _measure_step(search, HEAD_ALONE)
    else:
        steps[HEAD_ALONE.name] = 0.0
        costs["features"], costs["solving"], model = measure_solving(search)
    costs["score"] = measure_scoring(search, model)
    for name, candidate in list(search.candidates.items())[1:] if "val" in search.data.images else ():
        several, first = len(steps) > 1, replace(candidate, factor=1.0).name
        if several and not _fits(search, costs, {**steps, name: steps.get(first, list(steps.values())[1])}):
            if name == first:  # another rate is no method of its own
                refused[name] = TOO_FEW  # though its steps take no longer than those of the first method
            continue
        if name != first:  # whose step takes as long at another rate
            if first in steps:
                steps[name] = steps[first]
            continue
        measured: dict[str, Any] = search.decisions.decide_or_give_up(
            f"step {name}", partial(_measure_or_refuse, search, candidate), KILLED
        )
        if "seconds" not in measured:
            refused[name] = measured
        elif several and not _fits(search, costs, {**steps, name: measured["seconds"]}):
            refused[name] = TOO_FEW
        else:
            steps[name] = measured["seconds"]
    return costs


def _measure_or_refuse(search: MaskSearch, candidate: Candidate) -> dict[str, Any]:
    """Return the "seconds" of a step of a candidate, or the end of one that cannot be tried."""
    try:
        if reason := _refusal(search, candidate):
            return end(Status.SKIPPED, reason)
        return {"seconds": _measure_step(search, candidate)[0]}
    except (SpecError, UnsupportedError) as error:
        if search.request.method:
            raise
        return end(Status.SKIPPED, str(error))
    except TrainingError as error:
        return end(Status.DIVERGED, str(error))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return OUT_OF_MEMORY


def _measure_step(search: MaskSearch, candidate: Candidate) -> tuple[float, TunedModel]:
    """Return the seconds of an optimizer step, by the second of two, and the model."""
    job, timer = search.job(candidate, 2, lda=None), StepTimer(search.budget)
    callbacks = CallbackList([StepsOnly(search.callback), timer])
    model, _ = train_model(job, search.training_data(job), callbacks, search.device)
    return timer.times[-1] - timer.times[0], model


def measure_scoring(search: MaskSearch, model: TunedModel) -> float:
    """Return the seconds in which a model scores an image.

    Args:
        search: The search.
        model: The model.

    Returns:
        The seconds.
    """
    pairs = search.data.dataset.splits["train"]
    one = replace(search.data.dataset, splits={"train": pairs.select(range(1))})
    with measure(search.budget.clock) as watch:
        search.score(model, one, "train")
    return watch.seconds


def measure_solving(search: MaskSearch) -> tuple[float, float, TunedModel]:
    """Measure what it takes to solve for a head.

    Args:
        search: The search.

    Returns:
        The seconds of an image, decoding included, those of the rest, and the model.
    """
    head, seconds = find_linear_head(search.bare_backbone), list[float]()
    few = min(_MEASURED, len(search.data.labeled))
    for count in (1, 1, few):  # the first allocates memory
        job = search.job(HEAD_ALONE, 0, head=head, lda=count)
        with measure(search.budget.clock) as watch:
            model, _ = train_model(job, search.training_data(job), ImagesOnly(search.callback), search.device)
        seconds.append(watch.seconds)
    _, first, last = seconds
    each = (last - first) / (few - 1) if few > 1 and last > first else first
    return each, max(0.0, first - each), model


def _fits(search: MaskSearch, costs: dict[str, Any], steps: Mapping[str, float]) -> bool:
    """Return whether each of these candidates, where there are more than two, gets a training long enough."""
    return min(_lengths(search, costs, steps).values()) >= _LONG_ENOUGH


def _refusal(search: MaskSearch, candidate: Candidate) -> str | None:
    """Return why a candidate is not tried, if it adds more to the head than `max_size`; all have the head."""
    if search.request.method:
        return None
    task, backbone, classes = TASKS["segmentation"], search.bare_backbone, len(search.data.classes)
    model, alone = (
        attach(backbone, one.method, classes, head=task.make_readout(search.job(one, 1).head, backbone))
        for one in (candidate, HEAD_ALONE)
    )
    added = model.counts().trainable - alone.counts().trainable
    sized = replace(candidate, size=bytes_of(added, search.request.options.get("save_dtype", "fp32")))
    if not is_too_large(sized, search.request.max_size):
        return None
    words = f"it adds {format_bytes(sized.size)} to the file of the head"
    return f"{words}, above --max-size {search.request.max_size:g}"


def sample_scored(search: MaskSearch) -> SegmentationData:
    """Return the data with as many images of val and of test as can be scored.

    Args:
        search: The search.

    Returns:
        The data.
    """
    data, each = search.data, max(1e-9, search.costs["score"])
    for_test = _TEST_SHARE / 2  # two models are scored
    val = (_VAL_SHARE, "choose") if "test" in data.dataset.splits else (for_test, "choose and measure")
    for name, least, share, verb in (("val", FEWEST_IMAGES, *val), ("test", 1, for_test, "measure")):
        pairs, fitting = data.dataset.splits.get(name), max(least, int(share * search.budget.seconds / each))
        if pairs is None or fitting >= len(pairs):
            continue
        rng = np.random.default_rng(data.config.training.seed)
        chosen = np.sort(rng.permutation(len(pairs))[:fitting]).tolist()
        search.callback.on_note(f"{fitting} of {len(pairs)} images of {name} {verb}; a larger --minutes takes all")
        splits = {**data.dataset.splits, name: pairs.select(chosen)}
        data = replace(data, dataset=replace(data.dataset, splits=splits), images={**data.images, name: fitting})
    return data


def _lengths(search: MaskSearch, costs: dict[str, Any], steps: Mapping[Any, float]) -> dict[Any, int]:
    """Return the iterations that fit into equal times of all that train.

    Images of val are scored in that time, too, if there are any, and a head is solved for. The probe and the one
    that ships are solved for again at the end.
    """
    priced = replace(search, costs=costs)
    each = priced.solving_seconds + search.data.images.get("val", 0) * costs["score"]
    is_solved = priced.solved_images is not None
    trained = {name: seconds for name, seconds in steps.items() if not (is_solved and name == HEAD_ALONE.name)}
    left = search.budget.remaining - seconds_of_tests(priced) - END_SHARE * search.budget.seconds
    left -= 2 * priced.solving_seconds + (len(steps) - len(trained)) * each
    share = _STEADY * (left / max(1, len(trained)) - each)
    return {name: min(_MAX_ITERATIONS, max(0, int(share / max(1e-9, seconds)))) for name, seconds in trained.items()}


def plan_lengths(search: MaskSearch) -> dict[str, int]:
    """Give each candidate as much time. Without val, the head alone trains, or is solved for.

    Args:
        search: The search.

    Returns:
        The iterations by name of those that were measured; 0 where too few fit, and where nothing is trained.
    """
    steps, none = list(search.costs["steps"].items()), dict.fromkeys(search.costs["steps"], 0)
    for count in range(len(steps), 1, -1) if "val" in search.data.images else ():
        found = _lengths(search, search.costs, dict(steps[:count]))
        if min(found.values()) >= (_MIN_ITERATIONS if count == 2 else _LONG_ENOUGH):
            return none | found
    if search.solved_images is not None:
        return none
    images = {name: count for name, count in search.data.images.items() if name != "val"}
    without_val = replace(search, data=replace(search.data, images=images))
    (length,) = _lengths(without_val, search.costs, dict(steps[:1])).values()
    return none | {HEAD_ALONE.name: max(1, length)}
