"""The public checks of a method pass what keeps the contract and find what does not."""

from __future__ import annotations

import pytest

from helpers.families import backbone_of
from vpt import METHODS, Injection, Linear
from vpt.backbones.layout import BackboneLayout
from vpt.testing import check_detach, check_frozen, check_method, check_only_trainable_gets_gradients


class _Mean(Linear):
    """An external method: linear under another name."""

    name = "mean"


class _Leaks(Linear):
    """A faulty method: it trains the weights of the shared backbone."""

    name = "leaks"

    def plan(self, trunk, layout: BackboneLayout) -> Injection:
        trunk.norm.weight.requires_grad_(True)
        return super().plan(trunk, layout)


def test_checks_on_backbone_in_training_mode_restore_it() -> None:
    backbone = backbone_of("resnet")
    backbone.module.train()
    backbone.module.layer2.eval()
    next(backbone.module.parameters()).requires_grad_(False)
    for check in (check_frozen, check_detach):
        check("linear", backbone)
        check("full", backbone)


def test_check_method_of_external_method_passes(monkeypatch) -> None:
    monkeypatch.setitem(METHODS, "mean", _Mean)
    check_method(_Mean(), backbone_of("vit"))


def test_checks_of_faulty_method_fail() -> None:
    with pytest.raises(AssertionError, match=r"norm\.weight\.requires_grad is True"):
        check_only_trainable_gets_gradients(_Leaks(), backbone_of("vit"))
    with pytest.raises(AssertionError, match="changed the backbone's weights"):
        check_frozen(_Leaks(), backbone_of("vit"))
