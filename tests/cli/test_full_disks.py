"""A file system that is full in earnest, at every size of what still fits, and one that cannot be written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vpt.errors import ExitCode

SCRIPT = """
import contextlib, io, json, subprocess, sys
from pathlib import Path
from safetensors import safe_open
from vpt.cli import main

photos, disk, reports = Path(sys.argv[1]), Path(sys.argv[2]), []
TUNE = ["--epochs", "2", "--batch-size", "8", "--method", "vpt(length=2)", "--lr", "0.5"]

def mount(*options):
    subprocess.run(["mount", "-o", ",".join(options), "-t", "tmpfs", "none", str(disk)], check=True)

def run(*args):
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            main([str(arg) for arg in args])
            code = 0
        except SystemExit as left:
            code = int(left.code or 0)
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
    reports.append({"code": code, "error": errors.getvalue().splitlines()[-1:], "torn": torn, "left": left})

mount("size=4m")
for free in (0, 8, 24, 64, 160, 320):  # kB: less than a lock, a job, a checkpoint, a tuned file, the pictures
    filler, block = disk / "filler", bytes(4096)
    filler.write_bytes(b"")
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(block)
    with filler.open("r+b") as file:
        file.truncate(max(0, filler.stat().st_size - 1024 * free))
    run("tune", photos, "--out", disk / "a.safetensors", *TUNE)
    filler.unlink()
run("tune", photos, "--out", disk / "a.safetensors", *TUNE)
mount("remount", "ro")
run("tune", photos, "--out", disk / "b.safetensors", *TUNE)
run("predict", disk / "a.safetensors", photos, "--out", disk / "answers.csv")
run("inspect", disk / "a.safetensors")
print(json.dumps(reports))
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
        ["unshare", "-rm", sys.executable, "-c", SCRIPT, str(photos), str(tmp_path / "disk")],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *full, freed, read_only, predicted, inspected = json.loads(done.stdout)
    assert full[0]["code"] == ExitCode.STORAGE and "the disk is full" in full[0]["error"][0]
    assert {report["code"] for report in full} == {ExitCode.OK, ExitCode.STORAGE}
    assert freed["code"] == inspected["code"] == ExitCode.OK
    for report in (read_only, predicted):
        assert report["code"] == ExitCode.STORAGE and "Read-only file system" in report["error"][0]
    for report in (*full, freed, read_only):
        assert not report["torn"] and not report["left"], report
