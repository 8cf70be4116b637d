"""Mixup and cutmix: images, targets and loss equal timm's for the same draws."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import timm.data.mixup
import torch
from timm.loss import SoftTargetCrossEntropy

from helpers.two_processes import CONFIG, examples, model
from vpt.tasks.classification.training import make_objective
from vpt.training import Callback
from vpt.training.mixing import Mixing

ROUNDS_DOWN = "cut_h + 1" not in inspect.getsource(timm.data.mixup.rand_bbox)


def skip_other_boxes(has_cutmix: bool) -> None:
    """Skip a comparison with the boxes of timm 1.0.15, which are a pixel smaller where their side is odd."""
    if has_cutmix and ROUNDS_DOWN:
        pytest.skip(f"timm {timm.__version__} has smaller boxes")


def use_draws_of(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let timm draw from a generator. Its first draw, whether it mixes at all, is certain."""
    certain = [0.0]

    def rand() -> float:
        return certain.pop() if certain else rng.random()

    # Attributes are replaced one by one: the module is numpy's own, which other code calls at the same time.
    draws = {"rand": rand, "beta": rng.beta, "randint": lambda low, high, size: rng.integers(low, high)}
    for name, draw in draws.items():
        monkeypatch.setattr(timm.data.mixup.np.random, name, draw)


@pytest.mark.parametrize("alphas", [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0), (0.2, 0.3)])
def test_mixing_of_a_batch_equals_timms(alphas, monkeypatch):
    skip_other_boxes(alphas[1] > 0)
    images, labels = torch.randn(8, 3, 20, 31, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3
    kinds = set()
    for seed in range(12):
        found, own = Mixing(*alphas)(images, np.random.default_rng(seed))
        with monkeypatch.context() as patch:
            use_draws_of(np.random.default_rng(seed), patch)
            mixup = timm.data.mixup.Mixup(*alphas, label_smoothing=0, num_classes=3)
            expected, targets = mixup(images.clone(), labels)
        assert torch.equal(found, expected)
        one_hot = torch.eye(3)[labels]
        assert torch.allclose(own * one_hot + (1 - own) * one_hot.flip(0), targets, atol=1e-7)
        kinds.add(bool(torch.isin(found, images).all()))  # cutmix keeps values, mixup makes new ones
    assert kinds == ({False, True} if all(alphas) else {alphas[0] == 0})


def test_mixing_of_an_odd_batch_leaves_the_image_in_the_middle():
    images = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    mixed, own = Mixing(0.8, 0.0)(images, np.random.default_rng(0))
    assert torch.allclose(mixed[1], images[1]) and torch.allclose(mixed[0], own * images[0] + (1 - own) * images[2])


@pytest.mark.parametrize("augment", ["mixup", "cutmix", "mixup + cutmix(alpha=0.5)"])
def test_loss_with_mixing_equals_timms_soft_target_cross_entropy(augment, monkeypatch):
    skip_other_boxes("cutmix" in augment)
    tuned = model()
    objective = make_objective(tuned, {"train": examples()}, CONFIG.replace(augment=augment), None, Callback())
    alphas = {"mixup": (0.8, 0.0), "cutmix": (0.0, 1.0)}.get(augment, (0.8, 0.5))
    indices = np.arange(8)
    for seed in range(4):
        loss, hits = objective.loss(indices, np.random.default_rng(seed))
        with monkeypatch.context() as patch:
            use_draws_of(np.random.default_rng(seed), patch)
            images, targets = timm.data.mixup.Mixup(*alphas, label_smoothing=0, num_classes=3)(
                objective.dataset.inputs(indices), objective.dataset.targets(indices)
            )
        logits = tuned(images)
        assert loss.item() / 8 == pytest.approx(SoftTargetCrossEntropy()(logits, targets).item(), rel=1e-5)
        predicted = logits.argmax(1)
        assert hits == pytest.approx(targets[torch.arange(8), predicted].sum().item(), abs=1e-5)
