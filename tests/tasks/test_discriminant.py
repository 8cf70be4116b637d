"""Linear dense heads in closed form: the linear discriminant of training pixels."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

import vpt
from helpers.segmentation import write_scenes
from vpt.data.masks.dataset import load_segmentation_dataset
from vpt.data.masks.schemes import IGNORE_INDEX
from vpt.heads.dense import LinearDecoder
from vpt.tasks.segmentation.discriminant import Moments, solve_head
from vpt.tasks.segmentation.pair_reader import PairReader


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"))


def tune(scenes: Path, out: Path, **options: object) -> vpt.RunResult:
    given = {"method": "linear", "head": "linear(levels=2)", "image_size": 48, "lda": "all", "batch_size": 2}
    return vpt.tune(scenes, out, progress=False, **{**given, **options})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def positions() -> tuple[np.ndarray, np.ndarray]:
    """Features of 400 positions, of three classes of unequal size, and their classes."""
    rng = np.random.default_rng(0)
    labels = rng.choice(3, 400, p=[0.7, 0.25, 0.05])
    return rng.normal(2 * rng.normal(size=(3, 6))[labels], [0.1, 1, 10, 1, 1, 3]) + 7, labels


def test_discriminant_has_the_probabilities_of_scikit_learn(positions):
    features, labels = positions
    moments, half = Moments.empty(6, 3), 200
    for part in (slice(0, half), slice(half, None)):
        moments.add(features[part], np.eye(3)[labels[part]])
    weights, biases = moments.discriminant(1e-9)
    logits = features @ weights.T + biases
    found = np.exp(logits - logits.max(1, keepdims=True))
    expected = LinearDiscriminantAnalysis(solver="lsqr").fit(features, labels).predict_proba(features)
    assert np.allclose(found / found.sum(1, keepdims=True), expected, atol=1e-6)


def test_discriminant_of_a_class_without_positions_is_finite_and_unlikely(positions):
    features, labels = positions
    moments = Moments.empty(6, 4)
    moments.add(features, np.eye(4)[labels])
    weights, biases = moments.discriminant(0.1)
    assert np.isfinite(weights).all() and np.isfinite(biases).all()
    assert not ((features @ weights.T + biases).argmax(1) == 3).any()


@pytest.mark.parametrize("seed", range(12))
def test_feature_that_does_not_change_says_nothing(seed):
    rng = np.random.default_rng(seed)
    features, shares = rng.normal(size=(300, 5)), rng.dirichlet([0.3] * 3, 300)
    features[:, 2] = 7.3
    whole, without = Moments.empty(5, 3), Moments.empty(4, 3)
    whole.add(features, shares)
    without.add(np.delete(features, 2, 1), shares)
    (weights, biases), (expected, others) = whole.discriminant(1e-3), without.discriminant(1e-3)
    assert not weights[:, 2].any() and np.allclose(biases, others)
    assert np.allclose(np.delete(weights, 2, 1), expected)


def test_positions_without_a_class_count_for_nothing(positions):
    features, labels = positions
    shares, whole, known = np.eye(3)[labels], Moments.empty(6, 3), Moments.empty(6, 3)
    shares[::3] = 0
    whole.add(features, shares)
    known.add(np.delete(features, np.s_[::3], 0), np.delete(shares, np.s_[::3], 0))
    assert all(
        np.allclose(one, other) for one, other in zip(whole.discriminant(0.1), known.discriminant(0.1), strict=True)
    )


def test_head_that_is_solved_for_needs_no_training_and_is_good(scenes, tmp_path):
    found, again = tune(scenes, tmp_path / "a.safetensors"), tune(scenes, tmp_path / "b.safetensors")
    assert found.history == [] and found.head == "linear(levels=2)" and found.metrics["test_miou"] > 0.8
    assert Path(found.file).read_bytes() == Path(again.file).read_bytes()
    trained = tune(scenes, tmp_path / "c.safetensors", lda=None, iterations=10)
    assert found.score > trained.score
    few = tune(scenes, tmp_path / "d.safetensors", lda=1)
    assert few.score < found.score and vpt.evaluate(few.file, scenes, progress=False).metrics["miou"] == few.score


def test_head_is_solved_on_features_that_prompts_have_changed(scenes, tmp_path):
    notes: list[str] = []

    class Notes(vpt.Callback):
        def on_note(self, text: str) -> None:
            notes.append(text)

    options = {"method": "vpt(length=2)", "iterations": 12, "eval_every": 6}
    solved = tune(scenes, tmp_path / "a.safetensors", callback=Notes(), **options)
    trained = tune(scenes, tmp_path / "b.safetensors", lda=None, **options)
    assert [epoch["train_loss"] for epoch in solved.history] == [epoch["train_loss"] for epoch in trained.history]
    first, second = (vpt.load(result.file) for result in (solved, trained))
    prompts = [{name: value for name, value in model.trainable_state_dict().items() if not name.startswith("head")}
               for model in (first, second)]  # fmt: skip
    assert all(torch.equal(value, prompts[1][name]) for name, value in prompts[0].items()) and prompts[0]
    assert isinstance(first.head, LinearDecoder) and not torch.equal(
        first.head.scores.weight, second.head.scores.weight
    )
    assert any(
        re.search(r"linear discriminant of 8 training images, with the shrinkage [\d.]+", note) for note in notes
    )


def test_linear_head_on_several_maps_equals_one_on_their_parts():
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 8, 8), torch.randn(2, 5, 4, 4)
    whole = vpt.attach(vpt.load_backbone(), "linear", 2, head="linear(levels=3)").head
    head = LinearDecoder((3, 5), 4)
    normalized = [
        (one - one.mean(1, keepdim=True)) / (one.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt() for one in maps
    ]
    fine = torch.nn.functional.interpolate(normalized[1], (8, 8), mode="bilinear")
    weight, bias = head.scores.weight[:, :, 0, 0], head.scores.bias
    parts = zip((normalized[0], fine), weight.split([3, 5], 1), strict=True)
    expected = sum(torch.einsum("bdhw,cd->bchw", one, part) for one, part in parts) + bias[:, None, None]
    assert torch.allclose(head(maps), expected, atol=1e-5)
    assert whole.scores.in_channels == 3 * vpt.load_backbone().module.embed_dim


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"head": "setr_pup(channels=8)"}, r"lda solves for a linear head, and the head is setr_pup\(channels=8\)"),
        ({"loss": "dice"}, "loss is 'dice' and lda is 'all': with the method linear, nothing is trained"),
        ({"lda": 0}, "lda is 0; give the number of training images, at least 1, or"),
        ({"lda": "some"}, "lda is 'some'"),
        ({"head": "linear(levels=0)"}, "levels is 0; it must be at least 1"),
        ({"head": "linear(levels=99)"}, "blocks are too few for 98 further maps"),
    ],
)
def test_options_that_cannot_be_are_refused(scenes, tmp_path, options, reason):
    with pytest.raises(vpt.VptError, match=reason):
        tune(scenes, tmp_path / "a.safetensors", **options)


def test_features_that_are_not_finite_and_masks_without_a_class_are_refused(scenes):
    dataset = load_segmentation_dataset(scenes)
    model = vpt.attach(vpt.load_backbone(image_size=48), "linear", 2, head="linear")
    nothing = replace(dataset, lookup_table=np.full_like(dataset.lookup_table, IGNORE_INDEX))
    wider = vpt.attach(vpt.load_backbone(image_size=48), "linear", 3, head="linear")
    solve_head(wider, PairReader(dataset), dataset.splits["train"])
    assert wider.head.scores.bias[2] == -1e4 and not wider.head.scores.weight[2].abs().max() > 1  # no pixel has it
    with pytest.raises(vpt.TrainingError, match="no mask has a pixel of a class"):
        solve_head(model, PairReader(nothing), dataset.splits["train"])
    torch.nn.init.constant_(model.trunk.norm.bias, float("nan"))
    with pytest.raises(vpt.TrainingError, match="the features are NaN or infinite"):
        solve_head(model, PairReader(dataset), dataset.splits["train"])
