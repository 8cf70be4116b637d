"""Head2Toe: the features that a group lasso selects, and what the head reads of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.families import backbone_of, images
from helpers.no_float64 import NoFloat64
from vpt import attach, load, parse_method, save
from vpt.errors import SpecError, TunedFileError, UnsupportedError
from vpt.methods.head2toe import rank_by_group_lasso
from vpt.methods.init_inputs import InitInputs
from vpt.training import Examples, collect_init_inputs


def examples(labels: np.ndarray) -> Examples:
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), 3, 32, 32), dtype=np.uint8)
    return Examples(pixels, labels)


def test_rank_by_group_lasso_of_orthogonal_features_is_by_their_correlation() -> None:
    """The lasso of orthogonal features shrinks the norm of each correlation by the same amount."""
    x = torch.linalg.qr(torch.randn(40, 13, generator=torch.Generator().manual_seed(0)).double()).Q
    x = torch.linalg.qr(x - x.mean(0)).Q
    y = x @ torch.randn(13, 3, generator=torch.Generator().manual_seed(1)).double()
    expected = (x.T @ y).norm(dim=1).argsort(descending=True)
    for penalty in (0.05, 0.5, 0.99):
        assert torch.equal(rank_by_group_lasso(5 * x + 1, y, penalty), expected)


def test_rank_by_group_lasso_takes_one_of_two_equal_causes_before_noise() -> None:
    """The features that made the targets come first, though noise with a copy of them correlates more than the weak."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(200, 30, generator=random)
    x[:, 10:20] = x[:, :1] + 0.3 * x[:, 10:20]  # shadows of the strongest feature
    y = x[:, :4] @ torch.tensor([[3.0, 3.0], [1.0, -1.0], [-1.0, 0.5], [0.7, 0.7]])
    by_correlation = (x.T @ y).norm(dim=1).argsort(descending=True)[:4]
    assert set(by_correlation.tolist()) != {0, 1, 2, 3}
    assert set(rank_by_group_lasso(x, y, 0.05)[:4].tolist()) == {0, 1, 2, 3}


def test_rank_by_group_lasso_on_a_device_without_float64_is_the_same() -> None:
    x, y = (torch.randn(20, n, generator=torch.Generator().manual_seed(n)) for n in (6, 2))
    ranked = rank_by_group_lasso(x.as_subclass(NoFloat64), y.as_subclass(NoFloat64), 0.1)
    assert torch.equal(ranked, rank_by_group_lasso(x, y, 0.1))


@pytest.mark.parametrize("index", [-1, 288, 2**62])
@pytest.mark.parametrize("method", ["head2toe", "bias + head2toe"])
def test_head2toe_file_with_an_index_of_no_feature_is_refused(tmp_path: Path, method: str, index: int) -> None:
    model, path = attach(backbone_of("vit"), method, 3), tmp_path / "a.safetensors"
    model.added_modules["selection"].indices[3] = index
    save(model, path)
    with pytest.raises(TunedFileError, match=f"selection.indices has {index}, and features are numbered from 0 to 287"):
        load(path, backbone_of("vit"))


@pytest.mark.parametrize("family", ["vit", "siglip", "swin", "resnet"])
def test_head2toe_reads_the_selected_features_of_all_blocks(family: str) -> None:
    model = attach(backbone_of(family), "head2toe", 3)
    inputs = collect_init_inputs(model, examples(np.arange(12) % 3))
    model.initialize(inputs)
    indices = model.added_modules["selection"].indices
    assert len(set(indices.tolist())) == len(indices) == model.head.in_features == model.layout.feature_width
    features = "mean+std" if family in ("siglip", "swin", "resnet") else "cls+mean+std"
    probe = attach(backbone_of(family), "linear", 3, head=f"multi_block(blocks=all, features={features})").eval()
    with torch.no_grad():
        assert torch.equal(model.eval().features(images()), probe.features(images())[:, indices])
    chosen = rank_by_group_lasso(inputs.features, inputs.targets, 0.1)[: len(indices)]
    assert set(chosen.tolist()) == set(indices.tolist())


@pytest.mark.parametrize("labels", [np.eye(3, dtype=np.float32)[np.arange(12) % 3], np.linspace(0.0, 1.0, 12)])
def test_head2toe_selects_for_several_labels_and_numbers(labels: np.ndarray) -> None:
    model = attach(backbone_of("vit"), "head2toe(keep=2)", 3)
    inputs = collect_init_inputs(model, examples(labels))
    assert inputs.targets.shape == (12, labels.size // 12)
    before = model.added_modules["selection"].indices.clone()
    model.initialize(inputs)
    assert not torch.equal(before, model.added_modules["selection"].indices)


def test_head2toe_with_equal_features_selects_as_many() -> None:
    model = attach(backbone_of("vit"), "head2toe", 3)
    model.initialize(InitInputs(features=torch.ones(5, 288), targets=torch.eye(5)))
    assert len(set(model.added_modules["selection"].indices.tolist())) == 32


@pytest.mark.parametrize(
    ("method", "error", "reason"),
    [
        ("head2toe(keep=0)", SpecError, "keep is 0"),
        ("head2toe(penalty=1.0)", SpecError, "penalty is 1.0"),
        ("head2toe(keep=10)", UnsupportedError, "keep is 10, so 320 features, and the blocks have 288; give at most 9"),
    ],
)
def test_head2toe_with_invalid_options_is_refused(method: str, error: type[Exception], reason: str) -> None:
    with pytest.raises(error) as caught:
        attach(backbone_of("vit"), parse_method(method), 3)
    assert reason in str(caught.value)
