"""Jobs that stop before their end: by a signal, a full disk, a loss that diverges."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.command_line import SMALL, exit_code, start_command, vpt
from vpt.core import environment
from vpt.errors import ExitCode


def test_tune_of_finished_run_reads_its_result(photos: Path, tuned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tuned.stat().st_mtime_ns
    vpt("tune", photos, "--out", tuned, *SMALL)
    assert "--overwrite does it again" in capsys.readouterr().err
    assert tuned.stat().st_mtime_ns == before


def test_tune_on_the_cpu_beside_a_gpu_gives_the_memory_of_its_process(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = environment.describe()
    monkeypatch.setattr(environment, "describe", lambda: {**found, "gpus": ["a GPU"]})
    vpt("tune", photos, "--out", tmp_path / "a.safetensors", *SMALL, "--device", "cpu", "--page")
    assert "peak memory of the process" in capsys.readouterr().out
    page = (tmp_path / "a.run" / "page.html").read_text()
    assert "<p>done: test top-1 " in page and 'aria-label="Top-1 by epoch"' in page and "http-equiv" not in page


def test_tune_after_a_killed_run_removes_its_leftovers(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "a.run" / "pixels-0").mkdir(parents=True)
    for name in (".job.json.0123abcd-4711-0123abcd.part", "metrics.jsonl"):
        (tmp_path / "a.run" / name).write_text("")
    vpt("tune", photos, "--out", tmp_path / "a.safetensors", *SMALL)
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith((".", "pixels-"))]


def test_tune_that_diverges_exits_with_advice_and_a_record(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "nan.safetensors"
    assert exit_code("tune", photos, "--out", out, *SMALL, "--lr", 1e30, "--page") == ExitCode.TRAINING
    error = capsys.readouterr().err
    assert "epoch 1, step" in error
    assert "try learning_rate 1e+29" in error
    failure = json.loads((tmp_path / "nan.run" / "result.json").read_text())
    assert failure["status"] == "failed"
    assert not out.exists()
    page = (tmp_path / "nan.run" / "page.html").read_text()
    assert "<pre>TrainingError\n" in page and "try learning_rate 1e+29" in page


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images and masks of two classes."""
    root = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(0)
    for i in range(6):
        mask = (np.indices((40, 50)).sum(0) > rng.integers(20, 70)).astype(np.uint8)
        for kind, pixels in (("images", np.repeat(mask[..., None] * 150 + rng.integers(50), 3, 2)), ("masks", mask)):
            (root / kind).mkdir(exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(root / kind / f"{i}.png")
    return root


@pytest.mark.parametrize(
    ("data", "settings"),
    [
        ("photos", ("--epochs", 40)),
        ("scenes", ("--iterations", 100, "--eval-every", 1, "--head", "linear", "--image-size", 48)),
    ],
)
@pytest.mark.parametrize(("how", "left"), [(signal.SIGKILL, -9), (signal.SIGINT, ExitCode.INTERRUPTED)])
def test_tune_resumed_after_a_signal_is_bit_identical(
    how: signal.Signals,
    left: int,
    data: str,
    settings: tuple[object, ...],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    photos = request.getfixturevalue(data)
    settings = (*settings, "--batch-size", 4, "--method", "vpt(length=2, dropout=0.1)")
    whole, broken = tmp_path / "whole.safetensors", tmp_path / "broken.safetensors"
    unbroken = start_command("tune", photos, "--out", whole, *settings)
    unbroken.communicate()
    assert unbroken.returncode == 0
    process = start_command("tune", photos, "--out", broken, *settings)
    metrics = tmp_path / "broken.run" / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text().count("\n") >= 3):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(how)
    _, error = process.communicate()
    assert process.returncode == left
    if how == signal.SIGINT:
        assert "the same command resumes" in error
    assert not broken.exists()
    again = start_command("tune", photos, "--out", broken, *settings)
    assert "going on after epoch" in again.communicate()[1]
    results = [json.loads((tmp_path / f"{name}.run" / "result.json").read_text()) for name in ("whole", "broken")]
    histories = [[{**epoch, "seconds": 0} for epoch in result["history"]] for result in results]
    assert histories[0] == histories[1]
    assert whole.read_bytes() == broken.read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are a Unix matter")
def test_tune_on_a_full_disk_exits_with_storage_error(photos: Path, tmp_path: Path) -> None:
    import resource

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    process = start_command("tune", photos, "--out", tmp_path / "a.safetensors", *SMALL, preexec_fn=limit)
    _, error = process.communicate()
    assert process.returncode == ExitCode.STORAGE
    assert "could not be written" in error
    assert not list(tmp_path.glob("*.safetensors"))
