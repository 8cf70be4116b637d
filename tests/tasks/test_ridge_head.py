"""Linear heads in closed form."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch

from helpers.two_processes import examples, model
from vpt.errors import SpecError
from vpt.tasks.classification.ridge_head import solve_head
from vpt.training.ridge import PENALTIES, LeftOut


def solved(penalty: float | Literal["auto"]) -> tuple[LeftOut, torch.Tensor]:
    tuned = model("linear")
    left_out = solve_head(tuned, examples(), penalty, bf16=False, on_batch=lambda done, total: None)
    return left_out, tuned.head.weight.detach().clone()


def test_solve_head_with_auto_takes_the_penalty_with_the_lowest_log_loss() -> None:
    automatic, weight = solved("auto")
    tried = {penalty: solved(penalty) for penalty in PENALTIES}
    best = min(tried, key=lambda penalty: tried[penalty][0].log_loss)
    assert automatic.penalty == best and torch.equal(weight, tried[best][1])
    assert np.array_equal(automatic.logits, tried[best][0].logits)


@pytest.mark.parametrize("penalty", [0, -1.0, float("nan"), "best"])
def test_solve_head_with_unusable_penalty_is_refused(penalty: float) -> None:
    with pytest.raises(SpecError, match=r"ridge is .*; it must be above 0"):
        solved(penalty)
