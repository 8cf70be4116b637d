"""Five prompt sets in one pass answer what five models answer one after the other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.families import backbone_of, images
from vpt import METHODS, TunedModel, attach, load_backbone
from vpt.data.memory.datasets import dataset_from_memory
from vpt.errors import SpecError
from vpt.model.ensemble import Ensemble
from vpt.model.label_kinds import LabelKind, MultiLabel, Regression, SingleLabel
from vpt.tasks.classification.prediction import evaluate_ensemble


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


PROMPTS = ["vpt(length=3)", "vpt(length=3, depth=shallow)", "vpt(length=3, shared=all)"]
METHOD_SPECS = {
    "vpt": "vpt(length=3, attention=zero_init)",
    "sidetune": "sidetune(network=test_convnext)",
    "gated": "gated(length=3)",
    "adaptive": "adaptive(length=2)",
    "cross": "cross(length=3)",
    "prefix": "prefix(length=3)",
}
CASES = [
    *((family, method) for family in ("vit", "dinov3", "beit", "swin") for method in PROMPTS),
    *(("vit", METHOD_SPECS.get(name, name)) for name in METHODS),
    *(("vit", method) for method in ("cross(length=2) + bias", "cross(length=2) + vpt(length=3)", "lora + prefix")),
    *(
        ("vit", method)
        for method in (
            "vpt(length=3, output=prompt_mean)",
            "vpt(length=2, location=pad, depth=shallow)",
            "vpt(length=4, rank=2)",
            "vpt(length=4, fourier=0.5)",
            "vpt(length=4, init=vipamin)",
            "adapter(reduction=4, position=post, init=houlsby, scale=channel, drop_path=0.1)",
            "lora(rank=4, rank_dropout=0.2)",
        )
    ),
    *(("swin", method) for method in ("cross(length=3)", "prefix(length=3)", "adapter(reduction=4)")),
]


@pytest.mark.parametrize(("family", "method"), CASES)
def test_ensemble_of_models_equals_their_mean_in_one_pass(family: str, method: str) -> None:
    models = members(family, method, 5 if method in PROMPTS else 2)
    passes: list[int] = []
    ensemble = Ensemble(models)
    ensemble.network.register_forward_hook(lambda *_: passes.append(1))
    with torch.no_grad():
        together = ensemble(images())
        apart = torch.stack([model(images()).softmax(-1) for model in models]).mean(0)
    assert passes == [1]
    assert torch.allclose(together.softmax(-1), apart, rtol=1e-4, atol=1e-5)
    assert torch.allclose(together.exp().sum(-1), torch.ones(len(together)), atol=1e-5)


@pytest.mark.parametrize(("family", "method"), CASES)
def test_ensemble_contains_copies_of_all_that_its_members_learned_and_can_be_cast(family: str, method: str) -> None:
    models = members(family, method, 2)
    ensemble = Ensemble(models)
    contained = [*ensemble.parameters(), *ensemble.buffers()]
    learned = [item for model in models for item in model.trainable_state_dict().items()]
    assert not {id(tensor) for tensor in contained} & {id(tensor) for _, tensor in learned}
    assert learned and [name for name, x in learned if not any(torch.equal(x, y) for y in contained)] == []
    with torch.no_grad():
        expected = ensemble(images())
        torch.testing.assert_close(ensemble.double()(images().double()).float(), expected, rtol=1e-3, atol=1e-4)
        assert models[0](images()).dtype == torch.float32


def test_ensemble_of_calibrated_models_averages_their_probabilities() -> None:
    models = members("vit", "vpt(length=3)", 2)
    models[1].label_kind = SingleLabel(3.0)
    with torch.no_grad():
        apart = torch.stack([model.label_kind.activate(model(images())) for model in models]).mean(0)
        torch.testing.assert_close(Ensemble(models)(images()).exp(), apart, rtol=1e-4, atol=1e-5)


def test_ensemble_of_two_models_leaves_them_unchanged() -> None:
    models = members("vit", "vpt(length=3)", 2)
    before = [model(images()) for model in models]
    models[0].train()
    Ensemble(models)
    assert models[0].training and models[0].head.training
    models[0].eval()
    assert all(torch.equal(model(images()), answer) for model, answer in zip(models, before, strict=True))


def test_ensemble_asked_to_train_keeps_the_statistics_of_the_shared_backbone() -> None:
    models = members("resnet", "linear", 2)
    ensemble = Ensemble(models).train()
    ensemble(images())
    assert not any(module.training for module in ensemble.modules())
    assert not models[0].backbone.changed_weights()


def test_ensemble_of_incompatible_models_is_refused() -> None:
    (one,) = members("vit", "vpt(length=3)", 1)
    with pytest.raises(SpecError, match="make no ensemble"):
        Ensemble([one])
    with pytest.raises(SpecError, match="another backbone object"):
        Ensemble([one, *members("vit", "vpt(length=3)", 1)])
    with pytest.raises(SpecError, match=r"is vpt\(length=4\)"):
        Ensemble([one, attach(one.backbone, "vpt(length=4)", 3)])
    other = replace(one.backbone, preprocessing=replace(one.backbone.preprocessing, mean=(0.1, 0.2, 0.3)))
    with pytest.raises(SpecError, match=r"model 2 reads images by .*; all members see the same images"):
        Ensemble([one, attach(other, "vpt(length=3)", 3)])
    with pytest.raises(SpecError, match="other classes"):
        Ensemble([one, attach(one.backbone, "vpt(length=3)", 4)])


@pytest.mark.parametrize("kind", [MultiLabel((0.5, 0.5, 0.5)), Regression()])
def test_ensemble_of_other_labels_is_refused(kind: LabelKind) -> None:
    models = [attach(backbone_of("vit"), "vpt(length=2)", 1 if kind.name == "regression" else 3) for _ in range(2)]
    for model in models:
        model.label_kind = kind
    with pytest.raises(SpecError, match=f"model 1 predicts {kind.name}, and an ensemble averages the probabilities"):
        Ensemble(models)


def test_ensemble_on_a_backbone_of_another_type_answers() -> None:
    backbone = load_backbone("test_vit", pretrained=False, dtype=torch.bfloat16)
    models = [attach(backbone, "vpt(length=2)", 3).eval() for _ in range(2)]
    assert Ensemble(models)(torch.randn(2, 3, 160, 160, dtype=torch.bfloat16)).isfinite().all()


@pytest.mark.parametrize("method", ["vpt(length=2, depth=2-3, impl=concat)", "gated(length=2)"])
def test_ensemble_with_a_head_of_several_blocks_reads_what_their_wrappers_put_out(method: str) -> None:
    backbone = backbone_of("vit")
    models = [attach(backbone, method, 3, head="multi_block(blocks=last2)").eval() for _ in range(2)]
    with torch.no_grad():
        apart = torch.stack([model(images()).softmax(-1) for model in models]).mean(0)
        torch.testing.assert_close(Ensemble(models)(images()).exp(), apart, rtol=1e-4, atol=1e-5)


def test_scores_of_an_ensemble_need_one_way_to_read_images() -> None:
    one = attach(backbone_of("vit"), "linear", 3)
    squashed = replace(one.backbone, preprocessing=replace(one.backbone.preprocessing, mean=(0.1, 0.2, 0.3)))
    data = dataset_from_memory({"test": (np.zeros((3, 32, 32, 3), np.uint8), ["a", "b", "c"])})
    with pytest.raises(SpecError, match="read images in different ways"):
        evaluate_ensemble([one, attach(squashed, "bias", 3)], data)
