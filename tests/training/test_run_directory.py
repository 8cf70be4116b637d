"""The files of a run directory."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from vpt import attach, save
from vpt.errors import SpecError, StorageError, TunedFileError
from vpt.model.tuned_file import read_header
from vpt.tasks.classification.config import ClassificationConfig, ClassificationOptions
from vpt.training.callbacks import Callback, EpochMetrics
from vpt.training.job import Job, RunResult
from vpt.training.run_directory import (
    MetricsRecorder,
    check_output_path,
    describe_outputs,
    load_finished_result,
    open_run,
    write_job,
    write_result,
)


def epoch(number: int, **options: Any) -> EpochMetrics:
    return EpochMetrics(number, 0.5, 0.9, None, None, 0.1, 1.0, **options)


def job_of(out: Path, data: str = "shapes") -> Job:
    return Job(data, out, ClassificationConfig(), ClassificationOptions())


def test_metrics_recorder_of_a_resumed_run_has_a_line_for_each_epoch(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"

    def epochs() -> list[int]:
        return [json.loads(line)["epoch"] for line in path.read_text().splitlines()]

    recorder = MetricsRecorder(path)
    recorder.on_train_start(ClassificationConfig(epochs=3), 1, [])
    assert not path.exists()
    recorder.on_epoch(epoch(1))
    assert epochs() == [1]
    for damaged in ('{"epoch": 1}\n{"epo', "", '{"epoch": 1}\n{"epoch": 2}\n{"epoch": 3}\n'):
        path.write_text(damaged)  # the checkpoint has two epochs
        MetricsRecorder(path).on_train_start(ClassificationConfig(epochs=2), 1, [epoch(1), epoch(2)])
        assert epochs() == [1, 2]


def test_describe_outputs_names_the_files_that_are_there(tmp_path: Path) -> None:
    for name in ("page.html", "result.json", "other.txt"):
        (tmp_path / name).touch()
    assert describe_outputs(tmp_path) == f"{tmp_path}/: result.json, page.html"


def test_overwrite_takes_a_tuned_file_of_a_method_unknown_here(tmp_path: Path) -> None:
    out = save(attach("vit_nano_patch12_48", "linear", 2).eval(), tmp_path / "a.safetensors")
    out.write_bytes(out.read_bytes().replace(rb"\"linear", rb"\"linera"))
    with pytest.raises(TunedFileError, match="does not fit this vpt"):
        read_header(out)
    job = job_of(out)
    check_output_path(job, overwrite=True)
    with pytest.raises(SpecError, match=r"its settings are not known; .* replace it with --overwrite"):
        check_output_path(job, overwrite=False)
    out.write_bytes(out.read_bytes()[:99])
    with pytest.raises(SpecError, match="is no tuned file, or a damaged one"):
        check_output_path(job, overwrite=True)


def test_metrics_that_are_undefined_are_null_in_files_and_nan_when_read(tmp_path: Path) -> None:
    path, job = tmp_path / "metrics.jsonl", job_of(tmp_path / "a.safetensors")
    MetricsRecorder(path).on_epoch(epoch(1, metrics={"val_map": math.nan}))
    assert json.loads(path.read_text(), parse_constant=pytest.fail)["metrics"] == {"val_map": None}
    numbers = {name: 1 for name, kind in RunResult.__annotations__.items() if kind in (int, float)}
    values: dict[str, Any] = dict.fromkeys(RunResult.__annotations__, None)
    values |= {**numbers, "history": [], "status": "done", "metrics": {"test_map": math.nan, "test_f1": 0.5}}
    write_result(job, RunResult(**values))
    job.out.touch()
    text = (job.run_dir / "result.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["metrics"] == {"test_map": None, "test_f1": 0.5}
    found = load_finished_result(job)
    assert found is not None and math.isnan(found.metrics["test_map"]) and found.metrics["test_f1"] == 0.5


def test_overwrite_of_a_run_behind_a_link_empties_the_folder_and_keeps_the_link(tmp_path: Path) -> None:
    (tmp_path / "disk" / "fold-1.run").mkdir(parents=True)
    (tmp_path / "a.run").symlink_to(tmp_path / "disk")
    job = job_of(tmp_path / "a.safetensors")
    write_job(job, "digest")
    open_run(job, Callback(), overwrite=True)
    assert (tmp_path / "a.run").is_symlink() and not list((tmp_path / "disk").iterdir())


def test_overwrite_of_a_run_that_cannot_be_removed_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise PermissionError(13, "Permission denied")

    job = job_of(tmp_path / "a.safetensors")
    (job.run_dir / "fold-1.run").mkdir(parents=True)
    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(StorageError, match=r"a\.run could not be emptied: Permission denied"):
        open_run(job, Callback(), overwrite=True)


def test_overwrite_spares_the_run_of_another_tuned_file(tmp_path: Path) -> None:
    first, second = job_of(tmp_path / "m.v1"), job_of(tmp_path / "m.v2")
    write_job(first, "digest")
    (tmp_path / "m.v1").touch()
    with pytest.raises(SpecError, match=r"m\.run holds the run of m\.v1; choose another name for --out"):
        open_run(second, Callback(), overwrite=True)
    (tmp_path / "m.v1").rename(tmp_path / "m.v3")  # so that the run directory is no other file's
    open_run(second, Callback(), overwrite=True)
    assert not (first.run_dir / "job.json").exists()


def test_run_of_a_folder_is_found_with_and_without_a_slash_at_its_end(tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    write_job(job_of(out, "photos/"), "digest")
    assert load_finished_result(job_of(out, "photos")) is None
    with pytest.raises(SpecError, match="data: photos then, photo now"):
        load_finished_result(job_of(out, "photo"))
