"""The files of a run directory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vpt import attach, save
from vpt.errors import SpecError, TunedFileError
from vpt.model.tuned_file import read_header
from vpt.tasks.classification.config import ClassificationConfig, ClassificationOptions
from vpt.training.callbacks import EpochMetrics
from vpt.training.job import Job
from vpt.training.run_directory import MetricsRecorder, check_output_path, describe_outputs


def epoch(number: int) -> EpochMetrics:
    return EpochMetrics(number, 0.5, 0.9, None, None, 0.1, 1.0)


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
    job = Job("shapes", out, ClassificationConfig(), ClassificationOptions())
    check_output_path(job, overwrite=True)
    with pytest.raises(SpecError, match=r"its settings are not known; .* replace it with --overwrite"):
        check_output_path(job, overwrite=False)
    out.write_bytes(out.read_bytes()[:99])
    with pytest.raises(SpecError, match="is no tuned file, or a damaged one"):
        check_output_path(job, overwrite=True)
