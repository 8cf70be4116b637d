"""k-fold cross-validation: what each model trains on, the pooled scores, and resumption."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vpt
from helpers.brightness import CLASSES, draw, encoded
from vpt import cross_validation
from vpt.data.dataset import Dataset
from vpt.model import tuned_file

OPTIONS: dict[str, Any] = {"method": "linear", "ridge": 1.0, "folds": 3, "progress": False}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    for number, (pixels, label) in enumerate(zip(*draw(20), strict=True)):
        folder = root / CLASSES[label]
        folder.mkdir(exist_ok=True)
        (folder / f"{number:02}.png").write_bytes(encoded(pixels))
    return root


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


def test_folds_of_data_with_a_test_split_are_refused(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        (tmp_path / "data" / split).symlink_to(photos)
    with pytest.raises(vpt.DataError, match="20 test images"):
        vpt.tune(tmp_path / "data", tmp_path / "a.safetensors", **OPTIONS)
    with pytest.raises(vpt.SpecError, match="minutes is 1 and folds is 3"):
        vpt.tune(photos, tmp_path / "a.safetensors", minutes=1, folds=3)
