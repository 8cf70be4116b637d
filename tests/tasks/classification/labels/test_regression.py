"""Numbers to predict: scores against scikit-learn and SciPy, answers, and whole trainings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics

import vpt
from helpers.brightness import FAST, draw_numbers
from vpt.model.label_kinds import Regression
from vpt.tasks.classification.labels.regression import RegressionScores, RegressionTask
from vpt.training import Callback

OPTIONS: dict[str, Any] = {**FAST, "method": "vpt(length=2)", "epochs": 8, "learning_rate": 0.02}


def draw_scores(n: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    labels = rng.normal(10, 3, n).astype(np.float32)
    outputs = (labels - 10) / 3 + rng.normal(0, 0.5, n).astype(np.float32)
    return torch.from_numpy(outputs[:, None]), torch.from_numpy(labels)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> vpt.RunResult:
    out = tmp_path_factory.mktemp("numbers") / "numbers.safetensors"
    return vpt.tune(draw_numbers(60), out, classes=["age"], **OPTIONS)


def test_scores_equal_those_of_scikit_learn() -> None:
    outputs, labels = draw_scores()
    scores = RegressionTask(Regression(10.0, 3.0)).score(outputs, labels)
    predicted = outputs[:, 0] * 3 + 10
    assert scores.metrics["r2"] == pytest.approx(metrics.r2_score(labels, predicted), abs=1e-6)
    assert scores.metrics["mae"] == pytest.approx(metrics.mean_absolute_error(labels, predicted), abs=1e-6)
    assert scores.loss == pytest.approx(scores.metrics["mae"] / 3)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_r2_of_equal_labels_is_that_of_scikit_learn(shift: float) -> None:
    labels = torch.full((5,), 2.0)
    scores = RegressionTask(Regression()).score(labels[:, None] + shift, labels)
    assert scores.metrics["r2"] == metrics.r2_score(labels, labels + shift)


def test_interval_of_the_mean_absolute_error_is_near_that_of_scipy() -> None:
    outputs, labels = draw_scores()
    scores = RegressionTask(Regression(10.0, 3.0)).score(outputs, labels)
    errors = np.abs(np.diff(scores.numbers, axis=1)[:, 0])
    expected = stats.bootstrap((errors,), np.mean, n_resamples=9999, method="percentile", random_state=0)
    assert scores.intervals()["mae"] == pytest.approx(tuple(expected.confidence_interval), abs=0.03)
    grouped = scores.intervals(np.arange(len(labels)) // 8)
    assert grouped["mae"] != scores.intervals()["mae"]


def test_train_metric_sums_to_r2_about_the_training_mean() -> None:
    outputs, labels = draw_scores()
    task = RegressionTask(RegressionTask.fit(labels.numpy()))
    outputs = task.targets(labels)[:, None] + 0.3 * torch.randn(len(labels), 1)
    mean = task.train_metric(outputs, task.targets(labels)) / len(labels)
    assert mean == pytest.approx(metrics.r2_score(labels, task.kind.activate(outputs[:, 0])), abs=1e-5)


def test_tune_numbers_learns_them_and_keeps_mean_and_deviation(result: vpt.RunResult) -> None:
    assert result.metric == "test_r2" and result.score > 0.8
    assert result.metrics["test_mae"] < 6 and result.per_class == {}
    header = vpt.inspect(result.file)
    train = draw_numbers(60)[1]
    assert isinstance(header.label_kind, Regression) and header.classes == ("age",)
    assert header.label_kind.mean == pytest.approx(train.mean(), abs=4)
    assert header.label_kind.std == pytest.approx(train.std(), rel=0.3)
    assert (Path(result.run_dir) / "scatter.png").exists() and not (Path(result.run_dir) / "confusion.png").exists()


def test_predict_number_is_in_the_unit_of_the_labels(result: vpt.RunResult) -> None:
    pixels, numbers = draw_numbers(20, 1)
    found = np.array([prediction.value for prediction in vpt.predict(result.file, pixels)])
    assert np.abs(found - numbers).mean() < 6
    one = vpt.predict(result.file, pixels[0])
    assert one.to_dict() == {"image": "image 0", "value": one.value} and one.describe() == f"image 0: {one.value:.4g}"


def test_evaluate_numbers_has_an_interval_of_the_error(result: vpt.RunResult) -> None:
    pixels, numbers = draw_numbers(40, 2)
    found = vpt.evaluate(result.file, (pixels, numbers))
    assert found.intervals["mae"][0] < found.metrics["mae"] < found.intervals["mae"][1]
    assert found.class_rates == found.macro == {}
    whole = vpt.evaluate(result.file, (pixels, numbers.round().astype(int)))  # integers are numbers, too
    assert whole.metrics["mae"] == pytest.approx(found.metrics["mae"], abs=0.5)


def test_ridge_head_of_numbers_predicts_them(tmp_path: Path) -> None:
    found = vpt.tune(draw_numbers(60), tmp_path / "a.safetensors", method="linear", ridge=0.1, progress=False)
    assert found.score > 0.8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "ce"}, "loss is 'ce', and the labels are regression, for which the losses are l1, mse"),
        ({"class_weights": "balanced"}, "class_weights is balanced, and the labels are regression"),
        ({"images_per_class": 3}, "images_per_class is 3, and the labels are regression"),
        ({"method": "linear", "ridge": 1.0, "epochs": None, "loss": "mse"}, "loss is mse and ridge is 1.0"),
    ],
)
def test_tune_numbers_refuses_options_of_classes(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(vpt.SpecError, match=message):
        vpt.tune(draw_numbers(20), tmp_path / "a.safetensors", **{**OPTIONS, **options})


class Notes(Callback):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def on_note(self, text: str) -> None:
        self.texts.append(text)


def test_tune_that_keeps_the_best_by_an_error_keeps_the_epoch_with_the_least(tmp_path: Path) -> None:
    options, notes = {**OPTIONS, "epochs": 4, "keep": "best", "metric": "mae"}, Notes()
    result = vpt.tune(draw_numbers(40), tmp_path / "best.safetensors", classes=["age"], callback=notes, **options)
    errors = [epoch["val_metric"] for epoch in result.history]
    assert f"the weights of epoch {1 + errors.index(min(errors))} of 4 are kept, the best on val" in notes.texts
    assert len(set(errors)) == 4 and max(errors) > 1  # in the unit of the labels
    assert list(result.metrics) == ["test_mae", "test_r2"] and result.metric == "test_mae"


def test_tune_numbers_that_32_bits_round_keeps_them(tmp_path: Path) -> None:
    pixels, numbers = draw_numbers(60)
    times = 1.7e9 + numbers.astype(np.float64)  # seconds, within a minute
    result = vpt.tune((pixels, times), tmp_path / "a.safetensors", method="linear", ridge=0.1, progress=False)
    assert result.score > 0.8 and result.metrics["test_mae"] < 6
    found = vpt.evaluate(result.file, {"test": (pixels, times)})  # all of them, also those of the training
    assert isinstance(found.scores, RegressionScores) and found.scores.labels.tolist() == times.tolist()
    predictions = vpt.predict(result.file, pixels)
    values = np.array([one.value for one in predictions])
    assert len(np.unique(values)) > 50 and np.abs(values - times).mean() < 6
    assert predictions[0].describe() == f"image 0: {values[0]:.0f}"
    with pytest.raises(vpt.DataError, match="labels from -1e\\+308 to 1e\\+308 are too far apart to be learned"):
        far = np.resize([1e308, -1e308], 60)
        vpt.tune((pixels, far), tmp_path / "b.safetensors", method="linear", ridge=0.1, progress=False)
