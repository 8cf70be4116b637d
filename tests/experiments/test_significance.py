"""Statistics, against values computed by hand or published."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from vpt.experiments.significance import (
    differences,
    group_mean,
    mean,
    paired_t_interval,
    std,
    welch,
    wilcoxon,
    wins,
)


def test_mean_and_std_of_values_equal_manual_results() -> None:
    assert mean([1, 2, 6]) == 3
    assert std([2, 4, 4, 4, 5, 5, 7, 9]) == pytest.approx((32 / 7) ** 0.5)
    assert (mean([]), std([1.0])) == (None, None)


def test_group_mean_with_missing_value_is_none() -> None:
    assert group_mean([0.5, 0.7]) == pytest.approx(0.6)
    assert group_mean([0.5, None]) is None
    assert group_mean([]) is None


def test_wins_with_ties_count_only_higher_scores() -> None:
    full = {"a": 0.5, "b": 0.1 + 0.2, "c": 0.9}
    assert wins({"a": 0.6, "b": 0.3, "c": 0.8}, full) == 1
    assert wins({"a": 0.6, "b": None, "c": 0.8}, full) is None


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1, 2, 3, 4, 5], 1 / 32),  # the most extreme of 2^5 signs
        ([-1, 2, 3, 4, 5], 2 / 32),  # rank sums 15 and 14
        ([1, -2, 3, 4, 5], 3 / 32),  # 15, 14 and 13
        ([-1, -2, -3], 1.0),
        ([0, 0, 1, 2, 3], 1 / 8),  # zeros are left out
        ([8, 6.4, 5.6, 3.2, 2.4, 1.6, -0.8], 2 / 128),
        ([1, 1, -1], 4 / 8),  # mean ranks 2, 2, 2: two or three of three signs
        ([2, 2, -1], 2 / 8),  # 1, 2.5 and 2.5: 5 or 6
    ],
)
def test_wilcoxon_of_small_samples_equals_manual_p_values(differences: list[float], p: float) -> None:
    assert wilcoxon(differences) == pytest.approx(p)


def test_wilcoxon_of_zeros_is_none() -> None:
    assert wilcoxon([0.0, 0.0]) is None


def test_welch_of_equal_variances_equals_closed_form() -> None:
    # Means 3 and 2, variances 1 and 1, n = 3: t = 1 / sqrt(2/3) with 4 degrees of freedom, whose distribution has a
    # closed form: F(t) = 1/2 + u (3 - u^2) / 4 with u = t / sqrt(4 + t^2).
    t = (3 / 2) ** 0.5
    u = t / (4 + t * t) ** 0.5
    assert welch([2, 3, 4], [1, 2, 3]) == pytest.approx(1 - (0.5 + u * (3 - u * u) / 4))
    assert welch([1, 2, 3], [2, 3, 4]) == pytest.approx(0.5 + u * (3 - u * u) / 4)


def test_welch_of_too_few_or_constant_values_is_none() -> None:
    assert welch([1.0], [1.0, 2.0]) is None
    assert welch([1.0, 1.0], [2.0, 2.0]) is None


def test_welch_of_one_constant_side_equals_closed_form() -> None:
    # t = 3 / sqrt(2/2 + 0) with 1 degree of freedom: 1/2 - atan(t) / pi
    assert welch([2, 4], [0, 0]) == pytest.approx(0.5 - math.atan(3) / math.pi)


def test_paired_interval_of_draws_equals_scipy_ttest() -> None:
    ours, theirs = [0.91, 0.88, 0.93, 0.90], [0.89, 0.87, 0.88, 0.91]
    expected = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert paired_t_interval(ours, theirs) == pytest.approx((expected.low, expected.high))
    assert paired_t_interval([0.5], [0.4]) is None


def test_group_mean_and_wins_of_the_paper_equal_its_tables(shared: Path) -> None:
    tables = json.loads((shared / "paper" / "tables.json").read_text())
    rows, names = tables["vtab_per_task"], tables["vtab_tasks"]
    groups = {"Natural": slice(0, 7), "Specialized": slice(7, 11), "Structured": slice(11, 19)}
    cells = {row: dict(zip(names, table["values"], strict=True)) for row, table in rows.items()}
    for table in rows.values():
        means = [group_mean(table["values"][part]) for part in groups.values()]
        assert means == pytest.approx(table["computed_group_means"], abs=6e-4)
    # The paper counts 4 for vpt-shallow in the last group; in print clevr_dist is 58.6 on both sides, a tie.
    for row, expected in {"linear": (1, 1, 0), "vpt-shallow": (4, 0, 3), "vpt-deep": (6, 2, 8)}.items():
        for part, count in zip(groups.values(), expected, strict=True):
            here = names[part]
            ours, full = ({task: cells[name][task] for task in here} for name in (row, "full"))
            assert wins(ours, full) == count


def test_wilcoxon_of_the_paper_equals_all_patterns_of_signs(shared: Path) -> None:
    tables = json.loads((shared / "paper" / "tables.json").read_text())

    def of(method: str) -> dict[str, float]:
        both = ((tables[f"{group}_tasks"], tables[f"{group}_per_task"][method]["values"]) for group in ("vtab", "fgvc"))
        return {task: value for names, values in both for task, value in zip(names, values, strict=True)}

    deep, full = of("vpt-deep"), of("full")
    assert len(deep) == len(full) == 24
    assert wins(deep, full) == 20
    # All 2^24 patterns of signs, as sums of two halves; twice the mean ranks are whole.
    values = np.array(list(differences(deep, full).values()))
    sizes = np.abs(values)
    ranks = np.array([2 * (sizes < size).sum() + (sizes == size).sum() + 1 for size in sizes])
    signs = (np.arange(4096)[:, None] >> np.arange(12)) & 1
    sums = np.add.outer(signs @ ranks[:12], signs @ ranks[12:])
    assert wilcoxon(list(values)) == pytest.approx((sums >= ranks[values > 0].sum()).mean())
    assert 0.0008 < (sums >= ranks[values > 0].sum()).mean() < 0.0015
