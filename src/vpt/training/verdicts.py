"""Verdicts: what a reader should know before trusting a score, decided from stored records alone.

A record without a curve, or without the number of its images, gets the verdicts that can be given.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from vpt.core.intervals import difference_interval, wilson
from vpt.core.text import format_number, pluralize
from vpt.training.job import RunResult

Kind = Literal["diverged", "at chance", "edge of the grid", "val and test apart", "not converged"]
RIDGE_JOINS = "a ridge head joins the trained head"  # begins the note on it
KINDS: tuple[Kind, ...] = ("diverged", "at chance", "edge of the grid", "val and test apart", "not converged")
_LOSS_NOISE = 1.01  # a loss that ends less than 1 % above its start did not leave it
_RISE, _RISE_FROM_LOWEST = 1.1, 2.0  # of the loss, over its first and its lowest value: a healthy one can begin low
_FALL = 0.05  # of the training metric, with which a smaller rise of the loss counts
_RATES = ("top1", "macro_f1", "balanced_accuracy")  # metrics with the noise of a fraction of images
_FLAT_SHARE = 0.05  # of the whole rise: what a converged curve may still gain in its last quarter


@dataclass(frozen=True)
class Verdict:
    """A reason not to take a score as it is.

    Attributes:
        kind: One of `KINDS`, which are in the order of their weight.
        evidence: Figures that say so.
        remedy: What to do; a command where one does it. Empty where there is none.
    """

    kind: Kind
    evidence: str
    remedy: str = ""

    def __str__(self) -> str:
        """Return the verdict as one phrase."""
        return f"{self.kind}: {self.evidence}" + (f"; {self.remedy}" if self.remedy else "")


@dataclass(frozen=True)
class EdgeOfGrid:
    """An axis of a grid of settings whose best value is the lowest or the highest one.

    Attributes:
        key: Name of the axis, such as "learning_rate".
        value: The best value.
        values: All values that were tried, in ascending order.
        beyond: The next value in the same direction, by the ratio of the last step.
    """

    key: str
    value: float
    values: tuple[float, ...]
    beyond: float


def judge_run(
    scores: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    images: Mapping[str, int],
    *,
    error: str = "",
    metric: str = "top1",
    lower_is_better: bool = False,
    keep: str = "last",
    joined: bool = False,
) -> list[Verdict]:
    """Return the verdicts on a run.

    Args:
        scores: "split" that was scored, its metrics between 0 and 1, and "per_class"; empty for a run without a result.
        history: train_loss, train_metric and val_metric of each epoch; empty where there is no curve.
        images: Split -> number of images; may be empty.
        error: Message of a training that diverged; empty where there is a result.
        metric: Name of the metric of `history`. Default: "top1".
        lower_is_better: The metric is an error. Default: False.
        keep: Epoch whose weights were scored: the "last", or the "best" on val. Default: "last".
        joined: A ridge head joined the trained one after training, and `history` is that of the trained head alone.
            Default: False.

    Returns:
        The verdicts in the order of `KINDS`.
    """
    if error:
        return [Verdict("diverged", error)]
    curve, sign = _finite(history, "val_metric"), -1 if lower_is_better else 1
    trained = history
    if keep == "best" and curve:
        best = max(sign * value for value in curve)
        trained = history[: 1 + next(i for i, epoch in enumerate(history) if epoch["val_metric"] == sign * best)]
    verdicts = [*_diverged(trained), *_at_chance(scores, images)]
    if curve and not joined and metric == "top1" and scores.get("split") == "test" and "top1" in scores:
        kept = max(curve) if keep == "best" else curve[-1]
        verdicts += judge_splits(kept, images.get("val"), scores["top1"], images.get("test"))
    if not any(verdict.kind == "diverged" for verdict in verdicts):
        verdicts += _not_converged(history, images, metric, sign)
    return verdicts


def joins_ridge(penalty: object, notes: Sequence[str]) -> bool:
    """Return whether a run that trained in epochs ended with a ridge head beside the trained one.

    Args:
        penalty: Value of its option `ridge`.
        notes: Its notes.

    Returns:
        True if one was asked for, or if a note says that one joined by default.
    """
    return penalty not in (None, "none", "default") or any(note.startswith(RIDGE_JOINS) for note in notes)


def judge_result(result: RunResult) -> list[Verdict]:
    """Return the verdicts on the result of a job.

    Args:
        result: The result.

    Returns:
        The verdicts in the order of `KINDS`.
    """
    metric = result.job["config"].get("metric", "auto")
    return judge_run(
        {"split": result.eval_split, **result.eval_metrics, "per_class": result.per_class},
        result.history,
        result.images,
        metric=next(iter(result.eval_metrics)) if metric == "auto" else metric,
        lower_is_better=metric == "mae",
        keep=result.job["config"].get("keep", "last"),
        joined=joins_ridge(result.job.get("ridge"), result.notes),
    )


def judge_splits(val: float, num_val: int | None, test: float, num_test: int | None) -> list[Verdict]:
    """Return the verdict on the top-1 of val and test: apart where their joint interval has no zero.

    Args:
        val: Top-1 on val, between 0 and 1.
        num_val: Number of its images; None where it is not known.
        test: Top-1 on test.
        num_test: Number of its images.

    Returns:
        One verdict, or none.
    """
    if not num_val or not num_test:
        return []
    low, high = (100 * bound for bound in difference_interval(val, num_val, test, num_test))
    if low <= 0 <= high:
        return []
    bounds = f"{low:+.1f} to {high:+.1f}".replace("-", "−")
    text = f"top-1 {100 * val:.1f} % on val ({num_val:,} images), {100 * test:.1f} % on test ({num_test:,}); "
    return [Verdict("val and test apart", f"{text}95 % interval of the difference {bounds} points")]


def edges_of_grid(settings: Sequence[Mapping[str, float]], scores: Sequence[float | None]) -> list[EdgeOfGrid]:
    """Return the axes on which every best setting has the lowest value, or every one the highest.

    Args:
        settings: Axis -> value of each setting.
        scores: Score of each setting; None for one without a result.

    Returns:
        The axes. The lower end of an axis is none where it is 0, and no axis of one value has an edge.
    """
    tried = [(setting, score) for setting, score in zip(settings, scores, strict=True) if score is not None]
    if not tried:
        return []
    best = max(score for _, score in tried)
    found = []
    for key in dict.fromkeys(key for setting in settings for key in setting):
        values = tuple(sorted({setting[key] for setting in settings if key in setting}))
        chosen = {setting.get(key) for setting, score in tried if score == best}
        if len(values) < 2 or len(chosen) > 1:
            continue
        value = chosen.pop()
        if value == values[-1]:
            found.append(EdgeOfGrid(key, value, values, _step(value, values[-2])))
        elif value == values[0] and value > 0:
            found.append(EdgeOfGrid(key, value, values, _step(value, values[1])))
    return found


def _step(end: float, inner: float) -> float:
    """Return the value beyond an end of an axis, by the ratio of its last step; three digits."""
    beyond = end * (end / inner if inner > 0 else 10)
    return round(beyond) if isinstance(end, int) else float(f"{beyond:.3g}")


def _diverged(history: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    losses, metrics = [epoch["train_loss"] for epoch in history], [epoch["train_metric"] for epoch in history]
    if len(losses) < 2:
        return []
    rose = losses[-1] > max(_RISE * losses[0], _RISE_FROM_LOWEST * min(losses))
    fell = losses[-1] > _LOSS_NOISE * losses[0] and metrics[-1] < metrics[0] - _FALL
    if math.isfinite(losses[-1]) and not rose and not fell:
        return []
    text = f"training loss rose from {format_number(losses[0])} to {format_number(losses[-1])}"
    return [Verdict("diverged", text, "lower the learning rate")]


def _at_chance(scores: Mapping[str, Any], images: Mapping[str, int]) -> list[Verdict]:
    """Return the verdict on a top-1 whose interval is not above that of guessing one of the classes."""
    num_classes, num_images = len(scores.get("per_class") or ()), images.get(str(scores.get("split")))
    if "top1" not in scores or num_classes < 2 or not num_images:
        return []
    low, high = wilson(round(scores["top1"] * num_images), num_images)
    if low > 1 / num_classes:
        return []
    text = f"top-1 {100 * scores['top1']:.1f} % on {scores['split']}, 95 % interval {100 * low:.1f} to {100 * high:.1f}"
    return [Verdict("at chance", f"{text} of {pluralize(num_images, 'image')}; chance is {100 / num_classes:.1f} %")]


def _finite(history: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """Return the values of a column of a history that are known and finite."""
    return [epoch[name] for epoch in history if epoch.get(name) is not None and math.isfinite(epoch[name])]


def _not_converged(
    history: Sequence[Mapping[str, Any]], images: Mapping[str, int], metric: str, sign: int
) -> list[Verdict]:
    """Return the verdict on a metric that gains in the last quarter more than a flat curve and its noise do."""
    split, curve = "val", _finite(history, "val_metric")
    if not curve:
        split, curve, sign = "train", _finite(history, "train_metric"), 1  # more of it is better, whatever val counts
    if len(curve) < 2:
        return []
    size = max(1, len(curve) // 4)
    before, last = (sum(part) / size for part in (curve[-2 * size : -size], curve[-size:]))
    num_images = images.get(split) if metric in _RATES else None
    noise = math.sqrt(max(0.0, last * (1 - last)) / num_images) if num_images else 0.0
    rise = sign * (last - before)
    if rise <= max(noise, _FLAT_SHARE * abs(curve[-1] - curve[0])):
        return []
    epochs = "epoch" if size == 1 else f"{size} epochs"
    text = f"{split} metric still {'rising' if sign > 0 else 'falling'} at the end, "
    text += f"{format_number(before)} to {format_number(last)} in the last {epochs} of {len(curve)}"
    return [Verdict("not converged", text, "train longer")]
