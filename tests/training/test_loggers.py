"""Loggers: the files that each installed one writes, and the order of the calls that a recording one receives."""

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
LOG_SCRIPT = """
import sys
from vpt.training.loggers import make_logger
logger = make_logger(sys.argv[1])
for name in ("one", "two"):
    logger.begin(name, {"config": {"epochs": 2}, "method": "linear"})
    logger.log(1, {"train_loss": 1.0})
    logger.log(2, {"train_loss": 0.5})
    logger.end({"test_top1": 0.75})
"""
READ_SCRIPTS = {
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
LOCATIONS = {"tensorboard": "{}", "mlflow": "file:{}/mlruns", "wandb": "trial"}


@pytest.mark.parametrize("name", loggers.LOGGERS)
def test_make_logger_of_each_package_writes_its_metrics(name: str, tmp_path: Path) -> None:
    package = "torch.utils.tensorboard" if name == "tensorboard" else name
    if importlib.util.find_spec("tensorboard" if name == "tensorboard" else name) is None:
        pytest.skip(f'{package} is an extra: pip install ".[{name}]"')
    env = {**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_DIR": str(tmp_path),
           "MLFLOW_ALLOW_FILE_STORE": "true"}  # fmt: skip
    read = f"import json, sys\nplace, found = sys.argv[1], {{}}\n{READ_SCRIPTS[name]}\nprint(json.dumps(found))"
    for code, argument in ((LOG_SCRIPT, f"{name}:{LOCATIONS[name].format(tmp_path)}"), (read, str(tmp_path))):
        ran = subprocess.run([sys.executable, "-c", code, argument], capture_output=True, text=True, check=False,
                             env=env, cwd=tmp_path, timeout=300)  # fmt: skip
        assert ran.returncode == 0, ran.stderr
    run = {"loss": [1.0, 0.5], "top1": 0.75, "method": "linear"}
    assert json.loads(ran.stdout.splitlines()[-1]) == {"one": run, "two": run}


class RecordingLogger:
    """A logger that records its calls."""

    calls: ClassVar[list[tuple[Any, ...]]] = []

    def __init__(self, place: str) -> None:
        self.calls.append(("made", place))

    def begin(self, name: str, config: Mapping[str, Any]) -> None:
        self.calls.append(("begin", name, config["method"]))

    def log(self, step: int, values: Values) -> None:
        self.calls.append(("log", step, sorted(values)))

    def end(self, scores: Values) -> None:
        self.calls.append(("end", *scores))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    monkeypatch.setitem(loggers.LOGGERS, "recording", RecordingLogger)
    monkeypatch.setattr(RecordingLogger, "calls", [])
    return RecordingLogger.calls


def test_tune_with_logger_logs_the_job_once(calls: list[tuple[Any, ...]], tmp_path: Path) -> None:
    line = ["digits", "--method", "linear", "--epochs", "2", "--train-fraction", "0.1", "--logger", "recording:here"]
    for _ in range(2):  # the second time there is nothing to do
        answer = CliRunner().invoke(command, [*line, "--out", str(tmp_path / "digits.safetensors")])
        assert answer.exit_code == 0, answer.output
    figures = ["lr", "seconds", "train_loss", "train_metric", "train_top1", "val_loss", "val_metric", "val_top1"]
    assert calls == [
        ("made", "here"),
        ("begin", "digits", "linear"),
        ("log", 1, figures),
        ("log", 2, figures),
        ("end", "test_top1", "test_mean_per_class"),
        ("made", "here"),
    ]


def test_tune_with_failing_logger_finishes(
    calls: list[tuple[Any, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def log(self: RecordingLogger, step: int, values: Values) -> None:
        raise ConnectionError("the server is down")

    monkeypatch.setattr(RecordingLogger, "log", log)
    line = ["digits", "--method", "linear", "--epochs", "2", "--train-fraction", "0.1", "--logger", "recording"]
    answer = CliRunner().invoke(command, [*line, "--out", str(tmp_path / "digits.safetensors")])
    assert answer.exit_code == 0, answer.output
    failed = "RecordingLogger failed, and nothing more is logged: ConnectionError: the server is down"
    assert answer.output.count(failed) == 1
    assert [kind for kind, *_ in calls] == ["made", "begin"]


def test_tune_that_fails_ends_the_logger_without_scores(calls: list[tuple[Any, ...]], tmp_path: Path) -> None:
    line = ["digits", "--method", "linear", "--epochs", "1", "--lr", "1e38", "--logger", "recording", "--out",
            str(tmp_path / "digits.safetensors")]  # fmt: skip
    assert CliRunner().invoke(command, line).exit_code != 0
    assert [kind for kind, *_ in calls] == ["made", "begin", "end"] and calls[-1] == ("end",)


def test_bench_with_logger_logs_each_run(calls: list[tuple[Any, ...]], tmp_path: Path) -> None:
    from vpt.cli.bench import command as bench

    (tmp_path / "plan.toml").write_text(
        'seeds = 1\ntrain_fraction = 0.1\nmethods = [{ spec = "linear", learning_rate = [1.0, 0.1] }]\n'
        'tasks = [{ name = "digits" }]\n[training]\nepochs = 1\n'
    )
    line = ["run", str(tmp_path / "plan.toml"), "--out", str(tmp_path / "out"), "--logger", "recording"]
    answer = CliRunner().invoke(bench, line)
    assert answer.exit_code == 0, answer.output
    assert [kind for kind, *_ in calls] == ["made", *["begin", "log", "end"] * 3]
    assert [scores for kind, *scores in calls if kind == "end"] == [["val_top1"], ["val_top1"], ["test_top1"]]


def test_make_logger_of_unknown_or_absent_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError, match="no logger 'tensorbord'; did you mean 'tensorboard'"):
        make_logger("tensorbord:runs")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(VptError, match=r'needs wandb, .* pip install "\.\[wandb\]"'):
        make_logger("wandb")


def test_flatten_of_nested_dict_joins_keys_with_dots() -> None:
    assert flatten({"a": 1, "b": {"c": {"d": 2}, "e": None}}) == {"a": 1, "b.c.d": 2, "b.e": None}
