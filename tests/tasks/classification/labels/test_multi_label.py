"""Several labels of an image: scores against scikit-learn, thresholds, answers, and whole trainings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import metrics

import vpt
from helpers import command_line
from helpers.brightness import FAST, draw_tags
from vpt.model.label_kinds import MultiLabel
from vpt.tasks.classification.labels.multi_label import AveragePrecision, MultiLabelTask, best_threshold

NAMES = ("red", "green", "blue")


def draw_scores(n: int = 50, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    labels = (rng.random((n, classes)) < 0.3).astype(np.float32)
    logits = np.round(rng.normal(size=(n, classes)) + labels, 1)  # rounded, so that some are equal
    return torch.from_numpy(logits).float(), torch.from_numpy(labels)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> vpt.RunResult:
    out = tmp_path_factory.mktemp("tags") / "tags.safetensors"
    return vpt.tune(draw_tags(60), out, classes=NAMES, method="linear", ridge=1.0, progress=False)


def test_scores_equal_those_of_scikit_learn() -> None:
    logits, labels = draw_scores()
    scores = MultiLabelTask(MultiLabel((0.3, 0.5, 0.6, 0.7))).score(logits, labels)
    expected = metrics.average_precision_score(labels, logits.sigmoid(), average=None)
    assert scores.per_class == pytest.approx(expected)
    assert scores.metrics["map"] == pytest.approx(metrics.average_precision_score(labels, logits.sigmoid()))
    decided = logits.sigmoid() >= torch.tensor([0.3, 0.5, 0.6, 0.7])
    rates = metrics.precision_recall_fscore_support(labels, decided, zero_division=0)
    for name, values in zip(("precision", "recall", "f1"), rates, strict=False):
        assert scores.class_rates[name] == pytest.approx(values)
    assert scores.support.tolist() == rates[3].tolist()
    assert scores.loss == pytest.approx(metrics.log_loss(labels.flatten(), logits.sigmoid().flatten()), abs=1e-5)


def test_average_precision_with_weights_equals_that_of_scikit_learn() -> None:
    logits, labels = draw_scores()
    weights = np.random.default_rng(1).integers(0, 4, len(labels))
    found = AveragePrecision(labels.numpy(), logits.numpy())(weights)
    expected = metrics.average_precision_score(labels, logits, average=None, sample_weight=weights)
    assert found == pytest.approx(expected)


def test_scores_of_a_class_without_images_leave_it_out() -> None:
    logits, labels = draw_scores()
    labels[:, 1] = 0
    scores = MultiLabelTask(MultiLabel()).score(logits, labels)
    kept = [0, 2, 3]
    assert np.isnan(scores.per_class[1])
    assert scores.metrics["map"] == pytest.approx(metrics.average_precision_score(labels[:, kept], logits[:, kept]))


def test_intervals_contain_the_scores_and_widen_with_groups() -> None:
    scores = MultiLabelTask(MultiLabel()).score(*draw_scores())
    alone, grouped = scores.intervals(), scores.intervals(np.arange(50) // 10)
    for name, value in scores.metrics.items():
        assert alone[name][0] < value < alone[name][1]
    assert list(alone) == list(grouped) == ["map", "macro_f1"] and alone != grouped


@pytest.mark.parametrize("seed", range(3))
def test_best_threshold_has_the_highest_f1_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    true = (rng.random(40) < 0.4).astype(float)
    probabilities = np.round(np.clip(0.3 * true + 0.7 * rng.random(40), 0, 1), 2)
    found = metrics.f1_score(true, probabilities >= best_threshold(probabilities, true))
    assert found == max(metrics.f1_score(true, probabilities >= value) for value in probabilities)
    assert best_threshold(probabilities, np.zeros(40)) == 0.5


def test_tune_several_labels_scores_map_and_keeps_thresholds_of_val(result: vpt.RunResult) -> None:
    assert result.metric == "test_map" and result.score > 0.9
    assert set(result.per_class) == set(NAMES)
    kind = vpt.inspect(result.file).label_kind
    assert isinstance(kind, MultiLabel) and len(kind.thresholds) == 3 and set(kind.thresholds) != {0.5}
    assert vpt.load(result.file).label_kind == kind
    assert (Path(result.run_dir) / "classes.png").exists() and not (Path(result.run_dir) / "confusion.png").exists()


def test_predict_several_labels_lists_those_above_their_thresholds(result: vpt.RunResult) -> None:
    pixels, tags = draw_tags(30, 1)
    thresholds = dict(zip(NAMES, vpt.load(result.file).label_kind.thresholds, strict=True))  # type: ignore[attr-defined]
    predictions = vpt.predict(result.file, pixels)
    for prediction in predictions:
        assert prediction.labels == tuple(pair for pair in prediction.top if pair[1] >= thresholds[pair[0]])
    right = [{name for name, _ in found.labels} for found in predictions]
    true = [{name for name, has in zip(NAMES, row, strict=True) if has} for row in tags]
    assert sum(a == b for a, b in zip(right, true, strict=True)) > 15
    values = predictions[0].to_dict()
    assert [pair["class"] for pair in values["labels"]] == [name for name, _ in predictions[0].labels]


def test_prediction_without_any_label_says_so() -> None:
    task = MultiLabelTask(MultiLabel((0.9, 0.9)))
    prediction = task.predict("a.png", torch.tensor([0.2, 0.4]), ("cat", "dog"), 3)
    assert prediction.labels == () and prediction.describe() == "a.png: no label (dog 40.0 %)"
    assert prediction.to_dict()["labels"] == []


def test_evaluate_on_val_says_that_thresholds_were_chosen_there(
    result: vpt.RunResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "the thresholds of the labels were chosen on val"
    data = draw_tags(40, 2)
    found = vpt.evaluate(result.file, data, classes=NAMES, split="val")
    (note,) = found.notes
    assert note.startswith(words) and found.to_dict()["notes"] == [note]
    assert vpt.evaluate(result.file, data, classes=NAMES).notes == ()
    assert not any(note.startswith(words) for note in result.notes)  # it has a test split
    own = vpt.tune(data, tmp_path / "a.safetensors", test_fraction=0, method="linear", ridge=1.0, progress=False)
    assert own.eval_split == "val" and own.notes[-1] == note
    rows = [["path", *NAMES]]
    for number, (pixels, row) in enumerate(zip(*data, strict=True)):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        rows.append([f"{number}.png", *(f"{has:.0f}" for has in row)])
    (tmp_path / "tags.csv").write_text("\n".join(map(",".join, rows)))
    columns = ("--label-column", ",".join(NAMES))
    command_line.vpt("eval", result.file, tmp_path / "tags.csv", "--split", "val", *columns)
    assert capsys.readouterr().out.splitlines()[-1] == note


def test_evaluate_several_labels_matches_classes_by_name(result: vpt.RunResult) -> None:
    pixels, tags = draw_tags(40, 2)
    plain = vpt.evaluate(result.file, (pixels, tags), classes=NAMES)
    turned = vpt.evaluate(result.file, (pixels, tags[:, ::-1].copy()), classes=NAMES[::-1])
    assert plain.metrics == turned.metrics and plain.images == 40
    assert plain.intervals["map"][0] <= plain.metrics["map"] <= plain.intervals["map"][1]
    with pytest.raises(vpt.DataError, match="labels of images are single_label, and the model predicts multi_label"):
        vpt.evaluate(result.file, (pixels, np.arange(40) % 3))
    with pytest.raises(vpt.DataError, match="classes the model was not tuned for: pink"):
        vpt.evaluate(result.file, (pixels, tags), classes=("red", "green", "pink"))


def test_tune_several_labels_refuses_options_of_single_ones(tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    for options, message in (
        ({"loss": "l1"}, "loss is 'l1', and the labels are multi_label, for which the losses are bce, focal"),
        ({"label_smoothing": 0.1}, "label_smoothing is 0.1, and the labels are multi_label; leave it out"),
        ({"balanced_sampling": True}, "balanced_sampling is True"),
        ({"images_per_class": 2}, "images_per_class is 2, and the labels are multi_label"),
        ({"class_weights": "1,2"}, "class_weights is '1,2', 2 numbers, and there are 3 classes"),
    ):
        with pytest.raises(vpt.SpecError, match=message):
            vpt.tune(draw_tags(20), out, **{**FAST, **options})
    with pytest.raises(vpt.DataError, match="init=prototypes needs one class for each image"):
        vpt.tune(draw_tags(20), out, **{**FAST, "method": "vpt(init=prototypes)"})
    assert not out.exists()


def test_predict_command_prints_labels_as_json(
    result: vpt.RunResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(draw_tags(1)[0][0]).save(tmp_path / "a.png")
    command_line.vpt("predict", result.file, tmp_path / "a.png", "--json")
    values = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(values) == {"image", "labels", "top"} and len(values["top"]) == 3
