"""Predictions on a cluster of two nodes: one is killed, then the command; the rows are those of one process."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.command_line import vpt
from helpers.ray_settings import run_on_ray
from vpt import attach, predict_to_file, save
from vpt.errors import SpecError, VptError
from vpt.tasks.classification import prediction_file, ray_prediction

# Two processes, as Ray installs handlers and warns of things that are not ours to mend. The first one is killed, not
# interrupted: Ray sometimes ends a process that cancels tasks ("Tried to complete task that was not pending").
KILLED = """
import os, signal, sys, time
from pathlib import Path
import ray
import vpt
from vpt.core.ray_cluster import connect_cluster
from vpt.tasks.classification import prediction_file
from vpt.training import Callback

file, images, out = map(Path, sys.argv[1:4])
prediction_file._CHUNK = 4

class Killed(Callback):
    def on_data_progress(self, split, done, total):
        if done == 8:
            os.kill(int(sys.argv[5]), signal.SIGKILL)
            while sum(node["Alive"] for node in ray.nodes()) > 1:  # noticed a little later than it happens
                time.sleep(0.1)
        if done == 24:
            os.kill(os.getpid(), signal.SIGKILL)

def note(text):
    print(text, flush=True)

with connect_cluster(sys.argv[4], note):
    Killed.on_note = lambda self, text: note(text)
    vpt.predict_to_file(file, images, out, executor="ray", probabilities=True, callback=Killed())
"""

PREDICT = """
import json, subprocess, sys
from pathlib import Path
from ray.cluster_utils import Cluster
import vpt
from vpt.core.ray_cluster import connect_cluster
from vpt.tasks.classification import prediction_file

killed, *names = sys.argv[1:]
file, images, out = map(Path, names)
prediction_file._CHUNK = 4
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
(raylet,) = cluster.add_node(num_cpus=1).all_processes["raylet"]
line = [sys.executable, "-c", killed, *names, cluster.address, str(raylet.process.pid)]
first = subprocess.run(line, capture_output=True, text=True)
with connect_cluster(cluster.address, lambda text: None):
    table = vpt.predict_to_file(file, images, out, executor="ray", probabilities=True)
cluster.shutdown()
vpt.predict_to_file(file, images, out.with_name("alone.parquet"), probabilities=True)
print(json.dumps({**vars(table), "code": first.returncode, "notes": first.stdout.splitlines(), "log": first.stderr}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Ray's test cluster is for Linux")
def test_table_of_cluster_with_killed_node_equals_that_of_one_process(tmp_path: Path) -> None:
    pytest.importorskip("ray.data", reason='Ray is an extra: pip install ".[ray]"')
    parquet = pytest.importorskip("pyarrow.parquet", reason='pyarrow is an extra: pip install ".[parquet]"')
    file = save(attach("vit_nano_patch12_48", "linear", 3).eval(), tmp_path / "photos.safetensors")
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for number in range(48):
        pixels = rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number:02}.png")
    out = tmp_path / "out"
    names = [str(file), str(tmp_path / "images"), str(out / "answers.parquet")]
    ran = run_on_ray([sys.executable, "-c", PREDICT, KILLED, *names], out)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)  # and no line of Ray
    assert found["code"] == -signal.SIGKILL, found["log"]
    assert (found["images"], found["resumed"]) == (48, 24)
    joined, lost = found["notes"]
    assert joined.endswith(": 2 nodes, 2 CPUs, 0 GPUs")
    assert re.fullmatch(r"the node [\d.]+ is lost; its images are done again on the others", lost)
    ours, theirs = (parquet.read_table(out / name).to_pylist() for name in ("answers.parquet", "alone.parquet"))
    assert len(ours) == 48 and ours == theirs


class Lost(Exception):
    """Stands for an error of Ray."""


