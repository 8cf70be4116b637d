"""The share of the training images that a search takes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vpt.search import SearchRequest
from vpt.search.sampling import limits_of


@pytest.mark.parametrize(
    ("options", "share", "per_class", "expected"),
    [
        ({"train_fraction": 0.8}, 0.5, None, {"train_fraction": 0.4}),
        ({"images_per_class": 6}, 0.5, None, {"train_fraction": 0.5, "images_per_class": 3}),
        ({"images_per_class": 1}, 0.5, None, {"train_fraction": 0.5, "images_per_class": 1}),
        ({"images_per_class": 6}, 0.5, 2, {"train_fraction": 1.0, "images_per_class": 2}),
        ({"images_per_class": 6}, 0.5, 9, {"train_fraction": 1.0, "images_per_class": 6}),
        ({}, 0.5, 9, {"train_fraction": 1.0, "images_per_class": 9}),
    ],
)
def test_limits_of_a_share_are_that_share_of_those_of_the_job(
    options: dict[str, Any], share: float, per_class: int | None, expected: dict[str, Any]
) -> None:
    request = SearchRequest.create("digits", "a.safetensors", device=torch.device("cpu"), **options)
    assert limits_of(request.job(request.backbones[0], "linear"), share, per_class) == expected
