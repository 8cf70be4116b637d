"""A comparison on a Ray of its own, whose driver can be killed; and the end of what such a Ray leaves."""

from __future__ import annotations

import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path

from vpt.experiments.planning.file import load_experiment
from vpt.experiments.running.ray_executor import RayExecutor
from vpt.experiments.running.runner import run_experiment

_PATIENCE = 60.0  # seconds in which the processes of a killed driver are to end


def run_on_ray(plan: Path, out: Path, settings: dict[str, str]) -> None:
    """Run an experiment with one worker of a Ray cluster that this process starts and stops.

    Args:
        plan: Plan file.
        out: Folder of the experiment.
        settings: Variables of Ray, among them the folder of its own files.
    """
    os.environ.update(settings)
    import ray  # not in the process that forks: Ray starts threads

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        run_experiment(load_experiment(plan), out, RayExecutor())
    finally:
        ray.shutdown()


def await_end(settings: dict[str, str]) -> None:
    """Wait until no process of that Ray works, as its workers could write beside those of the next command.

    Its agents, which know nothing of the folder, live on for minutes; they are ended here.

    Args:
        settings: The variables that its processes were started with.

    Raises:
        SystemExit: Some still work after a minute.
    """
    begun = time.monotonic()
    while processes := _processes(f"RAY_TMPDIR={settings['RAY_TMPDIR']}"):
        if all(re.search(r"agent|RuntimeEnv", command, re.IGNORECASE) for command in processes.values()):
            for process in processes:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        elif time.monotonic() - begun > _PATIENCE:
            raise SystemExit(f"processes of Ray still work for a killed command: {processes}")
        time.sleep(0.1)


def _processes(variable: str) -> dict[int, str]:
    """Processes of this machine that were started with a variable, and their commands."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has just ended, or is another user's
            continue
        if variable.encode() in variables:
            found[int(folder.name)] = command
    return found