class NodeElsewhere:
    """Stands for Ray: does the work of a node in another working directory, and reads the clock of that machine."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
        self.directory, self.fails, self.joined, self.settings = directory, False, [], []
        self.context = SimpleNamespace(
            enable_progress_bars=True, execution_options=SimpleNamespace(preserve_order=False)
        )
        ray = SimpleNamespace(
            put=lambda model: SimpleNamespace(hex=lambda: str(id(model)), model=model),
            get=lambda reference: reference.model,
            cluster_resources=lambda: {"CPU": 1.0},
            exceptions=SimpleNamespace(RayError=Lost),
        )
        data = SimpleNamespace(
            DataContext=SimpleNamespace(get_current=lambda: self.context),
            from_items=lambda items, override_num_blocks: SimpleNamespace(map=lambda *a, **k: self.map(items, *a, **k)),
        )

        @contextmanager
        def connect(address: str | None, on_note: object, verbose: bool) -> Iterator[object]:
            self.joined.append(verbose)
            yield ray

        monkeypatch.setitem(sys.modules, "ray", ray)
        monkeypatch.setattr("vpt.api.predicting.cluster_address", lambda executor: None)
        monkeypatch.setattr(ray_prediction, "connect_cluster", connect)
        monkeypatch.setattr(ray_prediction, "import_optional", lambda *args: data)
        monkeypatch.setattr(ray_prediction, "NodeWatch", lambda ray: SimpleNamespace(report_lost=lambda *args: None))

    def map(self, items: Iterable[Any], work: Callable[..., Any], fn_kwargs: dict[str, Any], num_cpus: int) -> object:
        def rows() -> Iterator[Any]:
            for number, item in enumerate(items):
                self.settings.append((self.context.enable_progress_bars, self.context.execution_options.preserve_order))
                if self.fails and number:
                    raise Lost("the node\nis lost")
                here = Path.cwd()
                os.chdir(self.directory)
                try:
                    answer = work(item, **fn_kwargs)
                finally:
                    os.chdir(here)
                yield answer

        return SimpleNamespace(iter_rows=rows)


def test_table_of_relative_paths_is_resumed_after_an_error_of_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = save(attach("vit_nano_patch12_48", "linear", 3).eval(), tmp_path / "photos.safetensors")
    for number in range(5):
        path = tmp_path / "here" / "images" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 24), (50 * number, 0, 0)).save(path)
    (tmp_path / "node").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(prediction_file, "_CHUNK", 2)
    node = NodeElsewhere(monkeypatch, tmp_path / "node")
    node.fails = True
    with pytest.raises(VptError, match=r"^Ray gave no result: the node is lost; the same command resumes"):
        predict_to_file(file, "images", "answers.csv", executor="ray")
    assert node.settings == [(False, True)] * 2
    assert node.context.enable_progress_bars and not node.context.execution_options.preserve_order
    node.fails = False
    table = predict_to_file(file, "images", "answers.csv", executor="ray")
    assert (table.images, table.resumed, node.joined) == (5, 2, [False, False])
    predict_to_file(file, "images", "alone.csv")
    assert Path("answers.csv").read_text() == Path("alone.csv").read_text()
    assert Path("answers.csv").read_text().splitlines()[1].startswith(str(Path("images") / "0.png"))


def test_predict_with_verbose_shows_the_log_lines_of_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = save(attach("vit_nano_patch12_48", "linear", 3).eval(), tmp_path / "photos.safetensors")
    Image.new("RGB", (20, 24)).save(tmp_path / "0.png")
    node = NodeElsewhere(monkeypatch, tmp_path)
    vpt("predict", file, tmp_path / "0.png", "--out", tmp_path / "out.csv", "--executor", "ray", "-v")
    assert (node.joined, node.settings) == ([True], [(True, True)])


def test_cluster_is_not_joined_where_every_row_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = NodeElsewhere(monkeypatch, tmp_path)
    assert list(ray_prediction.classify_on_ray(None, [], prediction_file.RowOptions(), on_note=print)) == []  # type: ignore[arg-type]
    assert node.joined == []


def test_executor_of_another_name_or_with_a_device_is_refused(tmp_path: Path) -> None:
    given = (tmp_path / "a.safetensors", tmp_path, tmp_path / "out.csv")
    with pytest.raises(SpecError, match="the executor is 'slurm'; it must be ray"):
        predict_to_file(*given, executor="slurm")
    with pytest.raises(SpecError, match="verbose shows the log lines of a cluster; give the executor ray"):
        predict_to_file(*given, verbose=True)
    with pytest.raises(SpecError, match=r"device is 'cpu' and executor 'ray': .*leave one of them out"):
        predict_to_file(*given, executor="ray", device="cpu")
