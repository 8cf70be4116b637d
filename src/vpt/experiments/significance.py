"""The statistics of the paper's tables: means and spreads, wins, and two tests. All of it on plain numbers.

None stands for what cannot be said; no figure is made of a part of its numbers.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from scipy import stats

_DECIMALS = 9  # differences are rounded to so many decimals, so that equal accuracies are equal


def mean(values: Sequence[float]) -> float | None:
    """The mean; None of nothing."""
    return statistics.fmean(values) if values else None


def std(values: Sequence[float]) -> float | None:
    """The sample standard deviation (n - 1); None for fewer than two."""
    return statistics.stdev(values) if len(values) > 1 else None


def group_mean(cells: Sequence[float | None]) -> float | None:
    """The mean over the tasks of a group; None as soon as one is missing, for the rest would be another figure."""
    there = [cell for cell in cells if cell is not None]
    return mean(there) if len(there) == len(cells) else None


def wins(ours: Mapping[str, float | None], theirs: Mapping[str, float | None]) -> int | None:
    """In how many tasks `ours` is above `theirs` (paper, table 1); None where a cell is missing."""
    if any(ours.get(task) is None or theirs.get(task) is None for task in ours):
        return None
    return sum(difference > 0 for difference in differences(ours, theirs).values())


def differences(ours: Mapping[str, float | None], theirs: Mapping[str, float | None]) -> dict[str, float]:
    """ours - theirs, for the tasks that both have."""
    pairs = ((task, value, theirs.get(task)) for task, value in ours.items())
    return {task: round(a - b, _DECIMALS) for task, a, b in pairs if a is not None and b is not None}


def wilcoxon(differences: Sequence[float]) -> float | None:
    """p of the one-sided signed-rank test: that differences as large as these arise where neither side is better.

    Over tasks, each its mean accuracy. Ties of zero are left out, as Wilcoxon does; None where nothing is left. Exact
    up to 50 tasks without ties, else the normal approximation, as scipy has it.
    """
    nonzero = [difference for difference in differences if difference]
    if not nonzero:
        return None
    return float(stats.wilcoxon(nonzero, alternative="greater").pvalue)


def welch(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """p of Welch's one-sided t-test that the mean of `ours` is above that of `theirs`, from the runs of one task.

    None for fewer than two runs on a side, and where neither side varies at all.
    """
    if min(len(ours), len(theirs)) < 2:
        return None
    first, second = ((statistics.fmean(runs), statistics.stdev(runs), len(runs)) for runs in (ours, theirs))
    if not first[1] and not second[1]:
        return None
    return float(stats.ttest_ind_from_stats(*first, *second, equal_var=False, alternative="greater").pvalue)
