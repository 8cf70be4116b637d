"""k-fold cross-validation: what each model trains on, the pooled scores, and resumption."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vpt
from helpers.brightness import write_photos
from helpers.two_ranks import run_on_two_ranks
from vpt import cross_validation
from vpt.data.dataset import Dataset
from vpt.model import tuned_file

OPTIONS: dict[str, Any] = {"method": "linear", "ridge": 1.0, "folds": 3, "progress": False}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"), 20)


def test_folds_score_every_image_once_by_a_model_that_did_not_train_on_it(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, scored = [], []
    run_job, evaluate = cross_validation.run_job, cross_validation.evaluate

    def record_training(job: Any, *args: Any, **options: Any) -> Any:
        if isinstance(job.data, Dataset):
            trained.append(set(job.data.train.names))
        return run_job(job, *args, **options)

    def record_scoring(model: Any, data: Dataset, *args: Any, **options: Any) -> Any:
        scored.append(set(data.test.names))
        return evaluate(model, data, *args, **options)

    monkeypatch.setattr(cross_validation, "run_job", record_training)
    monkeypatch.setattr(cross_validation, "evaluate", record_scoring)
    result = vpt.tune(photos, tmp_path / "a.safetensors", **OPTIONS)
    assert [len(names) for names in scored] == [7, 7, 6] and len(set.union(*scored)) == 20
    assert all(train.isdisjoint(test) and len(train | test) == 20 for train, test in zip(trained, scored, strict=True))
    assert result.images == {"train": 20, "out_of_fold": 20} and result.eval_split == "out_of_fold"
    assert result.folds is not None and len(result.folds["scores"]) == 3
    assert result.folds["mean"] == pytest.approx(np.mean(result.folds["scores"]))
    pooled = np.average(result.folds["scores"], weights=[7, 7, 6])
    assert result.metrics["out_of_fold_top1"] == pytest.approx(pooled)
    low, high = result.folds["confidence_interval"]
    assert low <= pooled <= high
    saved = json.loads((tmp_path / "a.run" / "result.json").read_text())
    assert saved["folds"] == result.folds
    assert tuned_file.read_header(tmp_path / "a.safetensors").scores["out_of_fold_top1"] == pytest.approx(pooled)


@pytest.mark.parametrize(
    "option", [{"val_fraction": 0.1}, {"test_fraction": 0.5}, {"train_on": "trainval", "test_fraction": 1}]
)
def test_folds_with_options_that_split_images_off_are_refused(
    option: dict[str, Any], photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(vpt.SpecError, match=r"_fraction is .*, and folds test every image and train on all; leave it"):
        vpt.tune(photos, tmp_path / "a.safetensors", **OPTIONS, **option)
    assert not list(tmp_path.iterdir())


def test_folds_interrupted_are_not_trained_again(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = vpt.tune(photos, tmp_path / "whole.safetensors", **OPTIONS)
    evaluate, calls = cross_validation.evaluate, []

    def stop_at_second(*args: Any, **options: Any) -> Any:
        calls.append(None)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return evaluate(*args, **options)

    monkeypatch.setattr(cross_validation, "evaluate", stop_at_second)
    out = tmp_path / "a.safetensors"
    with pytest.raises(KeyboardInterrupt):
        vpt.tune(photos, out, **OPTIONS)
    first = (tmp_path / "a.run" / "fold-1.safetensors").stat().st_mtime_ns
    monkeypatch.setattr(cross_validation, "evaluate", evaluate)
    result = vpt.tune(photos, out, **OPTIONS)
    assert (tmp_path / "a.run" / "fold-1.safetensors").stat().st_mtime_ns == first
    assert result.metrics == whole.metrics and result.folds == whole.folds
    again = out.stat().st_mtime_ns
    assert vpt.tune(photos, out, **OPTIONS).folds == whole.folds and out.stat().st_mtime_ns == again
    with pytest.raises(vpt.SpecError, match="folds: 3 then, 2 now"):
        vpt.tune(photos, out, **{**OPTIONS, "folds": 2})


def test_folds_begun_anew_replace_the_file_and_go_on_where_they_stopped(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, evaluate = tmp_path / "a.safetensors", cross_validation.evaluate
    whole = vpt.tune(photos, out, **OPTIONS)
    before = out.stat().st_mtime_ns
    assert vpt.tune(photos, out, overwrite=True, **OPTIONS).folds == whole.folds
    again = out.stat().st_mtime_ns
    assert again > before

    def stop(*args: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(cross_validation, "evaluate", stop)
    with pytest.raises(KeyboardInterrupt):
        vpt.tune(photos, out, overwrite=True, **OPTIONS)
    monkeypatch.setattr(cross_validation, "evaluate", evaluate)
    first = (tmp_path / "a.run" / "fold-1.safetensors").stat().st_mtime_ns
    assert out.stat().st_mtime_ns == again
    assert vpt.tune(photos, out, **OPTIONS).folds == whole.folds
    assert (tmp_path / "a.run" / "fold-1.safetensors").stat().st_mtime_ns == first and out.stat().st_mtime_ns > again


def test_folds_in_two_processes_score_as_one_process_does(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "two.safetensors"
    command = [sys.executable, "-m", "vpt", "tune", photos, "--out", out, "--method", "linear", "--ridge", "1"]
    run_on_two_ranks(lambda rank: [*command, "--folds", "3"])
    together = json.loads((tmp_path / "two.run" / "result.json").read_text())
    assert together["folds"]["scores"] == vpt.tune(photos, tmp_path / "one.safetensors", **OPTIONS).folds["scores"]


@pytest.mark.parametrize("option", [{"patience": 2}, {"keep": "best"}, {"calibrate": True}])
def test_folds_with_options_that_need_val_images_are_refused(
    option: dict[str, Any], photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(vpt.SpecError, match=f"{next(iter(option))} is .*, and --folds leaves no val images"):
        vpt.tune(photos, tmp_path / "a.safetensors", epochs=2, **OPTIONS, **option)
    assert not list(tmp_path.iterdir())


def test_folds_of_data_with_a_test_split_are_refused(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        (tmp_path / "data" / split).symlink_to(photos)
    with pytest.raises(vpt.DataError, match="20 test images"):
        vpt.tune(tmp_path / "data", tmp_path / "a.safetensors", **OPTIONS)
    with pytest.raises(vpt.SpecError, match="minutes is 1 and folds is 3"):
        vpt.tune(photos, tmp_path / "a.safetensors", minutes=1, folds=3)
