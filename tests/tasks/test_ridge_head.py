"""Linear heads in closed form, alone and beside a trained head."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import Ridge

import vpt
from helpers.two_processes import examples, model
from vpt.errors import SpecError, TrainingError, UnsupportedError
from vpt.model.readout import parse_readout
from vpt.tasks.classification.ridge_head import add_ridge_head, solve_head
from vpt.training import Callback, DeviceDataset, EpochMetrics
from vpt.training.ridge import PENALTIES, LeftOut, near_copies


def solved(penalty: float | Literal["auto"]) -> tuple[LeftOut, torch.Tensor]:
    tuned = model("linear")
    left_out = solve_head(tuned, examples(), penalty, bf16=False, on_batch=lambda done, total: None)
    return left_out, tuned.head.weight.detach().clone()


def test_solve_head_with_auto_takes_the_penalty_with_the_lowest_log_loss() -> None:
    automatic, weight = solved("auto")
    tried = {penalty: solved(penalty) for penalty in PENALTIES}
    best = min(tried, key=lambda penalty: tried[penalty][0].log_loss)
    assert automatic.penalty == best and torch.equal(weight, tried[best][1])
    assert np.array_equal(automatic.logits, tried[best][0].logits)


@pytest.mark.parametrize("penalty", [0, -1.0, float("nan"), "best"])
def test_solve_head_with_unusable_penalty_is_refused(penalty: float) -> None:
    with pytest.raises(SpecError, match=r"ridge is .*; it must be a number above 0"):
        solved(penalty)


HEAD = "multi_block(blocks=last2)"


@pytest.mark.parametrize(("head", "groups"), [(HEAD, 4), (None, 1)])
def test_add_ridge_head_gives_the_mean_of_the_trained_head_and_that_of_scikit_learn(
    head: str | None, groups: int
) -> None:
    tuned, data = model("vpt(length=3, dropout=0)"), examples()
    with torch.no_grad():
        tuned.head.weight.normal_()
    inputs, frozen = DeviceDataset.for_model(tuned, data).inputs(np.arange(len(data))), model("linear")
    joined, left_out = add_ridge_head(
        tuned, parse_readout(head), data, 0.1, bf16=False, on_batch=lambda done, total: None
    )
    with torch.no_grad():
        trained, logits = tuned(inputs).numpy(), joined(inputs).numpy()
        read = joined.network(inputs)[:, tuned.width if head else 0 :].double().numpy()
        pooled = frozen.network(inputs).double().numpy()
    width = read.shape[1] // groups
    scaled = (read - read.mean(0)) / read.std(0) / np.sqrt(width * groups)
    targets = np.where(data.labels[:, None] == np.arange(3), 1.0, -1.0)
    ridge = Ridge(alpha=0.1).fit(scaled, targets)
    np.testing.assert_allclose(
        logits, (trained + left_out.scale * ridge.predict(scaled)) / 2, rtol=2e-3, atol=5e-3
    )  # features are float16
    copies = near_copies(pooled)  # of the backbone: those of trained features would be whole classes
    for group in np.unique(copies):
        inside = copies == group
        without = Ridge(alpha=0.1).fit(scaled[~inside], targets[~inside]).predict(scaled[inside])
        np.testing.assert_allclose(left_out.logits[inside], left_out.scale * without, rtol=2e-3, atol=5e-3)


def tune(tmp_path: Path, name: str, **options: Any) -> vpt.TunedModel:
    data = examples()
    images = np.ascontiguousarray(data.pixels.transpose(0, 2, 3, 1))
    labels = data.labels if "labels" not in options else options.pop("labels")
    settings = {"method": "vpt(length=2)", "epochs": 2, "learning_rate": 0.1, "batch_size": 8, "seed": 3, **options}
    result = vpt.tune(
        (images, labels), tmp_path / name, backbone="vit_nano_patch12_48", val_fraction=0, test_fraction=0.25,
        progress=False, **settings,
    )  # fmt: skip
    return vpt.load(result.file)


def test_tune_with_ridge_trains_as_without_it_and_keeps_one_head(tmp_path: Path) -> None:
    plain = tune(tmp_path, "plain.safetensors", ridge="none")
    joined = tune(tmp_path, "joined.safetensors", ridge="auto", head=HEAD)
    expected, found = plain.trainable_state_dict(), joined.trainable_state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected if not name.startswith("head."))
    assert (
        str(vpt.inspect(tmp_path / "joined.safetensors").head)
        == 'multi_block(blocks="last2", features="cls+mean", pooled=True)'
    )


def test_tune_with_ridge_resumes_to_the_same_file(tmp_path: Path) -> None:
    class Stop(Callback):
        def on_epoch(self, record: EpochMetrics) -> None:
            raise KeyboardInterrupt

    options = {"ridge": "auto", "head": HEAD}
    whole = tune(tmp_path, "whole.safetensors", **options)
    with pytest.raises(KeyboardInterrupt):
        tune(tmp_path, "resumed.safetensors", callback=Stop(), **options)
    resumed = tune(tmp_path, "resumed.safetensors", **options)
    expected, found = whole.trainable_state_dict(), resumed.trainable_state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_tune_of_numbers_with_ridge_is_the_mean_of_both_in_their_unit(tmp_path: Path) -> None:
    labels = examples().labels * 10.0 + 100
    options = {"labels": labels, "classes": ["size"]}
    trained = tune(tmp_path, "trained.safetensors", **options)
    joined = tune(tmp_path, "joined.safetensors", ridge=0.01, head=HEAD, **options)
    pictures = [Image.fromarray(pixels.transpose(1, 2, 0)) for pixels in examples().pixels]
    own, both = ([vpt.predict(one, picture).value for picture in pictures] for one in (trained, joined))
    ridge = 2 * np.array(both) - own
    assert np.median(np.abs(ridge - labels)) < 1 < np.median(np.abs(np.array(own) - labels))  # three in four are known


@pytest.mark.parametrize("method", ["mlp", "head2toe"])
def test_ridge_beside_a_head_that_is_not_linear_is_refused_before_training(tmp_path: Path, method: str) -> None:
    with pytest.raises((SpecError, UnsupportedError), match=r"head"):
        tune(tmp_path, "refused.safetensors", method=method, ridge="auto", head=HEAD)
    assert not (tmp_path / "refused.safetensors").exists()


@pytest.mark.parametrize(
    "options",
    [{"class_weights": "balanced"}, {"balanced_sampling": True}],
)
def test_ridge_beside_weights_of_classes_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="which has no such option; leave one out"):
        tune(tmp_path, "refused.safetensors", ridge="auto", **options)


def test_ridge_with_the_pooled_feature_reads_it_beside_the_blocks() -> None:
    tuned, data = model("vpt(length=3, dropout=0)"), examples()
    found = [
        add_ridge_head(tuned, parse_readout(head), data, 0.1, bf16=False, on_batch=lambda done, total: None)[0]
        for head in (HEAD, HEAD.replace(")", ", pooled=true)"))
    ]
    without, both = (one.head.weight[:, : tuned.width] for one in found)
    assert torch.equal(without, tuned.head.weight / 2) and not torch.allclose(both, without)


def test_ridge_after_training_that_diverged_in_its_last_step_is_an_error_of_training() -> None:
    tuned = model("vpt(length=3, dropout=0)")
    with torch.no_grad():
        next(iter(tuned.trainable_parameters())).fill_(torch.nan)
    with pytest.raises(TrainingError, match="NaN or infinite"):
        add_ridge_head(tuned, parse_readout(HEAD), examples(), 0.1, bf16=False, on_batch=lambda done, total: None)
