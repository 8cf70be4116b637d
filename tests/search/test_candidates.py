"""The heads of the probe and the candidates beside it: which fit a backbone, a size and a time."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch

import vpt
from vpt import attach
from vpt.backbones import load_backbone
from vpt.data.label_kinds import KindName
from vpt.model.readout import Pooled, parse_readout
from vpt.model.tuned_model import TunedModel
from vpt.search.candidates import is_probe, is_too_large, list_candidates, make_candidate
from vpt.search.probe import head_grid
from vpt.tasks.classification.config import ClassificationConfig, default_steps
from vpt.training import DeviceDataset, Examples, TrainingConfig
from vpt.training.block_features import BlockFeatureNetwork, compute_block_features

CPU = torch.device("cpu")


BLOCKS = "multi_block(blocks=last4)"


def names(method: str | None, max_size: float, head: str = "linear") -> list[str]:
    found = list_candidates(load_backbone(), 5, method, max_size, head)
    return [candidate.name for candidate in found if not is_too_large(candidate, max_size)]


def test_candidates_of_a_small_backbone_depend_on_the_size_of_their_file() -> None:
    both = 'vpt(length=50) + lora(rank=4, alpha=0.8, targets="all")'
    large, small = 'lora(rank=32, targets="all")', 'lora(alpha=2.0, targets="all")'
    assert names(None, 10) == ["vpt(length=50)", "full", large, both, "vpt(length=50) + bias", "vpt"]
    assert names(None, 4) == ["vpt(length=50)", large, both, "vpt(length=50) + bias", "vpt"]
    assert names(None, 1) == ["vpt(length=50)", small, both, "vpt(length=50) + bias", "vpt"]
    assert names(None, 0.1) == ["vpt"]
    assert names(None, 0.045) == ["vpt"] and names(None, 0.045, BLOCKS) == []  # with the head of the probe


def test_probe_stands_for_a_linear_head_without_options_alone() -> None:
    assert is_probe(vpt.parse_method("linear"))
    assert not is_probe(vpt.parse_method("linear(output=image_mean)"))
    assert names("linear(output=image_mean)", 10) == ['linear(output="image_mean")']


def test_size_of_a_candidate_is_that_of_its_file() -> None:
    whole, half = (
        {one.name: one.size for one in list_candidates(load_backbone(), 5, None, 10, "linear", save_dtype=dtype)}
        for dtype in ("fp32", "fp16")
    )
    assert whole["vpt"] == 4 * attach(load_backbone(), "vpt", 5).counts().trainable
    assert all(2 * half[name] == size for name, size in whole.items())


def test_candidates_join_the_head_of_the_probe_where_their_own_is_linear() -> None:
    head = "multi_block(blocks=last2, features=mean)"  # of a backbone with a register and no class token
    structure = load_backbone(timm.create_model("test_vit3", num_classes=0))
    joined, mlp, side = (
        next(list_candidates(structure, 5, name, 1, head)).recipe
        for name in ("vpt", "mlp", "sidetune(network=test_convnext)")
    )
    assert next(list_candidates(structure, 5, "vpt", 1, head)).name == "vpt"
    assert (joined["head"], joined["ridge"]) == (head, "auto")
    alone = next(list_candidates(structure, 5, "vpt", 1, head, joins=False)).recipe
    assert alone == {name: value for name, value in joined.items() if name not in ("head", "ridge")}
    assert not {"head", "ridge"} & (mlp.keys() | side.keys())  # the projection of SideTune is as wide as the feature


def test_candidates_of_a_backbone_without_tokens_leave_prompts_out() -> None:
    backbone = load_backbone(timm.create_model("test_resnet", pretrained=False, num_classes=0))
    assert [candidate.name for candidate in list_candidates(backbone, 5, None, 100, "linear")] == ["full"]
    with pytest.raises(vpt.UnsupportedError):
        list(list_candidates(backbone, 5, "vpt", 100, "linear"))


def test_recipe_of_each_method_has_its_rate_per_256_images() -> None:
    assert make_candidate("vpt(length=50)").recipe == {
        "batch_size": 16, "optimizer": "adamw", "learning_rate": 0.08, "head_lr_scale": 1.0
    }  # fmt: skip
    assert make_candidate("full").recipe["learning_rate"] * 16 / 256 == pytest.approx(1e-4)
    faster = make_candidate("vpt + bias").with_factor(3.0)
    assert faster.recipe["learning_rate"] == pytest.approx(0.24) and faster.name == "vpt + bias, rate x 3"
    assert make_candidate("sidetune").recipe == {"batch_size": 16, "learning_rate": 0.1}


@pytest.mark.parametrize("kind", ["single_label", "regression"])
@pytest.mark.parametrize("method", [*vpt.METHODS, "prefix + bias"])
def test_peak_rate_of_adamw_is_the_same_for_every_batch_size(method: str, kind: KindName) -> None:
    def training_of(size: int) -> TrainingConfig:
        recipe = make_candidate(method, kind, size).recipe
        return ClassificationConfig.for_method(vpt.parse_method(method), label_kind=kind, **recipe).training

    small, large = training_of(16), training_of(64)
    assert small.optimizer == large.optimizer
    assert small.optimizer == "sgd" or small.peak_lr == pytest.approx(large.peak_lr)


@pytest.mark.parametrize("method", ["prefix", "cross", "adaptive", "class_token", "prefix + bias"])
def test_rate_of_a_method_without_one_of_its_own_is_that_of_tune(method: str) -> None:
    steps = default_steps(vpt.parse_method(method), {})
    assert make_candidate(method).recipe == steps and steps["learning_rate"] * 16 / 256 == pytest.approx(0.005)


def test_rate_of_a_sum_is_that_of_its_first_term() -> None:
    for first, second in (("vpt", "bias"), ("bias", "vpt"), ("prefix", "bias")):
        whole, alone = make_candidate(f"{first} + {second}"), make_candidate(first)
        assert whole.recipe == alone.recipe


@pytest.mark.parametrize("name", ["vit_nano_patch12_48", "test_vit", "test_resnet", "test_convnext"])
def test_block_features_of_one_pass_equal_those_of_each_head(name: str) -> None:
    backbone = load_backbone() if name == "vit_nano_patch12_48" else load_backbone(
        timm.create_model(name, pretrained=False, num_classes=0)
    )  # fmt: skip
    size = backbone.preprocessing.size
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, size, size), dtype=np.uint8)
    dataset = DeviceDataset(Examples(pixels, np.zeros(3, np.int64)), backbone.preprocessing, CPU)
    network = BlockFeatureNetwork(backbone, CPU)
    found = compute_block_features(network, dataset)
    heads = head_grid(network.table)
    assert len(heads) == (5 if network.table.features[0] == "cls" and len(network.table.widths) > 4 else 3)
    for head in heads:
        readout = Pooled() if head == "linear" else parse_readout(head)
        model = TunedModel(backbone, vpt.METHODS["linear"](), 2, readout=readout)
        with torch.no_grad():
            expected = model.network(dataset.inputs(np.arange(3))).numpy()
        columns = np.concatenate([found[:, group] for group in network.table.columns(model.readout)], axis=1)
        np.testing.assert_allclose(columns, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", ["mambaout_femto", "convit_tiny", "mvitv2_tiny"])
def test_block_features_of_stages_that_put_out_no_maps_are_the_pooled_one_alone(name: str) -> None:
    network = BlockFeatureNetwork(load_backbone(name, pretrained=False), CPU)
    assert network.table.widths == () and head_grid(network.table) == ["linear"]
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 224, 224)).shape == (1, network.table.width)


def test_candidate_from_a_probe_is_slower_and_has_a_name_of_its_own() -> None:
    candidate = make_candidate("vpt(length=50)").from_probe(1000)
    assert candidate.start == "probe" and candidate.name == f"{candidate.method}, from a linear probe"
    assert candidate.with_factor(3.0).name == f"{candidate.method}, from a linear probe, rate x 3"
    assert candidate.recipe["learning_rate"] == make_candidate("vpt(length=50)").recipe["learning_rate"] / 4
    assert candidate.recipe["probe_epochs"] == 100
    assert make_candidate("vpt").from_probe(50_000).recipe["probe_epochs"] == 2, "as long as with fewer images"
