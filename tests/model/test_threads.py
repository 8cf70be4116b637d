"""Threads that share a model in eval mode."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.families import backbone_of, images
from helpers.references import tuned
from vpt import METHODS, TunedModel, attach

CASES = [
    *(("vit", method, None) for method in METHODS if method != "sidetune"),
    ("vit", "sidetune(network=test_convnext)", None),
    ("vit", "vpt(length=2)", "multi_block(blocks=all)"),
    ("vit", "linear", "linear(levels=3)"),
    ("swin", "vpt(length=2, depth=shallow)", None),
    ("swin", "cross(length=2)", None),
]


@pytest.mark.parametrize(("family", "method", "head"), CASES)
def test_two_threads_in_lockstep_get_the_logits_of_their_own_images(family: str, method: str, head: str | None) -> None:
    model, barrier = tuned(family, method, scale=0.1, head=head), Barrier(2, timeout=60)
    batches = [images(2, seed) for seed in (1, 2)]

    @torch.no_grad()
    def predict(batch: Tensor) -> Tensor:
        return model(batch)

    expected = [predict(batch) for batch in batches]

    def wait(*_: Any) -> None:
        barrier.wait()

    for module in model.network.modules():
        if not list(module.children()):
            module.register_forward_hook(wait)
    with ThreadPoolExecutor(2) as pool:
        for actual, own in zip(pool.map(predict, batches), expected, strict=True):
            torch.testing.assert_close(actual, own)


@pytest.mark.parametrize("form", [TunedModel.plain, TunedModel.merge])
def test_plain_and_merge_of_a_model_in_eval_mode_leave_it_there(form: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, modes = attach(backbone_of("vit"), "lora(rank=2)", 3).eval(), []
    real = TunedModel.train

    def train(self: TunedModel, mode: bool = True) -> TunedModel:
        modes.append(mode)
        return real(self, mode)

    monkeypatch.setattr(TunedModel, "train", train)
    form(model)
    assert not any(modes)
