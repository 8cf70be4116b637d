"""The statistics of the paper's tables: means, standard deviations, wins, and two significance tests.

None stands for a value that is not defined, such as a mean with a missing number.
"""

import statistics
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

_DECIMALS = 9  # differences are rounded to so many decimals, so that equal accuracies are equal


def mean(values: Sequence[float]) -> float | None:
    """Return the mean; None of no values."""
    return statistics.fmean(values) if values else None


def std(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation (n - 1); None of fewer than two values."""
    return statistics.stdev(values) if len(values) > 1 else None


def group_mean(cells: Sequence[float | None]) -> float | None:
    """Return the mean over the tasks of a group; None where one is missing."""
    there = [cell for cell in cells if cell is not None]
    return mean(there) if len(there) == len(cells) else None


def wins(ours: Mapping[str, float | None], theirs: Mapping[str, float | None]) -> int | None:
    """Return the number of tasks on which one method is better (paper, table 1).

    Args:
        ours: Task -> mean score of the method.
        theirs: Task -> mean score of the other method.

    Returns:
        The number of tasks; None where a score is missing.
    """
    if any(ours.get(task) is None or theirs.get(task) is None for task in ours):
        return None
    return sum(difference > 0 for difference in differences(ours, theirs).values())


def differences(ours: Mapping[str, float | None], theirs: Mapping[str, float | None]) -> dict[str, float]:
    """Return the differences of scores by task, for the tasks that both have.

    Args:
        ours: Task -> mean score of the method.
        theirs: Task -> mean score that is subtracted.

    Returns:
        The differences of scores by task, for the tasks that both have.
    """
    pairs = ((task, value, theirs.get(task)) for task, value in ours.items())
    return {task: round(a - b, _DECIMALS) for task, a, b in pairs if a is not None and b is not None}


def paired_t_interval(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float] | None:
    """Return Student's 95 % interval of the mean difference of two methods on the same draws.

    Args:
        ours: Score of the method on each draw.
        theirs: Score of the other method on the same draws, which is subtracted.

    Returns:
        Lower and upper bound; None for fewer than two draws.
    """
    paired = [a - b for a, b in zip(ours, theirs, strict=True)]
    spread = std(paired)
    if spread is None:
        return None
    half = float(stats.t.ppf(0.975, len(paired) - 1)) * spread / len(paired) ** 0.5
    return statistics.fmean(paired) - half, statistics.fmean(paired) + half


def wilcoxon(differences: Sequence[float]) -> float | None:
    """Return p of the one-sided Wilcoxon signed-rank test that a method is better over all tasks.

    Differences of zero are left out; those of equal size have the mean of their ranks. The test is exact.

    Args:
        differences: Difference of mean scores on each task.

    Returns:
        The p-value; None where all differences are zero.
    """
    nonzero = [difference for difference in differences if difference]
    if not nonzero:
        return None
    ranks = np.rint(2 * stats.rankdata(np.abs(nonzero))).astype(int)  # twice the ranks: a mean rank may be a half
    patterns = np.ones(1)  # number of patterns of signs by the sum of the ranks of the positive ones
    for rank in ranks:
        patterns = np.pad(patterns, (0, rank)) + np.pad(patterns, (rank, 0))
    return float(patterns[ranks[np.array(nonzero) > 0].sum() :].sum() / patterns.sum())


def welch(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Return p of Welch's one-sided t-test that the mean of one method is higher on a task.

    Args:
        ours: Score of each run of the method.
        theirs: Score of each run of the other method.

    Returns:
        The p-value; None for fewer than two runs of a method, and where no score varies.
    """
    if min(len(ours), len(theirs)) < 2:
        return None
    if not statistics.stdev(ours) and not statistics.stdev(theirs):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # scipy warns where one method does not vary
        return float(stats.ttest_ind(ours, theirs, equal_var=False, alternative="greater").pvalue)
