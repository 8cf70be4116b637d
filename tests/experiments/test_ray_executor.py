"""A cluster of two nodes on this machine; one of them is killed in mid-sweep."""

from __future__ import annotations

import json
import re
import socket
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helpers.command_line import exit_code
from helpers.ray_settings import run_on_ray
from vpt.core import ray_cluster
from vpt.core.ray_cluster import check_cluster, connect_cluster
from vpt.errors import ExitCode, SpecError, VptError
from vpt.experiments.experiment import Experiment
from vpt.experiments.running.ray_executor import RayExecutor, _ClusterRuns, _run_remotely
from vpt.experiments.running.runner import run_experiment
from vpt.experiments.selection import run_batches
from vpt.experiments.store import Store

# In a process of its own: Ray installs handlers and warns of things that are not ours to mend.
SWEEP = """
import json, sys, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from vpt.experiments.running.ray_executor import RayExecutor
from vpt.experiments.planning.file import load_experiment
from vpt.experiments.running.runner import run_experiment
from vpt.experiments.selection import run_batches
from vpt.training import Callback

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
other = cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()

class Killer(Callback):
    ended_before = None
    def __init__(self):
        self.ended_runs, self.notes, self.estimates = [], [], []
    def on_note(self, text):
        self.notes.append(text)
    def on_progress(self, done, total, eta_seconds):
        self.estimates.append(eta_seconds)
    def on_run_end(self, run, record):
        self.ended_runs.append(record.status)
        if self.ended_before is None and len(self.ended_runs) >= 3:
            self.ended_before = len(self.ended_runs)
            cluster.remove_node(other, allow_graceful=False)
            while sum(node["Alive"] for node in ray.nodes()) > 1:  # noticed a little later than it happens
                time.sleep(0.2)

killer, address = Killer(), cluster.address
run_experiment(load_experiment(Path(sys.argv[1])), Path(sys.argv[2]), RayExecutor(address), killer)
cluster.shutdown()
print(json.dumps({"address": address, **vars(killer)}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Ray's test cluster is for Linux")
def test_ray_executor_with_killed_node_gives_the_local_records(
    folder: Path, done: Store, without_times: Callable[[Path], dict[str, Any]]
) -> None:
    pytest.importorskip("ray", reason='Ray is an extra: pip install ".[ray]"')
    ran = run_on_ray([sys.executable, "-c", SWEEP, str(folder / "plan.toml"), str(folder / "out")], folder / "out")
    assert ran.returncode == 0, ran.stderr
    summary = json.loads(ran.stdout.splitlines()[-1])
    assert summary["ended_runs"] == ["done"] * 12 and summary["ended_before"] < 12
    joined, lost = summary["notes"]
    assert joined == f"joined the Ray cluster at {summary['address']}: 2 nodes, 2 CPUs, 0 GPUs"
    assert re.fullmatch(r"the node [\d.]+ is lost; its runs are done again on the others", lost)
    assert summary["estimates"][-1] == 0 and None not in summary["estimates"][-5:]
    assert "raylet" not in ran.stdout + ran.stderr and "died" not in ran.stderr  # the log lines of Ray
    logged = r"pid=\d|\[?\d{4}-\d\d-\d\d[ T]|\b(INFO|WARNING|ERROR|FATAL)\b"
    assert not re.findall(rf".*(?:{logged}).*", ran.stdout + ran.stderr)

    ours, theirs = (sorted((directory / "runs").glob("[!.]*.json")) for directory in (folder / "out", done.folder))
    assert [path.name for path in ours] == [path.name for path in theirs]
    for one, another in zip(ours, theirs, strict=True):
        assert without_times(one) == without_times(another)
    assert not list((folder / "out" / "locks").iterdir()) and not list((folder / "out" / "work").iterdir())


def test_ray_executor_without_shared_folder_sends_the_tuned_file(done: Store, tmp_path: Path) -> None:
    experiment: Experiment = done.load_experiment()
    final = next(run for task, row in experiment.cells() if len(row.settings) == 1
                 for run in experiment.final_runs(task, row, row.settings[0]))  # fmt: skip
    lock = Store(tmp_path / "seen").claim([final])
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


class InlineRay:
    """Stands for the module `ray`: a task is done when it is asked for, by a node that does not see the folder."""

    exceptions = SimpleNamespace(RayError=VptError)

    def remote(self, **resources: float) -> Callable[[Any], Any]:
        return lambda do: SimpleNamespace(options=lambda name: SimpleNamespace(remote=lambda *args: partial(do, *args)))

    def put(self, value: Any) -> Any:
        return value

    def wait(self, tasks: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        return tasks[:1], tasks[1:]

    def get(self, task: Any) -> Any:
        return task()

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 1.0}

    def nodes(self) -> list[Any]:
        return []


def test_ray_executor_without_shared_folder_scores_ensembles(
    experiment_of: Callable[..., Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensemble = ('{ name = "Full"', '{ name = "Both", ensemble_of = "Full" }, { name = "Full"')
    experiment = experiment_of(ensemble, ("[0.1, 0.01]", "0.1"))
    monkeypatch.setattr("vpt.experiments.running.ray_executor._sees_lock", lambda lock: False)
    monkeypatch.setattr("torch.set_num_threads", lambda threads: None)
    monkeypatch.setattr(
        "vpt.experiments.running.ray_executor.connect_cluster", lambda *_, **__: nullcontext(InlineRay())
    )
    records = run_experiment(experiment, tmp_path / "out", RayExecutor())
    assert [record.status for record in records.values()] == ["done"] * 10
    assert sorted(record.task for record in records.values() if record.stage == "ensemble") == ["hue", "shade"]
    assert not list((tmp_path / "out" / "locks").iterdir())


def test_lost_batch_gives_its_error_to_a_run_without_a_record(
    experiment_of: Callable[..., Experiment], done: Store, tmp_path: Path
) -> None:
    runs = [run for batch in run_batches(experiment_of(), {}) for run in batch][:2]
    store, released = Store(tmp_path), list[bool]()
    store.add(done.records()[runs[0].id])

    def lose() -> None:
        raise VptError("the node is gone")

    lock = SimpleNamespace(release=lambda: released.append(True))
    cluster: Any = SimpleNamespace(pending={lose: (runs, lock)}, ray=InlineRay(), store=store)
    _ClusterRuns._collect(cluster, lose)
    assert [store.records()[run.id].status for run in runs] == ["done", "error"] and released == [True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--executor", "slurm"], "it must be ray, or an address"),
        (["--executor", "ray", "--workers", "2"], "--workers is for this machine"),
        (["--gpus", "0.5"], "add --executor ray"),
    ],
)
def test_bench_run_with_conflicting_executor_options_is_refused(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("bench", "run", "smoke", *options) == ExitCode.USAGE
    assert message in capsys.readouterr().err


def test_connect_cluster_where_none_runs_starts_one_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, Any]] = []
    ended: list[bool] = []
    worker = SimpleNamespace(_worker_logs_enabled=True)

    def init(**options: Any) -> None:
        started.append(options)
        if options["address"] == "auto":
            raise ConnectionError("no cluster")

    ray = SimpleNamespace(
        init=init,
        is_initialized=lambda: False,
        nodes=lambda: [{"NodeID": "a", "NodeManagerAddress": "10.0.0.1", "Alive": True}],
        cluster_resources=lambda: {"CPU": 2.0},
        shutdown=lambda: ended.append(worker._worker_logs_enabled),
        _private=SimpleNamespace(worker=worker),
    )
    monkeypatch.setattr(ray_cluster, "import_optional", lambda *args: ray)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    notes: list[str] = []
    with connect_cluster(None, notes.append) as given:
        assert given is ray and not ended
    where = "no Ray cluster runs here, so one was started on this machine until the end of this command"
    assert notes == [f"{where}: 1 node, 2 CPUs, 0 GPUs"]
    silent = {"log_to_driver": False, "logging_level": "ERROR"}
    assert started == [{"address": "auto", **silent}, {"address": "local", "include_dashboard": False, **silent}]
    assert ended == [False] and worker._worker_logs_enabled


def test_cluster_that_does_not_start_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(address: str, **options: Any) -> None:
        raise ConnectionError("no cluster") if address == "auto" else Exception("The node timed out during startup.")

    worker, ended = SimpleNamespace(_worker_logs_enabled=True), list[bool]()
    ray = SimpleNamespace(
        init=init, is_initialized=lambda: False, _private=SimpleNamespace(worker=worker),
        shutdown=lambda: ended.append(True),
    )  # fmt: skip
    monkeypatch.setattr(ray_cluster, "import_optional", lambda *args: ray)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with (
        pytest.raises(VptError, match=r"^Ray cannot be started on this machine: The node timed out during startup\.$"),
        connect_cluster(None, pytest.fail),
    ):
        pass
    assert ended and worker._worker_logs_enabled


def test_ray_executor_without_ray_names_the_extra(monkeypatch: pytest.MonkeyPatch, done: Store) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(Exception, match=r'pip install "\.\[ray\]"'):
        RayExecutor().execute(done.load_experiment(), done, None)  # type: ignore[arg-type]


def test_address_where_nobody_answers_is_refused_before_the_plan_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray", reason='Ray is an extra: pip install ".[ray]"')
    monkeypatch.setattr("vpt.core.ray_cluster._TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and says nothing
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        given = ("bench", "run", tmp_path / "missing.toml", "--executor", f"ray://{address}")
        assert exit_code(*given) == ExitCode.FAILED
        assert f"no Ray cluster responds at ray://{address}: no response within" in capsys.readouterr().err
    monkeypatch.setenv("RAY_ADDRESS", address)  # nobody listens any more
    with pytest.raises(VptError, match=rf"no Ray cluster responds at {address} \(from RAY_ADDRESS\): .*refused"):
        check_cluster(None)
    with pytest.raises(VptError, match=r"no Ray cluster responds at a\.\.b:6379: .*label"):  # no name of a host
        check_cluster("a..b:6379")
    with pytest.raises(SpecError, match=r"write ray://HOST:10001"):
        check_cluster("ray://head")


def test_missing_ray_is_refused_before_the_plan_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert exit_code("bench", "run", tmp_path / "missing.toml", "--executor", "ray") == ExitCode.FAILED
    assert 'pip install ".[ray]"' in capsys.readouterr().err


def test_cluster_without_a_node_for_a_run_is_named() -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 8.0}},
        {"Alive": True, "Resources": {"CPU": 2.0, "GPU": 1.0}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    ]
    ray = SimpleNamespace(nodes=lambda: nodes)
    assert not RayExecutor(cpus=8).describe_missing_node(ray) and not RayExecutor(gpus=0.5).describe_missing_node(ray)
    assert RayExecutor(cpus=4, gpus=1).describe_missing_node(ray) == (
        "a run asks for 4 CPU and 1 GPU, and no node of the cluster has that (at most 8 CPU, 1 GPU); runs wait for one"
    )
