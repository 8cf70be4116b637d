"""Five prompt sets in one pass answer what five models answer one after the other."""

from __future__ import annotations

import pytest
import torch

from helpers.families import backbone_of, images
from vpt import TunedModel, attach
from vpt.errors import SpecError
from vpt.model.ensemble import Ensemble


def members(family: str, method: str, count: int = 5) -> list[TunedModel]:
    backbone, models = backbone_of(family), []
    for seed in range(count):
        torch.manual_seed(seed)
        model = attach(backbone, method, 3).eval()
        with torch.no_grad():
            for weight in model.trainable_parameters():
                weight.normal_()
        models.append(model)
    return models


@pytest.mark.parametrize("family", ["vit", "dinov3", "beit", "swin"])
@pytest.mark.parametrize("method", ["vpt(length=3)", "vpt(length=3, depth=shallow)", "vpt(length=3, shared=all)"])
def test_ensemble_of_five_models_equals_their_mean_in_one_pass(family: str, method: str) -> None:
    models = members(family, method)
    passes: list[int] = []
    ensemble = Ensemble(models)
    ensemble.network.register_forward_hook(lambda *_: passes.append(1))
    with torch.no_grad():
        together = ensemble(images())
        apart = torch.stack([model(images()).softmax(-1) for model in models]).mean(0)
    assert passes == [1]
    assert torch.allclose(together.softmax(-1), apart, rtol=1e-4, atol=1e-5)
    assert torch.allclose(together.exp().sum(-1), torch.ones(len(together)), atol=1e-5)


def test_ensemble_of_two_models_leaves_them_unchanged() -> None:
    models = members("vit", "vpt(length=3)", 2)
    before = [model(images()) for model in models]
    Ensemble(models)
    assert all(torch.equal(model(images()), answer) for model, answer in zip(models, before, strict=True))


def test_ensemble_of_incompatible_models_is_refused() -> None:
    (one,) = members("vit", "vpt(length=3)", 1)
    with pytest.raises(SpecError, match="make no ensemble"):
        Ensemble([one])
    with pytest.raises(SpecError, match="another backbone object"):
        Ensemble([one, *members("vit", "vpt(length=3)", 1)])
    with pytest.raises(SpecError, match=r"is vpt\(length=4\)"):
        Ensemble([one, attach(one.backbone, "vpt(length=4)", 3)])
    with pytest.raises(SpecError, match="other classes"):
        Ensemble([one, attach(one.backbone, "vpt(length=3)", 4)])
    with pytest.raises(SpecError, match="not linear"):
        Ensemble([attach(one.backbone, "linear", 3)] * 2)
