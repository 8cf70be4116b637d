"""The end of a search: the final training, test images that took no part in any choice, and the report."""

import math
import shutil
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from vpt.core import environment
from vpt.core.io import write_atomic
from vpt.core.text import format_duration
from vpt.data.dataset import Dataset
from vpt.errors import TrainingError, is_out_of_memory
from vpt.model.label_kinds import Regression
from vpt.search.comparison import Comparison, compare, interval
from vpt.search.outcome import Model, Probe, Scored
from vpt.search.pictures import draw_search
from vpt.search.rows import best_row
from vpt.search.selection import Selection
from vpt.search.status import NOT_BEGUN, Status
from vpt.search.trials import Deadline, OutOfTimeError, outputs_of, select
from vpt.tasks.classification.labels import label_task
from vpt.tasks.classification.metrics import METRICS, choose_metric, with_metric_first
from vpt.tasks.evaluation import OUT_OF_FOLD, Evaluation, make_evaluation
from vpt.tasks.search_rows import describe_status
from vpt.training import CallbackList
from vpt.training.job import RunResult
from vpt.training.run_directory import MetricsRecorder, repeat_command
from vpt.tuning import finish_job, train_model

_INTERNAL = ("recipe", "step", "refit")  # of rows
_LATEST = 1.03  # of the budget, at which the final training is given up
_LEAST_LENGTH = 0.5  # of the trial's epochs that the final training must have
_NOTHING_FITS = "no other method fits the backbone and --max-size"


def finish(
    selection: Selection,
    probe: Probe,
    heads: list[dict[str, Any]],
    rows: list[dict[str, Any]],
    ranking: dict[str, Any] | None,
) -> RunResult:
    """Train what ships, score it, and write the result.

    Args:
        selection: The search.
        probe: The probe.
        heads: Rows of the heads that were tried.
        rows: Rows of the other candidates.
        ranking: Ranking of the backbones, or None.

    Returns:
        The result.
    """
    request, callback, device = selection.request, selection.callback, selection.pool.device
    best, failure = best_row(rows), ""
    shipped = None
    if best is not None:
        try:
            shipped = _train_winner(selection, best)
        except (OutOfTimeError, TrainingError, MemoryError, RuntimeError) as error:
            failure = _describe_failure(error)
            for path in (probe.job.checkpoint, probe.job.run_dir / "metrics.jsonl"):  # of that training
                path.unlink(missing_ok=True)
    final = _naming_metric(shipped, request.metric) if shipped else Model(probe.job, probe.data, probe.model, [])
    selection.pool.write_job(final.job)

    scored = _score(selection, probe, shipped, best)
    comparison: Comparison | None = None
    if shipped is not None:
        comparison = compare(scored.outputs, scored.baseline, scored.labels, request.metric, scored.groups)
    elif best is not None:
        comparison = Comparison(**best["comparison"])
    evaluation = _evaluate(scored, final, request.metric)
    if scored.split == "test" and evaluation.scores is not None:
        pictures = partial(final.data.pictures, final.model, evaluation.scores, "test")
        evaluation = replace(evaluation, pictures=pictures)
    words = _words(selection, rows, comparison, shipped is not None, failure)
    if shipped is not None and scored.split != "test":
        words += " out of fold, on images that took part in the choice"
    value = evaluation.metrics[request.metric]
    bounds = list(interval(scored.outputs, scored.labels, request.metric, scored.groups))
    search = {
        "minutes": request.minutes,
        "metric": request.metric,
        "seconds": selection.budget.elapsed,
        "backbones": ranking,
        "candidates": [*heads, *({k: v for k, v in row.items() if k not in _INTERNAL} for row in rows)],
        "selected": "the probe" if shipped is None or best is None else selection.candidate(best).name,
        "score": value,
        "interval": None if math.isnan(value) else bounds,
        "images": len(scored.labels),
        "optimistic": scored.split != "test",
        "comparison": None if comparison is None else comparison.to_dict(),
        "comparison_split": None if comparison is None else scored.split if shipped is not None else OUT_OF_FOLD,
        "summary": words,
        "repeat_command": None if isinstance(request.data, Dataset) else repeat_command(final.job),
    }
    data = replace(final.data, images={**final.data.images, scored.split: len(scored.labels)})
    single = METRICS[request.metric].kind == "single_label"
    if single:
        draw_search(final, scored, evaluation, callback)
    result = finish_job(
        final.job, data, final.model, final.history, evaluation, callback, environment.peak_memory(device),
        draw=not single, search=search,
    )  # fmt: skip
    shutil.rmtree(final.job.run_dir / "search", ignore_errors=True)
    return result


def _naming_metric(model: Model, metric: str) -> Model:
    """Return a model whose job says what counted, for the command that repeats it: it changes no training here."""
    usual = metric == choose_metric(METRICS[metric].kind)
    return model if usual else replace(model, job=replace(model.job, config=model.job.config.replace(metric=metric)))


