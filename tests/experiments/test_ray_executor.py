"""A cluster of two nodes on this machine; one of them is killed in mid-sweep."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vpt.cli.bench import command
from vpt.experiments.experiment import Experiment
from vpt.experiments.ray_executor import RayExecutor, _run_remotely
from vpt.experiments.store import Store

# In a process of its own: Ray installs handlers and warns of things that are not ours to mend.
SWEEP = """
import json, sys, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from vpt.experiments.ray_executor import RayExecutor
from vpt.experiments.plan_file import load_experiment
from vpt.experiments.runner import run_experiment
from vpt.training import Callback

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
other = cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()

class Killer(Callback):
    ended_before = None
    def __init__(self):
        self.ended_runs = []
    def on_run_end(self, run, record):
        self.ended_runs.append(record.status)
        if self.ended_before is None and len(self.ended_runs) >= 3:
            self.ended_before = len(self.ended_runs)
            cluster.remove_node(other, allow_graceful=False)

killer = Killer()
ray.init(address=cluster.address, log_to_driver=False)
alive = lambda: sum(node["Alive"] for node in ray.nodes())
nodes = alive()
run_experiment(load_experiment(Path(sys.argv[1])), Path(sys.argv[2]), RayExecutor(), killer)
deadline = time.monotonic() + 60
while alive() == nodes and time.monotonic() < deadline:  # the loss is noticed a little later than it happens
    time.sleep(0.5)
left = alive()
ray.shutdown()
cluster.shutdown()
print(json.dumps({"nodes": [nodes, left], "before": killer.ended_before, "ended": killer.ended_runs}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Ray's test cluster is for Linux")
def test_ray_executor_with_killed_node_gives_the_local_records(
    folder: Path, done: Store, without_times: Callable[[Path], dict[str, Any]]
) -> None:
    pytest.importorskip("ray", reason='Ray is an extra: pip install ".[ray]"')
    line = [sys.executable, "-c", SWEEP, str(folder / "plan.toml"), str(folder / "out")]
    alone = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ADDRESS": "",
        "RAY_worker_niceness": "0",
    }
    ran = subprocess.run(line, capture_output=True, text=True, timeout=300, env=alone, check=False)
    assert ran.returncode == 0, ran.stderr
    summary = json.loads(ran.stdout.splitlines()[-1])
    assert summary["nodes"] == [2, 1] and summary["ended"] == ["done"] * 12 and summary["before"] < 12

    ours, theirs = (sorted((directory / "runs").glob("[!.]*.json")) for directory in (folder / "out", done.folder))
    assert [path.name for path in ours] == [path.name for path in theirs]
    for one, another in zip(ours, theirs, strict=True):
        assert without_times(one) == without_times(another)
    assert not list((folder / "out" / "locks").iterdir()) and not list((folder / "out" / "work").iterdir())


def test_ray_executor_without_shared_folder_sends_the_tuned_file(done: Store, tmp_path: Path) -> None:
    experiment: Experiment = done.load_experiment()
    final = next(run for task, row in experiment.cells() if len(row.settings) == 1
                 for run in experiment.final_runs(task, row, row.settings[0]))  # fmt: skip
    lock = Store(tmp_path / "seen").locks.acquire(final.id)
    assert lock is not None
    (record,), tuned = _run_remotely(experiment, [final], lock, tmp_path / "seen", 1)
    assert not tuned and Store(tmp_path / "seen").tuned_path(final.id).exists()
    lock.release()  # as where the path leads to another folder
    (again,), tuned = _run_remotely(experiment, [final], lock, tmp_path / "unseen", 1)
    assert (
        tuned[final.id]
        == Store(tmp_path / "seen").tuned_path(final.id).read_bytes()
        == done.tuned_path(final.id).read_bytes()
    )
    assert not (tmp_path / "unseen").exists()
    assert record.scores == again.scores


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--executor", "slurm"], "it must be ray, or an address"),
        (["--executor", "ray", "--workers", "2"], "--workers is for this machine"),
        (["--gpus", "0.5"], "add --executor ray"),
    ],
)
def test_bench_run_with_conflicting_executor_options_is_refused(options: list[str], message: str) -> None:
    from click.testing import CliRunner

    answer: Any = CliRunner().invoke(command, ["run", "smoke", *options])
    assert answer.exit_code == 2 and message in answer.output


def test_ray_executor_without_ray_names_the_extra(monkeypatch: pytest.MonkeyPatch, done: Store) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(Exception, match=r'pip install "\.\[ray\]"'):
        RayExecutor().execute(done.load_experiment(), done, None)  # type: ignore[arg-type]
