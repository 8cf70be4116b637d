"""The probe: the best linear head on frozen features of several blocks, by predictions for images that are left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpt.core.text import format_bytes, format_duration
from vpt.model.readout import parse_readout
from vpt.search.budget import Budget, measure
from vpt.search.comparison import compare
from vpt.search.metrics import make_statistic
from vpt.search.status import Status, end
from vpt.tasks.classification.task import ClassificationTask
from vpt.training.block_features import FeatureTable
from vpt.training.ridge import LeftOut, Ridge, near_copies

_MAX_BYTES = 2 * 2**30  # of the features that one head reads
_LOGITS = 6  # arrays of the size of the logits that a regression holds at once
FIXED_PENALTY = 0.1  # where nothing can be left out
_SHARE = 0.15  # of the time left that one head may take


@dataclass(frozen=True)
class Features:
    """Frozen features of labeled images.

    Attributes:
        values: Features (n, width).
        table: Their columns.
        labels: Labels of the images (n, ...).
        num_classes: Number of classes.
        known_groups: Group of each image (n,), such as its patient, or None if every image is on its own.
    """

    values: NDArray[np.float16]
    table: FeatureTable
    labels: NDArray[Any]
    num_classes: int
    known_groups: NDArray[np.int64] | None = None

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """Group of each image with its near copies (n,)."""
        return near_copies(self.values[:, : self.table.pooled], self.known_groups)

    @property
    def one_of_each_class(self) -> bool:
        """True if no class has a second image, so that none can be left out."""
        return self.labels.ndim == 1 and self.labels.dtype.kind in "iu" and int(np.bincount(self.labels).max()) == 1

    @property
    def one_group(self) -> bool:
        """True if all images are of one group, so that none can be left out."""
        return int(self.groups.min()) == int(self.groups.max())

    @property
    def can_leave_out(self) -> bool:
        """True if images can be left out, and predicted from others."""
        return not (self.one_of_each_class or self.one_group)

    def select(self, rows: NDArray[np.int64]) -> Features:
        """Return the features of some images."""
        known = None if self.known_groups is None else self.known_groups[rows]
        return Features(self.values[rows], self.table, self.labels[rows], self.num_classes, known)

    def ridge(self, head: str) -> Ridge:
        """Return the regression from the features that a head reads."""
        columns = self.table.columns(ClassificationTask().parse_head(head))
        return Ridge(self.values, columns, self.labels, self.num_classes)


def head_grid(table: FeatureTable) -> list[str]:
    """Return the heads to be tried, the simpler first.

    Args:
        table: Columns of the features.

    Returns:
        The pooled feature; class token and patch mean of the last block, of the last four, of all; with the deviation.
    """
    heads, features = ["linear"], "+".join(name for name in table.features if name != "std")
    if "cls" in table.features:
        heads.append(f"multi_block(blocks=last1, features={features})")
    if len(table.widths) > 4:
        heads.append(f"multi_block(blocks=last4, features={features})")
    if len(table.widths) > 1:
        heads += [f"multi_block(blocks=all, features={features}{std})" for std in ("", "+std")]
    return [parse_readout(head).spec() or "linear" if head != "linear" else head for head in heads]


def choose_probe(
    features: Features,
    heads: Sequence[str],
    metric: str,
    budget: Budget,
    max_size: float,
    save_dtype: str = "fp32",
) -> dict[str, Any]:
    """Choose a head and its penalty by predictions for images that are left out.

    The penalty of a head has the lowest smoothed log loss, or squared error. A head replaces a simpler one if its
    paired gain is above one standard error. Where each class has one image, or all are of one group, nothing can be
    left out: the largest head is taken, with a fixed penalty.

    Args:
        features: Features of the images.
        heads: Texts of the heads, the simpler first.
        metric: A key of `vpt.tasks.classification.metrics.METRICS`, of the kind of the labels.
        budget: The budget.
        max_size: Largest tuned file in megabytes, for all heads but the first.
        save_dtype: "fp32" or "fp16", of the tuned file. Default: "fp32".

    Returns:
        The "head" that is chosen, its "penalty", and in "candidates" a row for each head, as JSON values.
    """
    groups, tried = features.groups, list[dict[str, Any]]()
    chosen: tuple[str, LeftOut] | None = None
    pace = 0.0  # seconds of a unit of work, once it is measured
    for head in heads:
        width = sum(group.stop - group.start for group in features.table.columns(ClassificationTask().parse_head(head)))
        work = float(min(width, len(features.labels))) ** 3 + float(len(features.labels)) ** 2 * width
        size = (2 if save_dtype == "fp16" else 4) * width * features.num_classes
        logits = 8 * features.num_classes * len(features.labels)
        memory = 8 * width * len(features.labels) + _LOGITS * logits
        too_long, too_large = pace * work > _SHARE * budget.remaining, size > 1e6 * max_size or memory > _MAX_BYTES
        if chosen and (too_long or too_large):
            reason = f"needs {format_duration(pace * work)}"
            if too_large:
                in_memory = memory > _MAX_BYTES
                reason = (
                    f"its features take {format_bytes(memory)}" if in_memory else f"its file has {format_bytes(size)}"
                )
            tried.append({"method": "linear", "head": head, **end(Status.SKIPPED, reason)})
            continue
        with measure(budget.clock) as watch:
            ridge = features.ridge(head)
            found = ridge.best(groups) if features.can_leave_out else ridge.leave_out(FIXED_PENALTY, groups)
            value = make_statistic(found.logits, features.labels, metric)(None)
            against: dict[str, float] = {}
            if chosen is not None:
                gain = compare(found.logits, chosen[1].logits, features.labels, metric, features.known_groups)
                against = {"gain": gain.gain, "error": gain.error}
        pace = max(pace, watch.seconds / work)
        tried.append({
            "method": "linear", "head": head, "penalty": found.penalty, "score": value, "log_loss": found.log_loss,
            "images": len(features.labels), "seconds": watch.seconds, "status": Status.TRIED.value, **against,
        })  # fmt: skip
        if chosen is None or not features.can_leave_out or gain.gain > gain.error:
            chosen = (head, found)
    assert chosen is not None
    return {"head": chosen[0], "penalty": chosen[1].penalty, "candidates": tried}


def held_out_outputs(fitted: Features, others: NDArray[np.float16], head: str, penalty: float) -> NDArray[np.float64]:
    """Return the outputs of a probe for images that it was not fitted to.

    Args:
        fitted: Features of the images that it is fitted to.
        others: Features of the others (m, width).
        head: Text of the head.
        penalty: Penalty of the squared weights.

    Returns:
        Logits (m, classes), with the scale that suits images that are left out, or numbers (m, 1).
    """
    ridge = fitted.ridge(head)
    weight, bias = ridge.solve(penalty, ridge.leave_out(penalty, fitted.groups).scale)
    columns = fitted.table.columns(ClassificationTask().parse_head(head))
    values = np.concatenate([others[:, group] for group in columns], axis=1).astype(np.float64)
    return np.asarray(values @ weight.T + bias)
