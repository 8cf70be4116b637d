"""Kills with -9, at random moments and inside writes: what is torn, lost or left when the command is given again.

    python benchmarks/kills.py --kills 40 --seed 0

A trial forks a command, kills it up to three times, and gives it again until it ends. Then it counts files that cannot
be read or differ from those of an unbroken run (torn), files and results that are missing (lost), and files that an
unbroken run does not leave (leftovers). Every other kill is inside a write: the command kills itself when a file has
half of its content, all of it but not its name, or just got its name. Counts of several seeds are summed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import vpt
from killed_files import judge
from killed_ray import await_end, run_on_ray
from report import RESULTS_DIR, write_between_marks, write_section
from vpt.cli import main as run_command
from vpt.datasets.preparation import prepare_task
from vpt.experiments.planning.file import load_experiment
from vpt.experiments.running.local_executor import InlineExecutor
from vpt.experiments.running.runner import run_experiment
from vpt.search import SearchRequest, run_search
from vpt.serving.bank import Bank
from vpt.training import Callback

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers.miniatures import miniature, pack  # (the sources of published data sets, in small)
from helpers.ray_settings import ray_settings
from helpers.segmentation import write_split

_MOMENTS = ("half of the content", "before the name", "after the name")
_ABANDONED = 3.1  # seconds after which files of a dead process are known as such in folders that several may write
_FIXED = ("--batch-size", "8", "--method", "vpt(length=2)", "--lr", "0.5")
_PLAN = """
name = "small"
tasks = [{ name = "photos", data = "photos" }]
methods = [{ name = "Linear", spec = "linear" }, { name = "VPT", spec = "vpt(length=1)", learning_rate = [0.1, 0.01] }]
[training]
epochs = 2
batch_size = 8
"""


class Clock(Callback):
    """Seconds that pass with images and steps, so that a search decides by the work that it has done."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def on_data_progress(self, split: str, done: int, total: int) -> None:
        self.now += 0.01 * total if done == total else 0

    def on_step(self, epoch: int, step: int, loss: float, lr: float) -> None:
        self.now += 1.0


@dataclass(frozen=True)
class Case:
    """A command to kill.

    Attributes:
        name: Name in the table.
        run: Function of the folder of outputs that does the work.
        exact: True if files are equal to those of an unbroken run; False where times decide.
        shared: True if several processes may write in the folder, so that what a killed one left is not known at once.
        settle: Waits, after a kill, for other processes of the command.
    """

    name: str
    run: Callable[[Path], object]
    exact: bool = True
    shared: bool = False
    settle: Callable[[], object] = lambda: None


def make_cases(data: Path, ray: dict[str, str]) -> list[Case]:
    """Draw tiny data, and list the commands. `ray` has the variables of a Ray cluster."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("dark", "gray", "light")):
        for split, count in (("train", 8), ("test", 4)):
            (data / "photos" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = (rng.normal(0, 25, (48, 48, 3)) + 60 + 50 * label).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(data / "photos" / split / name / f"{i}.png")
    for split, count in (("train", 8), ("val", 3), ("test", 4)):
        write_split(data / "scenes/images" / split, data / "scenes/masks" / split, count, first_id=0)
    (data / "plan.toml").write_text(_PLAN)
    task = miniature("eurosat", data / "source")
    pack(data / "source", task.source.files[0], "2750")
    photos, scenes = data / "photos", data / "scenes"
    model = vpt.attach(vpt.load_backbone(), "vpt(length=2)", 3)
    vpt.save(model, data / "tuned.safetensors")

    def search(out: Path) -> None:
        clock, device = Clock(), torch.device("cpu")
        request = SearchRequest.create(str(photos), out / "a.safetensors", device=device, minutes=1.0)
        run_search(request, clock, device="cpu", clock=clock)

    def bench(out: Path) -> None:
        run_experiment(load_experiment(data / "plan.toml"), out / "bench", InlineExecutor())

    def tune(*options: str) -> Callable[[Path], object]:
        return lambda out: run_command(["tune", *options, "--out", str(out / "a.safetensors")])

    def predict(out: Path) -> None:
        complete = (out / "a.csv").exists()
        try:
            run_command(["predict", str(data / "tuned.safetensors"), str(photos), "--out", str(out / "a.csv")])
        except SystemExit:
            if not complete:  # a table that is there is refused
                raise

    versions = [data / "tuned.safetensors", vpt.save(model, data / "half.safetensors", save_dtype="fp16")]

    def serve(out: Path) -> None:
        """Add a task to a server, replace it, add and remove another one, as its requests do."""
        vpt.save(model, out / "first.safetensors")
        files = Bank([out]).files
        for name, number in (("a", 0), ("a", 1), ("b", 0), ("a", 0), ("b", 1), ("a", 1)):
            files.put(name, versions[number].read_bytes())
        files.remove("b")

    masks = ("--iterations", "12", "--eval-every", "2", "--head", "linear", "--image-size", "48", "--batch-size", "2")
    return [
        Case("tune", tune(str(photos), "--epochs", "6", *_FIXED)),
        Case("tune --cache", tune(str(photos), "--epochs", "2", "--cache", str(data / "cache"), *_FIXED), shared=True),
        Case("tune --folds", tune(str(photos / "train"), "--epochs", "2", "--folds", "2", *_FIXED)),
        Case("search", search, exact=False),
        Case("segmentation", tune(str(scenes), *masks)),
        Case("bench", bench, shared=True),
        Case(
            "bench --executor ray",
            lambda out: run_on_ray(data / "plan.toml", out / "bench", ray),
            shared=True,
            settle=lambda: await_end(ray),
        ),
        Case("data prepare", lambda out: prepare_task(task, out, data / "source"), shared=True),
        Case("predict --out", predict),
        Case("serve", serve, shared=True),
        Case("save", lambda out: vpt.save(model, out / "a.safetensors"), shared=True),
    ]


def start(case: Case, out: Path, kill_at: int = 0, moment: str = "", count_file: Path | None = None) -> int:
    """Fork the command; it kills itself at the write of a number, if one is given."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for number in (1, 2):
            os.dup2(null, number)
        _watch_writes(kill_at, moment, count_file)
        case.run(out)
        code = 0
    except SystemExit as error:
        code = int(error.code or 0)
    finally:
        os._exit(code)