def _train_winner(selection: Selection, best: dict[str, Any]) -> Model | None:
    """Train the best candidate for good if it is to replace the probe; None keeps the probe."""
    pool, budget, candidate = selection.pool, selection.budget, selection.candidate(best)

    def plan() -> dict[str, Any]:
        against = Comparison(**best["comparison"])
        if not against.convinces:
            reason = f", which is not certain enough ({against.doubt})" if against.gain > 0 else ""
            return {"epochs": 0, "reason": reason}
        if best["folds"] == 1:
            return {"epochs": best["epochs"], "reason": ""}
        per_epoch = max(best["step"], best["seconds"] / best["epochs"] / len(pool.examples)) * len(pool.examples)
        epochs = min(best["epochs"], int((budget.seconds - budget.elapsed - selection.end_seconds) / per_epoch))
        if epochs < _LEAST_LENGTH * best["epochs"]:
            return {"epochs": 0, "reason": ", and no time is left to train on all images"}
        return {"epochs": epochs, "reason": ""}

    decision = selection.decisions.decide("selected", plan)
    if not decision["epochs"]:
        return None
    job = selection.job(candidate, decision["epochs"], pool.train_on if best["folds"] == 2 else "train")
    train = pool.examples if best["folds"] == 2 else select(pool.examples, np.arange(pool.num_train))
    data = pool.job_data(job, train)
    pool.write_job(job)
    trial = selection.checkpoint(candidate, 0)
    if best["folds"] == 1 and trial.exists() and not job.checkpoint.exists():
        write_atomic(job.checkpoint, trial.read_bytes())  # the trial was this very training
    recorder = MetricsRecorder(job.run_dir / "metrics.jsonl")
    deadline = Deadline(budget, _LATEST * budget.seconds)
    callbacks = CallbackList([recorder, selection.callback, deadline])
    model, history = train_model(job, data, callbacks, pool.device, job.checkpoint)
    if data.labels.calibrates:
        out_of_fold = torch.from_numpy(selection.outputs(best)), torch.from_numpy(selection.labels(best))
        model.label_kind = data.labels.calibrate(*out_of_fold)
    return Model(job, data, model, history)


def _describe_failure(error: Exception) -> str:
    """Return why the final training failed, or raise what is no failure of a training."""
    if isinstance(error, OutOfTimeError):
        return ", and its training on all images was slower than planned"
    if isinstance(error, TrainingError):
        return f", and its training on all images diverged ({error})"
    if is_out_of_memory(error):
        return ", and its training on all images does not fit into memory"
    raise error


def _score(selection: Selection, probe: Probe, shipped: Model | None, best: dict[str, Any] | None) -> Scored:
    """Return the outputs of the probe, and of what ships, for the test images, or else for images that are left out."""
    callback, test = selection.callback, probe.data.decoded.get("test")
    if test is not None:
        outputs = baseline = outputs_of(probe.model, test, probe.job, callback, "test")
        if shipped is not None:
            outputs = outputs_of(shipped.model, test, shipped.job, callback, "test")
        return Scored("test", test, np.arange(len(test)), outputs, baseline, test.labels, test.groups)
    if shipped is None or best is None:
        train, outputs = probe.data.decoded["train"], probe.left_out
        return Scored(OUT_OF_FOLD, train, np.arange(len(train)), outputs, outputs, train.labels, train.groups)
    folds = selection.folds(best["folds"])
    rows = np.concatenate([fold.rows for fold in folds])
    outputs, baseline = selection.outputs(best), selection.probe_outputs(best["folds"])
    return Scored(OUT_OF_FOLD, folds[0].source, rows, outputs, baseline, selection.labels(best), selection.groups(best))


def _evaluate(scored: Scored, final: Model, metric: str) -> Evaluation:
    kind, found = final.model.label_kind, torch.from_numpy(scored.outputs)
    logits = kind.standardize(found) if isinstance(kind, Regression) else found
    scores = label_task(kind).score(logits, torch.from_numpy(scored.labels), scored.groups)
    return with_metric_first(make_evaluation(scored.split, len(scored.labels), scores, final.data.classes), metric)


def _words(
    selection: Selection, rows: list[dict[str, Any]], comparison: Comparison | None, shipped: bool, failure: str
) -> str:
    best = best_row(rows)
    if best is None or comparison is None:
        return f"{_why_nothing_else(selection, rows)}: the probe was kept"
    words = comparison.describe(selection.candidate(best).noun)
    if shipped:
        return words if comparison.gain > 0 else f"{words}; they were chosen on images out of fold, before these"
    decision: dict[str, Any] = selection.decisions.decide("selected", dict)
    return f"{words} out of fold{failure or decision['reason']}: the probe was kept"


def _why_nothing_else(selection: Selection, rows: list[dict[str, Any]]) -> str:
    """Return why no candidate was tried to its end."""
    if selection.features.one_of_each_class:
        return "each class has one training image, so nothing can be compared"
    if not rows:
        return "only the probe was requested" if selection.request.method else _NOTHING_FITS
    begun = [row for row in rows if row["status"] not in NOT_BEGUN]
    if begun:
        return "; ".join(f"{selection.candidate(row).name}: {describe_status(row)}" for row in begun)
    reasons = {row["reason"] for row in rows}
    if not any(row["status"] == Status.NO_TIME for row in rows):
        if len(reasons) == 1:
            return str(reasons.pop())
        return "; ".join(f"{selection.candidate(row).name}: {row['reason']}" for row in rows)
    return f"nothing but the probe fits {format_duration(60 * selection.request.minutes)}"
