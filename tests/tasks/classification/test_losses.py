"""Losses and weights of classes: equal to torch, torchvision and scikit-learn."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight
from torch.utils.data import WeightedRandomSampler
from torchvision.ops import sigmoid_focal_loss

import vpt
from helpers.brightness import FAST, draw
from vpt.model.label_kinds import MultiLabel, SingleLabel
from vpt.tasks.classification.config import ClassificationConfig
from vpt.tasks.classification.labels import label_task
from vpt.tasks.classification.losses import balanced_weights, softmax_focal_loss
from vpt.tasks.classification.training import balanced_order

LOGITS = torch.randn(30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.double)
LABELS = torch.arange(30) % 7 % 4
TAGS = (torch.rand(30, 4, generator=torch.Generator().manual_seed(1)) < 0.3).double()
WEIGHTS = torch.tensor([1.0, 2.0, 3.0, 0.5], dtype=torch.double)


def loss_of(kind: Any, labels: torch.Tensor, **options: Any) -> Any:
    criterion = label_task(kind).make_loss(ClassificationConfig(**options), labels, 4)
    return criterion(LOGITS.float(), labels.float() if labels.dim() == 2 else labels)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, "1,2,3,0.5"])
def test_cross_entropy_equals_that_of_torch(smoothing: float, weights: str | None) -> None:
    found = loss_of(SingleLabel(), LABELS, label_smoothing=smoothing, class_weights=weights)
    expected = F.cross_entropy(LOGITS, LABELS, WEIGHTS if weights else None, reduction="sum", label_smoothing=smoothing)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("weights", [None, "1,2,3,0.5"])
def test_focal_loss_of_several_labels_equals_that_of_torchvision(weights: str | None) -> None:
    found = loss_of(MultiLabel(), TAGS, loss="focal", class_weights=weights)
    expected = sigmoid_focal_loss(LOGITS, TAGS)
    if weights:
        expected = torch.where(TAGS > 0, expected * WEIGHTS, expected)
    torch.testing.assert_close(found.double(), expected.mean(1).sum(), rtol=1e-5, atol=0)


def test_softmax_focal_loss_of_two_classes_equals_that_of_torchvision() -> None:
    """The softmax of (0, x) is the sigmoid of x."""
    x, labels = LOGITS[:, 0], (LABELS > 1).long()
    found = softmax_focal_loss(torch.stack([torch.zeros_like(x), x], 1), labels)
    expected = sigmoid_focal_loss(x, labels.double(), alpha=-1, gamma=2, reduction="sum")
    torch.testing.assert_close(found, expected)


def test_softmax_focal_loss_with_gamma_0_is_the_weighted_cross_entropy() -> None:
    found = softmax_focal_loss(LOGITS, LABELS, WEIGHTS, gamma=0)
    torch.testing.assert_close(found, F.cross_entropy(LOGITS, LABELS, WEIGHTS, reduction="sum"))


@pytest.mark.parametrize("weights", [None, "1,2,3,0.5"])
def test_binary_cross_entropy_equals_that_of_torch(weights: str | None) -> None:
    found = loss_of(MultiLabel(), TAGS, class_weights=weights)
    mean = F.binary_cross_entropy_with_logits(LOGITS, TAGS, pos_weight=WEIGHTS if weights else None)
    torch.testing.assert_close(found.double(), mean * len(TAGS), rtol=1e-5, atol=0)


def test_balanced_weights_equal_those_of_scikit_learn() -> None:
    expected = compute_class_weight("balanced", classes=np.arange(4), y=LABELS.numpy())
    assert balanced_weights(LABELS.bincount()).tolist() == pytest.approx(expected.tolist())
    assert balanced_weights(torch.tensor([4, 0, 2])).tolist() == [0.75, 0.0, 1.5]


def test_balanced_weights_of_several_labels_are_negatives_per_positive() -> None:
    ratio = (1 - TAGS).sum(0) / TAGS.sum(0)
    expected = F.binary_cross_entropy_with_logits(LOGITS, TAGS, pos_weight=ratio) * len(TAGS)
    found = loss_of(MultiLabel(), TAGS, class_weights="balanced")
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)


def test_balanced_order_is_that_of_the_sampler_of_torch() -> None:
    labels = torch.tensor([0] * 90 + [1] * 10)
    found = balanced_order(labels, 7)
    weights = (1 / labels.bincount())[labels].tolist()
    peer = WeightedRandomSampler(weights, 100, generator=torch.Generator().manual_seed(7))
    assert found.tolist() == list(peer)
    many = Counter(label for seed in range(20) for label in labels[balanced_order(labels, seed)].tolist())
    assert many[1] == pytest.approx(1000, abs=100)
    assert found.tolist() != balanced_order(labels, 8).tolist()


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "focal", "class_weights": "balanced"},
        {"label_smoothing": 0.1, "balanced_sampling": True},
        {"class_weights": "1,3"},
    ],
)
def test_tune_with_another_loss_changes_the_file_and_resumes_to_it(options: dict[str, Any], tmp_path: Path) -> None:
    class Interrupt(vpt.Callback):
        def on_epoch(self, record: Any) -> None:
            raise KeyboardInterrupt

    data = draw(20)
    plain = vpt.tune(data, tmp_path / "plain.safetensors", **FAST)
    whole = vpt.tune(data, tmp_path / "a.safetensors", **FAST, **options)
    assert Path(whole.file).read_bytes() != Path(plain.file).read_bytes()
    with pytest.raises(KeyboardInterrupt):
        vpt.tune(data, tmp_path / "b.safetensors", callback=Interrupt(), **FAST, **options)
    vpt.tune(data, tmp_path / "b.safetensors", **FAST, **options)
    assert (tmp_path / "b.safetensors").read_bytes() == Path(whole.file).read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0; it must be below 1"),
        ({"label_smoothing": 0.1, "loss": "focal"}, "label_smoothing is 0.1, for the loss ce, and loss is focal"),
        ({"class_weights": "1,-2"}, "class_weights is '1,-2'; write balanced, or a number above 0 for each class"),
        ({"class_weights": "rare"}, "class_weights is 'rare'"),
        ({"loss": "hinge"}, "loss is 'hinge'"),
    ],
)
def test_config_with_a_loss_out_of_range_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(vpt.SpecError, match=message):
        ClassificationConfig(**options)
