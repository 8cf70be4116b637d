"""The GPU benchmark: without a GPU it says so, and every part of it runs on the CPU with a toy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def gpu(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    done = gpu()
    assert done.returncode == 3
    assert done.stderr.startswith("no GPU here: nothing was measured")


def test_every_part_runs_dry() -> None:
    before = {path: path.stat().st_mtime_ns for path in BENCHMARKS.rglob("*") if "__pycache__" not in path.parts}
    done = gpu("--dry-run")
    assert done.returncode == 0, done.stderr
    for part in ("Ceilings", "VPT-deep, 3 prompts", "What it costs", "The whole VTAB-1k protocol"):
        assert f"**{part}**" in done.stdout
    assert "left out" not in done.stdout and "Error" not in done.stdout
    assert "| vpt(length=3, dropout=0, depth=deep) |" in done.stdout
    after = {path: path.stat().st_mtime_ns for path in BENCHMARKS.rglob("*") if "__pycache__" not in path.parts}
    assert after == before, "a dry run wrote something"