def _watch_writes(kill_at: int, moment: str, count_file: Path | None) -> None:
    """Count the files that get their final names; at one of them, kill this process."""
    rename, done = Path.replace, 0

    def replace(self: Path, target: Path) -> Path:
        nonlocal done
        done += 1
        if done == kill_at and moment == _MOMENTS[0] and self.suffix == ".part" and self.is_file():
            os.truncate(self, self.stat().st_size // 2)
        if done == kill_at and moment != "after the name":
            os.kill(os.getpid(), signal.SIGKILL)
        result = rename(self, target)
        if done == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if count_file is not None:
            count_file.write_text(str(done))
        return result

    Path.replace = replace  # type: ignore[method-assign,assignment]


def run_to_the_end(case: Case, out: Path, count_file: Path | None = None) -> int:
    """Run the command without a kill; its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(start(case, out, count_file=count_file), 0)[1])


def kill(case: Case, out: Path, inside: bool, seconds: float, writes: int, rng: random.Random) -> bool:
    """Run the command and kill it; False if it was faster."""
    if inside:
        process = start(case, out, rng.randint(1, writes), rng.choice(_MOMENTS))
    else:
        process = start(case, out)
        time.sleep(rng.uniform(0, seconds))
        os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL


def measure(case: Case, folder: Path, kills: int, rng: random.Random) -> dict[str, Any]:
    """Kill a command so many times, in as many trials as that takes."""
    folder = folder / case.name.replace(" ", "-")  # pages quote a path with a space
    whole, counts = folder / "whole", folder / "count.txt"
    whole.mkdir(parents=True)
    begun = time.perf_counter()
    code = run_to_the_end(case, whole, counts)
    if code:
        raise SystemExit(f"{case.name} without a kill ended with {code}")
    seconds, writes = time.perf_counter() - begun, int(counts.read_text())
    row: dict[str, Any] = {"kills": 0, "inside": 0, "trials": 0, "torn": 0, "lost": 0, "leftovers": 0}
    faults: list[str] = []
    while row["kills"] < kills:
        out = folder / str(row["trials"])
        out.mkdir()
        for _ in range(min(rng.randint(1, 3), kills - row["kills"])):
            inside = row["kills"] % 2 == 0
            if kill(case, out, inside, seconds, writes, rng):
                row["kills"] += 1
                row["inside"] += inside
            case.settle()
        if case.shared:
            time.sleep(_ABANDONED)
        verdict = judge(out, whole, run_to_the_end(case, out), exact=case.exact)
        row["trials"] += 1
        for kind, names in verdict.items():
            row[kind] += len(names)
            faults += [f"{case.name}, trial {row['trials']}: {kind}: {name}" for name in names]
    for fault in faults:
        print(fault, flush=True)
    print(f"{case.name}: {row}", flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40, help="of all commands together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", help="a command of the table; repeatable")
    parser.add_argument("--dry-run", action="store_true", help="write no results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name, ray_settings() as ray:
        cases = [case for case in make_cases(Path(name), ray) if options.only is None or case.name in options.only]
        each = -(-options.kills // len(cases))
        rng = random.Random(options.seed)
        rows: dict[str, dict[str, Any]] = {}
        for case in cases:
            rows[case.name] = measure(case, Path(name) / "trials", each, rng)
            if not options.dry_run:  # what was measured stays, should this process be killed
                write_table(rows, options.seed)
    if any(row[kind] for row in rows.values() for kind in ("torn", "lost", "leftovers")):
        sys.exit(1)


def write_table(rows: dict[str, dict[str, Any]], seed: int) -> None:
    """Add the counts of a seed to the table."""
    path = RESULTS_DIR / "kills.json"
    known = json.loads(path.read_text())["kills"]["values"] if path.exists() else {}
    values = {**known, str(seed): {**known.get(str(seed), {}), **rows}}
    total: dict[str, dict[str, int]] = {}
    for counts in values.values():
        for name, row in counts.items():
            sums = total.setdefault(name, dict.fromkeys(row, 0))
            total[name] = {key: sums[key] + value for key, value in row.items()}
    total["all"] = {key: sum(row[key] for row in total.values()) for key in next(iter(total.values()))}
    lines = [
        "| command | kills | inside a write | trials | torn | lost | leftovers |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [f"| {name} | {' | '.join(map(str, row.values()))} |" for name, row in total.items()]
    command = f"python benchmarks/kills.py --only COMMAND --kills K --seed S, for S in {', '.join(values)}"
    write_section("kills", "kills", values, command, "\n".join(lines))
    write_between_marks(Path(__file__).parents[1] / "docs" / "reliability.md", "kills", "\n".join(lines))


if __name__ == "__main__":
    main()
