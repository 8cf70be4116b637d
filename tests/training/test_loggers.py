"""Loggers hear what vpt records: real files of each that is installed, and a recording one for the order of things."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner

from vpt.cli.tune import command
from vpt.errors import SpecError, VptError
from vpt.training import loggers
from vpt.training.loggers import Values, flatten, make_logger

# In processes of their own: these packages warn of things that are not ours to mend.
TELL = """
import sys
from vpt.training.loggers import make_logger
told = make_logger(sys.argv[1])
for name in ("one", "two"):
    told.begin(name, {"config": {"epochs": 2}, "method": "linear"})
    told.log(1, {"train_loss": 1.0})
    told.log(2, {"train_loss": 0.5})
    told.end({"test_top1": 0.75})
"""
READ = {
    "tensorboard": """
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
for name in ("one", "two"):
    events = EventAccumulator(f"{place}/{name}").Reload()
    text = events.Tensors("config/text_summary")[0].tensor_proto.string_val[0]
    found[name] = {
        "loss": [event.value for event in events.Scalars("train_loss")],
        "top1": events.Scalars("test_top1")[-1].value,
        "method": "linear" if b'"linear"' in text else "",
    }
""",
    "mlflow": """
import mlflow
mlflow.set_tracking_uri(f"file:{place}/mlruns")
client = mlflow.MlflowClient()
for run in client.search_runs(["0"]):
    history = client.get_metric_history(run.info.run_id, "train_loss")
    assert run.info.status == "FINISHED"
    found[run.info.run_name] = {
        "loss": [metric.value for metric in sorted(history, key=lambda metric: metric.step)],
        "top1": run.data.metrics["test_top1"],
        "method": run.data.params["method"],
    }
""",
    "wandb": """
from pathlib import Path
files = sorted(Path(place).glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime_ns)
for name, path in zip(("one", "two"), files, strict=True):  # protocol buffers, with JSON for values
    data = path.read_bytes()
    assert name.encode() in data
    found[name] = {
        "loss": [float(value) for value in (b"1", b"0.5") if b"train_loss" in data and value in data],
        "top1": 0.75 if b"test_top1" in data and b"0.75" in data else None,
        "method": "linear" if b'"linear"' in data else "",
    }
""",
}
PLACE = {"tensorboard": "{}", "mlflow": "file:{}/mlruns", "wandb": "trial"}


@pytest.mark.parametrize("name", loggers.LOGGERS)
def test_each_tracker_writes_what_it_is_told(name: str, tmp_path: Path) -> None:
    package = "torch.utils.tensorboard" if name == "tensorboard" else name
    if importlib.util.find_spec("tensorboard" if name == "tensorboard" else name) is None:
        pytest.skip(f'{package} is an extra: pip install ".[{name}]"')
    env = {**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_DIR": str(tmp_path),
           "MLFLOW_ALLOW_FILE_STORE": "true"}  # fmt: skip
    read = f"import json, sys\nplace, found = sys.argv[1], {{}}\n{READ[name]}\nprint(json.dumps(found))"
    for code, argument in ((TELL, f"{name}:{PLACE[name].format(tmp_path)}"), (read, str(tmp_path))):
        ran = subprocess.run([sys.executable, "-c", code, argument], capture_output=True, text=True, check=False,
                             env=env, cwd=tmp_path, timeout=300)  # fmt: skip
        assert ran.returncode == 0, ran.stderr
    run = {"loss": [1.0, 0.5], "top1": 0.75, "method": "linear"}
    assert json.loads(ran.stdout.splitlines()[-1]) == {"one": run, "two": run}


class Recording:
    """Keeps what it hears."""

    heard: ClassVar[list[tuple[Any, ...]]] = []

    def __init__(self, place: str) -> None:
        self.heard.append(("made", place))

    def begin(self, name: str, config: Mapping[str, Any]) -> None:
        self.heard.append(("begin", name, config["method"]))

    def log(self, step: int, values: Values) -> None:
        self.heard.append(("log", step, sorted(values)))

    def end(self, scores: Values) -> None:
        self.heard.append(("end", *scores))


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    monkeypatch.setitem(loggers.LOGGERS, "recording", Recording)
    monkeypatch.setattr(Recording, "heard", [])
    return Recording.heard


def test_a_job_is_told_once(heard: list[tuple[Any, ...]], tmp_path: Path) -> None:
    line = ["digits", "--method", "linear", "--epochs", "2", "--train-fraction", "0.1", "--logger", "recording:here"]
    for _ in range(2):  # the second time there is nothing to do
        answer = CliRunner().invoke(command, [*line, "--out", str(tmp_path / "digits.safetensors")])
        assert answer.exit_code == 0, answer.output
    figures = ["lr", "seconds", "train_loss", "train_metric", "val_loss", "val_metric"]
    assert heard == [
        ("made", "here"),
        ("begin", "digits", "linear"),
        ("log", 1, figures),
        ("log", 2, figures),
        ("end", "test_top1", "test_mean_per_class"),
        ("made", "here"),
    ]


def test_a_logger_that_fails_costs_no_run(
    heard: list[tuple[Any, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def log(self: Recording, step: int, values: Values) -> None:
        raise ConnectionError("the server is down")

    monkeypatch.setattr(Recording, "log", log)
    line = ["digits", "--method", "linear", "--epochs", "2", "--train-fraction", "0.1", "--logger", "recording"]
    answer = CliRunner().invoke(command, [*line, "--out", str(tmp_path / "digits.safetensors")])
    assert answer.exit_code == 0, answer.output
    assert answer.output.count("Recording failed and is told nothing more: ConnectionError: the server is down") == 1
    assert [kind for kind, *_ in heard] == ["made", "begin"]


def test_a_failed_job_ends_without_scores(heard: list[tuple[Any, ...]], tmp_path: Path) -> None:
    line = ["digits", "--method", "linear", "--epochs", "1", "--lr", "1e38", "--logger", "recording", "--out",
            str(tmp_path / "digits.safetensors")]  # fmt: skip
    assert CliRunner().invoke(command, line).exit_code != 0
    assert [kind for kind, *_ in heard] == ["made", "begin", "end"] and heard[-1] == ("end",)


def test_a_comparison_is_told_run_by_run(heard: list[tuple[Any, ...]], tmp_path: Path) -> None:
    from vpt.cli.bench import command as bench

    (tmp_path / "plan.toml").write_text(
        'seeds = 1\ntrain_fraction = 0.1\nmethods = [{ spec = "linear", learning_rate = [1.0, 0.1] }]\n'
        'tasks = [{ name = "digits" }]\n[training]\nepochs = 1\n'
    )
    line = ["run", str(tmp_path / "plan.toml"), "--out", str(tmp_path / "out"), "--logger", "recording"]
    answer = CliRunner().invoke(bench, line)
    assert answer.exit_code == 0, answer.output
    assert [kind for kind, *_ in heard] == ["made", *["begin", "log", "end"] * 3]
    assert [scores for kind, *scores in heard if kind == "end"] == [["val_top1"], ["val_top1"], ["test_top1"]]


def test_what_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError, match="no logger 'tensorbord'; did you mean 'tensorboard'"):
        make_logger("tensorbord:runs")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(VptError, match=r'needs wandb, .* pip install "\.\[wandb\]"'):
        make_logger("wandb")


def test_flat() -> None:
    assert flatten({"a": 1, "b": {"c": {"d": 2}, "e": None}}) == {"a": 1, "b.c.d": 2, "b.e": None}
