"""Calibrated probabilities, and "none of these"."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.sparse import csr_array
from sklearn.metrics import roc_auc_score

import vpt
from helpers.brightness import CLASSES, draw, draw_tags, encoded
from helpers.command_line import exit_code
from helpers.command_line import vpt as command
from vpt.model.label_kinds import MultiLabel, Regression, SingleLabel
from vpt.serving.bank import Bank
from vpt.serving.responses import prediction_response
from vpt.tasks.classification.rejection import check_rejection, measure_rejection, threshold_at
from vpt.training import Scores

OPTIONS: dict[str, Any] = {"method": "linear", "ridge": 1.0, "progress": False}


def write_photos(root: Path, wrong: int) -> Path:
    """Write 80 dark and light images; every fifth of the first `wrong` ones lies with the other class."""
    for number, (pixels, label) in enumerate(zip(*draw(80), strict=True)):
        is_wrong = number < wrong and number % 5 == 0
        folder = root / CLASSES[label ^ is_wrong]
        folder.mkdir(exist_ok=True)
        (folder / f"{number:02}.png").write_bytes(encoded(pixels))
    return root


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"), wrong=80)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("foreign")
    rng = np.random.default_rng(0)
    for number in range(21):
        pixels = rng.integers(0, 60, (48, 48, 3)) + rng.uniform(30, 90)  # between dark and light
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"{number:02}.png")
    return root


@pytest.fixture(scope="module")
def result(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> vpt.RunResult:
    return vpt.tune(photos, tmp_path_factory.mktemp("tuned") / "a.safetensors", calibrate=True, **OPTIONS)


def test_calibrate_keeps_a_temperature_that_predictions_use(
    result: vpt.RunResult, photos: Path, tmp_path: Path
) -> None:
    plain = vpt.tune(photos, tmp_path / "a.safetensors", **OPTIONS)
    kind = vpt.inspect(result.file).label_kind
    assert isinstance(kind, SingleLabel) and kind.temperature != 1 and vpt.load(result.file).label_kind == kind
    assert vpt.inspect(plain.file).label_kind == SingleLabel() and result.score == plain.score
    (note,) = (note for note in result.notes if note.startswith("probabilities have the temperature"))
    assert f"temperature {kind.temperature:.4g}: calibration error of 16 val images from " in note
    image = photos / "light" / "01.png"
    raw, scaled = (vpt.predict(file, image).top for file in (plain.file, result.file))
    odds = [np.log(top[0][1] / top[1][1]) for top in (raw, scaled)]
    assert odds[1] * kind.temperature == pytest.approx(odds[0], rel=1e-3)
    bank = Bank([Path(result.file)])
    (served,) = bank.predict([bank.make_request("a", Image.open(image).convert("RGB"))])
    assert dict(served.top) == pytest.approx(dict(scaled), abs=1e-5)


def test_calibrate_with_every_val_prediction_right_keeps_the_temperature(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    photos = write_photos(tmp_path / "photos", wrong=0)
    result = vpt.tune(photos, tmp_path / "a.safetensors", calibrate=True, **OPTIONS)
    assert vpt.inspect(result.file).label_kind == SingleLabel()
    (note,) = (note for note in result.notes if "temperature" in note)
    assert note.startswith("the temperature stays 1: every prediction is right for the 16 val images, ")


def test_calibrate_without_val_images_or_single_labels_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(vpt.SpecError, match="calibrate is True, and there are no val images"):
        vpt.tune(photos, tmp_path / "b.safetensors", calibrate=True, val_fraction=0, **OPTIONS)
    with pytest.raises(vpt.SpecError, match="calibrate is True, and the labels are multi_label; it needs one class"):
        vpt.tune(draw_tags(30), tmp_path / "b.safetensors", calibrate=True, **OPTIONS)
    with pytest.raises(vpt.SpecError, match="calibrate is True, and a search itself finds how to train"):
        vpt.tune(photos, tmp_path / "b.safetensors", calibrate=True, method="linear", minutes=1, progress=False)


def test_foreign_images_choose_a_threshold_with_the_auroc_of_scikit_learn(
    result: vpt.RunResult, photos: Path, foreign: Path
) -> None:
    found = vpt.evaluate(result.file, photos, split="val", foreign=foreign, false_accept=0.1).rejection
    others = np.array([one.probability for one in vpt.predict(result.file, foreign)])
    scores = vpt.evaluate(result.file, photos, split="val").scores
    assert found is not None and scores is not None and scores.confidences is not None
    expected = roc_auc_score([1] * len(scores.confidences) + [0] * 21, [*scores.confidences, *others])
    assert found["auroc"] == pytest.approx(expected) and found["foreign"] == 21
    assert found["false_accept"] == (others >= found["min_confidence"]).mean() == 2 / 21
    assert found["accepted"] == (scores.confidences >= found["min_confidence"]).mean()
    again = vpt.evaluate(result.file, photos, split="val", min_confidence=found["min_confidence"]).rejection
    assert again == {key: found[key] for key in ("min_confidence", "accepted", "top1")}


def test_evaluate_with_a_threshold_measures_the_accepted_images(
    result: vpt.RunResult, photos: Path, foreign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    all_accepted = vpt.evaluate(result.file, photos, split="val", min_confidence=0)
    assert all_accepted.rejection == {"min_confidence": 0, "accepted": 1, "top1": all_accepted.metrics["top1"]}
    none_accepted = vpt.evaluate(result.file, photos, split="val", min_confidence=1.1)
    assert none_accepted.rejection == {"min_confidence": 1.1, "accepted": 0, "top1": None}
    command("eval", result.file, photos, "--split", "val", "--foreign", foreign)
    first, second, note = capsys.readouterr().out.splitlines()[-3:]
    assert first.startswith("min confidence ") and " % accepted, top-1 " in first
    assert second.startswith("21 foreign images: 4.8 % accepted, AUROC ")
    assert note.startswith("the temperature was fitted on val")


def test_threshold_at_a_share_accepts_no_more() -> None:
    confidences = np.array([0.9, 0.8, 0.8, 0.5, 0.4])
    thresholds = [threshold_at(confidences, share) for share in (0, 0.2, 0.4, 0.6)]
    assert thresholds == [0.900001, 0.800001, 0.800001, 0.500001]
    assert 0.71 < threshold_at(np.arange(1, 101) / 100, 0.29) < 0.72, "29 of 100, though 0.29 * 100 is below 29"
    assert threshold_at(np.arange(10) / 10, 1 - 1e-11) == 0.000001
    values = np.arange(1, 1000) / 1000
    assert all(threshold_at(values[:count], 0) > values[count - 1] for count in range(1, 1000))


def test_confidences_at_the_threshold_are_accepted() -> None:
    cells = csr_array(([1, 1], ([0, 1], [0, 3])), shape=(2, 4))  # both images are right
    scores = Scores(np.eye(2, dtype=np.int64), 0.0, counts=cells, confidences=np.array([0.5, 0.4]))
    found = measure_rejection(scores, 0.5, np.array([0.3, 0.5]), 0.1)
    assert (found["accepted"], found["top1"], found["false_accept"]) == (0.5, 1.0, 0.5)


def test_rejection_options_without_a_meaning_are_refused() -> None:
    for kind in (MultiLabel(), Regression()):
        for options in ({"min_confidence": 0.5}, {"min_confidence": None, "foreign": "roads"}):
            with pytest.raises(vpt.SpecError, match=f"and the model predicts {kind.name}; .*leave it out"):
                check_rejection(kind, **options)  # type: ignore[arg-type]
    with pytest.raises(vpt.SpecError, match=r"min_confidence is -0.1; it must be at least 0"):
        check_rejection(SingleLabel(), -0.1)
    with pytest.raises(vpt.SpecError, match="false_accept is 1; it must be at least 0 and below 1"):
        check_rejection(SingleLabel(), None, "roads", 1)
    for foreign, least in ((None, None), ("roads", 0.5)):
        with pytest.raises(vpt.SpecError, match="give it with foreign alone"):
            check_rejection(SingleLabel(), least, foreign, 0.1)


def test_rejection_of_models_of_several_labels_is_refused_by_every_call(
    result: vpt.RunResult, photos: Path, tmp_path: Path
) -> None:
    model, words = vpt.load(result.file), "min_confidence is 0.5, and the model predicts multi_label"
    model.label_kind = MultiLabel()
    file = vpt.save(model, tmp_path / "tags.safetensors")
    with pytest.raises(vpt.SpecError, match=words):
        vpt.predict(model, photos, min_confidence=0.5)
    with pytest.raises(vpt.SpecError, match=words):
        vpt.predict_to_file(model, photos, tmp_path / "a.csv", min_confidence=0.5)
    with pytest.raises(vpt.SpecError, match=words):
        vpt.evaluate(model, photos, min_confidence=0.5)
    with pytest.raises(vpt.SpecError, match=words):
        Bank([file], min_confidence={"tags": 0.5})
    bank = Bank([file], min_confidence={"": 1.1})
    picture = Image.open(photos / "light" / "01.png").convert("RGB")
    (answer,) = bank.predict([bank.make_request("tags", picture)])
    assert not answer.rejected  # type: ignore[union-attr]


def test_predictions_under_the_threshold_are_none_of_these(
    result: vpt.RunResult, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = photos / "light" / "01.png"
    sure, unsure = (vpt.predict(result.file, image, min_confidence=least) for least in (0.1, 1.1))
    assert (sure.label, unsure.label, unsure.probability) == ("light", "none of these", sure.probability)
    command("predict", result.file, image, "--min-confidence", 1.1)
    assert f"{image}: none of these (light " in capsys.readouterr().out
    command("predict", result.file, image, "--min-confidence", 1.1, "--json")
    assert json.loads(capsys.readouterr().out)["label"] == "none of these"
    for least, label in ((1.1, "none of these"), (0.1, "light")):
        vpt.predict_to_file(result.file, image, tmp_path / "a.csv", min_confidence=least, overwrite=True)
        with (tmp_path / "a.csv").open(newline="") as file:
            assert [row["label"] for row in csv.DictReader(file)] == [label]


def test_bank_with_thresholds_answers_none_of_these(result: vpt.RunResult, photos: Path) -> None:
    picture = Image.open(photos / "light" / "01.png").convert("RGB")
    for thresholds, rejected in (({"": 1.1}, True), ({"a": 1.1}, True), ({"": 1.1, "a": 0.0}, False), ({}, False)):
        bank = Bank([Path(result.file)], min_confidence=thresholds)
        (answer,) = bank.predict([bank.make_request("a", picture)])
        values = json.loads(bytes(prediction_response(answer, None, CLASSES, None, 1).body))
        assert answer.rejected is rejected and values["top"][0]["class"] == "light"  # type: ignore[union-attr]
        assert values.get("label") == ("none of these" if rejected else None)
    with pytest.raises(vpt.SpecError, match="there is no task 'b'"):
        Bank([Path(result.file)], min_confidence={"b": 0.5})


def test_serve_with_a_threshold_that_is_no_number_is_refused(
    result: vpt.RunResult, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("serve", result.file, "--min-confidence", "a=high") == 2
    assert "--min-confidence is 'a=high'; write a number: 0.8 or photos=0.8" in capsys.readouterr().err


def test_predict_to_file_at_a_threshold_between_decimals_rejects_as_predict(
    result: vpt.RunResult, photos: Path, tmp_path: Path
) -> None:
    """A table has as few digits as tell 32-bit probabilities apart, which may be on the other side of a threshold."""
    # One image at a time: in a batch, its probability may have another last digit.
    predictions = (vpt.predict(result.file, image) for image in sorted(photos.rglob("*.png")))
    image, probability = next(
        (one.image, one.probability) for one in predictions if float(str(np.float32(one.probability))) > one.probability
    )
    least = float(str(np.float32(probability)))
    assert vpt.predict(result.file, image, min_confidence=least).rejected
    vpt.predict_to_file(result.file, image, tmp_path / "a.csv", min_confidence=least)
    with (tmp_path / "a.csv").open(newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["none of these"]


def test_prediction_with_the_probability_of_the_threshold_is_kept(
    result: vpt.RunResult, photos: Path, tmp_path: Path
) -> None:
    image = photos / "light" / "01.png"
    least = vpt.predict(result.file, image).probability
    assert not vpt.predict(result.file, image, min_confidence=least).rejected
    vpt.predict_to_file(result.file, image, tmp_path / "a.csv", min_confidence=least)
    with (tmp_path / "a.csv").open(newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["light"]


def test_tune_from_a_calibrated_file_begins_without_its_temperature(
    result: vpt.RunResult, photos: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"epochs": 1, "batch_size": 16, "progress": False}
    again = vpt.tune(photos, tmp_path / "b.safetensors", init=result.file, **options)
    assert vpt.inspect(again.file).label_kind == SingleLabel() and again.init is not None


def test_scores_of_val_say_that_the_temperature_was_fitted_there(result: vpt.RunResult, photos: Path) -> None:
    (note,) = vpt.evaluate(result.file, photos, split="val").notes
    assert note.startswith("the temperature was fitted on val") and note not in result.notes
    assert vpt.evaluate(result.file, photos).to_dict()["notes"] == []
