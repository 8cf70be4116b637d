"""Metrics that a user can choose among, by kind of labels: for a search, and for the epoch that is kept."""

from dataclasses import dataclass, replace

from vpt.core.text import comma_list
from vpt.data.label_kinds import KindName
from vpt.errors import SpecError
from vpt.tasks.evaluation import Evaluation
from vpt.training.evaluation import Scores


@dataclass(frozen=True)
class Metric:
    """A metric of predictions.

    Attributes:
        label: Its name for people.
        kind: Kind of the labels that it is for.
        sign: 1 if more is better, -1 if less is.
    """

    label: str
    kind: KindName
    sign: int = 1


METRICS: dict[str, Metric] = {
    "top1": Metric("top-1", "single_label"),
    "macro_f1": Metric("macro F1", "single_label"),
    "balanced_accuracy": Metric("balanced accuracy", "single_label"),
    "map": Metric("mAP", "multi_label"),
    "r2": Metric("R²", "regression"),
    "mae": Metric("MAE", "regression", -1),
}


def choose_metric(kind: KindName, metric: str = "auto") -> str:
    """Return the metric that counts.

    Args:
        kind: Kind of the labels.
        metric: A key of `METRICS`, or "auto" for the first of the kind. Default: "auto".

    Returns:
        A key of `METRICS`.

    Raises:
        SpecError: The metric is for labels of another kind.
    """
    names = [name for name, known in METRICS.items() if known.kind == kind]
    if metric not in ("auto", *names):
        raise SpecError(f"metric is {metric!r}, and the labels are {kind}; write {comma_list(names)}, or leave it out")
    return names[0] if metric == "auto" else metric


def measure(scores: Scores, metric: str) -> float:
    """Return a metric of scores.

    Args:
        scores: The scores, of labels that the metric is for.
        metric: A key of `METRICS`.

    Returns:
        The metric.
    """
    if metric == "macro_f1":
        return scores.macro["f1"]
    return scores.metrics["mean_per_class" if metric == "balanced_accuracy" else metric]


def with_metric_first(evaluation: Evaluation, metric: str) -> Evaluation:
    """Return an evaluation with a metric as its main one.

    Args:
        evaluation: The evaluation, with its scores.
        metric: A key of `METRICS`.

    Returns:
        The evaluation.
    """
    assert evaluation.scores is not None
    return replace(evaluation, metrics={metric: measure(evaluation.scores, metric), **evaluation.metrics})
