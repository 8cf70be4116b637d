"""A file system that is full in earnest, at every size of what still fits, and one that cannot be written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vpt.errors import ExitCode

PRELUDE = """
import contextlib, io, json, subprocess, sys
from pathlib import Path
from safetensors import safe_open
from vpt.cli import main
from vpt.errors import VptError

photos, disk, reports = Path(sys.argv[1]), Path(sys.argv[2]), []

def mount(*options):
    subprocess.run(["mount", "-o", ",".join(options), "-t", "tmpfs", "none", str(disk)], check=True)

@contextlib.contextmanager
def only(free):  # kB that can be written
    filler, block = disk / "filler", bytes(4096)
    filler.write_bytes(b"")
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(block)
    with filler.open("r+b") as file:
        file.truncate(max(0, filler.stat().st_size - 1024 * free))
    yield
    filler.unlink()

def run(*args):
    attempt(lambda: main([str(arg) for arg in args]))

def attempt(work):
    errors, code = io.StringIO(), 0
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            work()
        except SystemExit as left:
            code = int(left.code or 0)
        except VptError as error:
            code = int(error.exit_code)
            print(error, file=sys.stderr)
    torn = []
    for path in disk.rglob("*"):
        try:
            if path.suffix == ".safetensors":
                with safe_open(path, "np") as file:
                    [file.get_tensor(name) for name in file.keys()]
            elif path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".jsonl":
                [json.loads(line) for line in path.read_text().splitlines()]
        except Exception as error:
            torn.append(f"{path.name}: {error}")
    left = [path.name for path in disk.rglob(".*")]
    reports.append({"code": code, "error": " ".join(errors.getvalue().split()), "torn": torn, "left": left})
"""

TUNE = """
TUNE = ["--epochs", "2", "--batch-size", "8", "--method", "vpt(length=2)", "--lr", "0.5"]
mount("size=4m")
for free in (0, 8, 24, 64, 160, 320):  # kB: less than a lock, a job, a checkpoint, a tuned file, the pictures
    with only(free):
        run("tune", photos, "--out", disk / "a.safetensors", *TUNE)
run("tune", photos, "--out", disk / "a.safetensors", *TUNE)
mount("remount", "ro")
run("tune", photos, "--out", disk / "b.safetensors", *TUNE)
run("predict", disk / "a.safetensors", photos, "--out", disk / "answers.csv")
run("inspect", disk / "a.safetensors")
print(json.dumps(reports))
"""

# Each in a file system of its own: without room, with room for the first files, with enough, and read-only.
OTHERS = """
import vpt
from vpt.datasets.preparation import prepare_task
from vpt.experiments.running.local_executor import InlineExecutor
from vpt.experiments.planning.file import load_experiment
from vpt.experiments.running.runner import raise_errors, run_experiment
from vpt.serving.bank import Bank
sys.path.insert(0, sys.argv[4])
from helpers.miniatures import miniature, pack

source, tuned = Path(sys.argv[2]).parent / "source", Path(sys.argv[3])
experiment = load_experiment(photos.parent / "plan.toml")
task = miniature("eurosat", source)
pack(source, task.source.files[0], "2750")
model = vpt.load(tuned)

def serve():
    files = Bank([disk]).files
    for name in ("a", "b", "c", "a"):
        files.put(name, tuned.read_bytes())

WORKS = {
    "bench": lambda: raise_errors(run_experiment(experiment, disk / "bench", InlineExecutor())),
    "prepare": lambda: prepare_task(task, disk, source),
    "predict": lambda: main(["predict", str(tuned), str(photos), "--out", str(disk / "a.csv"), "--overwrite"]),
    "save": lambda: vpt.save(model, disk / "first.safetensors"),
    "serve": serve,
}
answers = {}
for name, work in WORKS.items():
    for free in (0, 4, 32, None):
        mount("size=2m")
        vpt.save(model, disk / "first.safetensors")
        if free is None:
            mount("remount", "ro")
            attempt(work)
        else:
            with only(free):
                attempt(work)
            attempt(work)
        subprocess.run(["umount", str(disk)], check=True)
    answers[name], reports = reports, []
print(json.dumps(answers))
"""


def can_mount() -> bool:
    return (
        sys.platform == "linux"
        and subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode == 0
    )


@pytest.mark.skipif(not can_mount(), reason="needs the right to mount, in a namespace of its own")
def test_tune_on_a_file_system_that_fills_up_loses_nothing(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    done = subprocess.run(
        ["unshare", "-rm", sys.executable, "-c", PRELUDE + TUNE, str(photos), str(tmp_path / "disk")],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *full, freed, read_only, predicted, inspected = json.loads(done.stdout)
    assert full[0]["code"] == ExitCode.STORAGE and "the disk is full" in full[0]["error"]
    assert {report["code"] for report in full} == {ExitCode.OK, ExitCode.STORAGE}
    assert freed["code"] == inspected["code"] == ExitCode.OK
    for report in (read_only, predicted):
        assert report["code"] == ExitCode.STORAGE and "Read-only file system" in report["error"]
    for report in (*full, freed, read_only):
        assert not report["torn"] and not report["left"], report


PLAN = """
name = "small"
tasks = [{ name = "photos", data = "photos" }]
methods = [{ name = "VPT", spec = "vpt(length=1)", learning_rate = [0.1, 0.01] }]
[training]
epochs = 1
batch_size = 8
"""


@pytest.mark.skipif(not can_mount(), reason="needs the right to mount, in a namespace of its own")
def test_other_writers_on_a_full_and_a_read_only_file_system_lose_nothing(
    photos: Path, tuned: Path, tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "photos").symlink_to(photos)
    (tmp_path / "plan.toml").write_text(PLAN)
    paths = (tmp_path / "photos", tmp_path / "disk", tuned, Path(__file__).parents[1])
    done = subprocess.run(
        ["unshare", "-rm", sys.executable, "-c", PRELUDE + OTHERS, *map(str, paths)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert answers.keys() == {"bench", "prepare", "predict", "save", "serve"}
    for name, (*full, read_only) in answers.items():
        for report, freed in zip(full[::2], full[1::2], strict=True):
            assert report["code"] in (ExitCode.OK, ExitCode.STORAGE) and freed["code"] == ExitCode.OK, (name, full)
            assert "the disk is full" in report["error"] or report["code"] == ExitCode.OK, (name, report)
            assert not freed["left"], (name, freed)
        assert full[0]["code"] == read_only["code"] == ExitCode.STORAGE, (name, full[0], read_only)
        assert "Read-only file system" in read_only["error"], (name, read_only)
        for report in (*full, read_only):
            assert not report["torn"], (name, report)
            assert not [file for file in report["left"] if file.endswith((".part", ".lock"))], (name, report)
