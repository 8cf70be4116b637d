"""Searches whose process is killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = """
import sys, pathlib
sys.path[:0] = [sys.argv[1], str(pathlib.Path(sys.argv[1]).parent)]
import simulation, vpt.search.candidates
vpt.search.candidates._MIN_STEPS = 4
result, clock = simulation.run(sys.argv[2], pathlib.Path(sys.argv[3]), method="vpt(length=4)")
print(result.search["selected"], clock.notes[0])
"""


@pytest.mark.parametrize("stage", ["probe", "plan vpt(length=4)"])
def test_search_killed_at_a_stage_goes_on_with_its_decisions(images: Path, tmp_path: Path, stage: str) -> None:
    line = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(images), str(tmp_path / "a.safetensors")]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    record = tmp_path / "a.run" / "decisions.jsonl"
    while not (record.exists() and f'"{stage}"' in record.read_text()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = record.read_text()
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert record.read_text().startswith(before)
    assert json.loads((tmp_path / "a.run" / "result.json").read_text())["search"]["selected"] in done.stdout


KILLED_SCRIPT = """
import importlib, os, signal, sys, pathlib
sys.path[:0] = [sys.argv[1], str(pathlib.Path(sys.argv[1]).parent)]
import simulation, vpt.search.candidates, vpt.search.selection
vpt.search.candidates._MIN_STEPS = 4
module, name = sys.argv[4].rsplit(".", 1)
original = getattr(importlib.import_module(module), name)


def kill(*given):
    if "vpt(length=4)" in str(given[-1]) or "selection" in module:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*given)


setattr(sys.modules[module], name, kill)
options = {"image_size": 48, "batch_size": 2, "head": "linear"} if "segmentation" in module else {}
result, clock = simulation.run(sys.argv[2], pathlib.Path(sys.argv[3]), method="vpt(length=4)", **options)
"""


@pytest.mark.parametrize(
    "function", ["selection.measure_step", "selection.run_trial", "segmentation.costs._measure_step"]
)
def test_candidate_that_has_the_process_killed_twice_is_given_up(
    images: Path, scenes: Path, tmp_path: Path, function: str
) -> None:
    out, data = tmp_path / "a.safetensors", scenes if "segmentation" in function else images
    folder = str(Path(__file__).parent)
    line = [sys.executable, "-c", KILLED_SCRIPT, folder, str(data), str(out), f"vpt.search.{function}"]
    ends = [subprocess.run(line, capture_output=True, text=True, check=False) for _ in range(3)]
    assert [end.returncode for end in ends] == [-signal.SIGKILL, -signal.SIGKILL, 0], ends[-1].stderr
    result = json.loads((tmp_path / "a.run" / "result.json").read_text())["search"]
    killed = [row for row in result["candidates"] if row["method"] == "vpt(length=4)"]
    assert (
        killed[0]["status"] == "stopped"
        and "killed twice" in result["summary"]
        and result["selected"] in ("the probe", "linear")
    )
    assert not (tmp_path / "a.run" / "search").exists()
