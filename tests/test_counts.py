"""The parameter counts the paper gives (README of the paper's restatement, "Counts to reproduce exactly")."""

from __future__ import annotations

import pytest

from vpt import Backbone, TunedModel, attach
from vpt.backbone import skeleton


@pytest.fixture(scope="module")
def vit_b() -> Backbone:
    return skeleton("vit_base_patch16_224")


def prompts(model: TunedModel) -> int:
    return sum(weight.numel() for name, weight in model.owned_state().items() if name.startswith("prompts."))


def test_encoder(vit_b):
    assert sum(weight.numel() for weight in vit_b.module.parameters()) == 85_798_656


def test_deep_with_100_prompts(vit_b):
    counts = attach(vit_b, "vpt(length=100)", 6).counts()
    assert (counts.total, counts.trained) == (86_724_870, 926_214)
    assert counts.share == pytest.approx(0.01068, abs=1e-5)


@pytest.mark.parametrize(("depth", "expected"), [("deep", 460_800), ("shallow", 38_400)])
def test_50_prompts(vit_b, depth, expected):
    model = attach(vit_b, f"vpt(length=50, depth={depth})", 10)
    assert prompts(model) == expected
    assert model.counts().trained == expected + 10 * 768 + 10


def test_form_does_not_change_what_is_trained(vit_b):
    exact, textbook = (attach(vit_b, f"vpt(form={form})", 6) for form in ("exact", "textbook"))
    assert exact.counts() == textbook.counts()
    assert list(exact.owned_state()) == list(textbook.owned_state())


def test_linear_and_full(vit_b):
    head = 6 * 768 + 6
    assert attach(vit_b, "linear", 6).counts().trained == head
    full = attach(vit_b, "full", 6).counts()
    assert full.trained == full.total == 85_798_656 + head


def test_skeleton_holds_no_memory(vit_b):
    assert all(weight.is_meta for weight in vit_b.module.parameters())
    assert vit_b.preprocessing.size == 224
