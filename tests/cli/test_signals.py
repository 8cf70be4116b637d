"""Signals, and terminals that are gone: the documented exit code, a word, and never a lost training."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.forked_commands import CommandServer, ForkedCommand
from vpt.errors import ExitCode

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and devices of Linux")
LONG = ("--epochs", 400, "--batch-size", 8, "--method", "vpt(length=2)", "--lr", 0.5)
SHORT = ("--epochs", 3, "--batch-size", 8, "--method", "vpt(length=2)", "--lr", 0.5)


@pytest.fixture(scope="module")
def commands() -> Iterator[CommandServer]:
    with CommandServer() as server:
        yield server


def to_file(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)


def reader_gone() -> int:
    """A pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def wait_for_epochs(command: ForkedCommand, run: Path, count: int) -> None:
    wait_for_lines(command, run / "metrics.jsonl", count)


def wait_for_lines(command: ForkedCommand, path: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while not (path.exists() and path.read_text().count("\n") >= count):
        os.kill(command.pid, 0)
        assert time.monotonic() < deadline, f"{path.name} has fewer than {count} lines after two minutes"
        time.sleep(0.02)


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*")]


def is_finished(run: Path) -> bool:
    return json.loads((run / "result.json").read_text())["status"] == "done"


@pytest.mark.parametrize(
    ("signals", "code", "words"),
    [
        ([signal.SIGTERM], ExitCode.TERMINATED, "stopped by SIGTERM"),
        ([signal.SIGINT] * 5, ExitCode.INTERRUPTED, "stopped"),
    ],
)
def test_tune_ended_by_signals_says_what_is_kept(
    commands: CommandServer, photos: Path, tmp_path: Path, signals: list[signal.Signals], code: ExitCode, words: str
) -> None:
    messages = tmp_path / "messages.txt"
    command = commands.start(
        "tune", photos, "--out", tmp_path / "a.safetensors", *LONG,
        stdout=to_file(tmp_path / "answer.txt"), stderr=to_file(messages),
    )  # fmt: skip
    wait_for_epochs(command, tmp_path / "a.run", 2)
    for number in signals:
        command.send_signal(number)
        time.sleep(0.02)
    assert command.wait() == code
    text = messages.read_text()
    assert text.endswith(f"\n{words}; what is done is kept, and the same command resumes from there\n")
    assert "Traceback" not in text and not leftovers(tmp_path)
    epochs = len((tmp_path / "a.run" / "metrics.jsonl").read_text().splitlines())
    assert epochs >= 2 and (tmp_path / "a.run" / "checkpoint.safetensors").exists()


def test_predict_whose_terminal_is_closed_stops_and_says_that_it_resumes(
    commands: CommandServer, photos: Path, tuned: Path, tmp_path: Path
) -> None:
    (tmp_path / "many").mkdir()
    for number in range(3000):
        os.link(photos / "disc" / "0.png", tmp_path / "many" / f"{number}.png")
    messages, journal = tmp_path / "messages.txt", tmp_path / "a.csv.partial"
    command = commands.start(
        "predict", tuned, tmp_path / "many", "--out", tmp_path / "a.csv",
        stdout=to_file(tmp_path / "answer.txt"), stderr=to_file(messages),
    )  # fmt: skip
    wait_for_lines(command, journal, 2)  # the first describes the call
    command.send_signal(signal.SIGHUP)
    assert command.wait() == ExitCode.HANGUP == 129
    text = "stopped by SIGHUP; with --out, what is done is kept, and the same command resumes from there\n"
    assert messages.read_text().endswith(text)
    assert journal.exists() and not (tmp_path / "a.csv").exists() and not leftovers(tmp_path)


def test_tune_with_a_terminal_that_is_gone_ends_with_its_file(
    commands: CommandServer, photos: Path, tmp_path: Path
) -> None:
    controller, terminal = os.openpty()
    command = commands.start(
        "tune", photos, "--out", tmp_path / "a.safetensors", *SHORT[2:], "--epochs", 60,
        stdout=os.dup(terminal), stderr=terminal, env={"TERM": "xterm", "COLUMNS": "40"},
    )  # fmt: skip
    wait_for_epochs(command, tmp_path / "a.run", 1)
    os.close(controller)  # from here on every write to the terminal fails
    command.send_signal(signal.SIGHUP)
    code = command.wait()
    assert is_finished(tmp_path / "a.run") and (tmp_path / "a.safetensors").exists()
    assert code == ExitCode.STORAGE  # the answer could not be shown
    assert not leftovers(tmp_path)


@pytest.mark.parametrize(
    ("stdout", "stderr", "code"),
    [
        ("closed", "closed", ExitCode.OK),
        ("gone", "gone", ExitCode.OK),
        ("full", "file", ExitCode.STORAGE),
        ("file", "full", ExitCode.OK),
    ],
)
def test_tune_with_streams_that_fail_ends_with_its_file(
    commands: CommandServer, photos: Path, tmp_path: Path, stdout: str, stderr: str, code: ExitCode
) -> None:
    def open_stream(kind: str, name: str) -> int | None:
        if kind == "closed":
            return None
        if kind == "gone":
            return reader_gone()
        return os.open("/dev/full", os.O_WRONLY) if kind == "full" else to_file(tmp_path / name)

    streams = {"stdout": open_stream(stdout, "answer.txt"), "stderr": open_stream(stderr, "messages.txt")}
    command = commands.start("tune", photos, "--out", tmp_path / "a.safetensors", *SHORT, **streams)
    assert command.wait() == code
    assert is_finished(tmp_path / "a.run") and (tmp_path / "a.safetensors").exists()
    assert not leftovers(tmp_path)
    if stdout == "file":
        assert "vpt predict" in (tmp_path / "answer.txt").read_text()
    if stdout == "full":
        assert "standard output could not be written: No space left on device" in (
            (tmp_path / "messages.txt").read_text()
        )


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_tune_of_names_that_the_terminal_lacks_shows_their_codes(
    commands: CommandServer, photos: Path, tmp_path: Path, encoding: str
) -> None:
    data = tmp_path / "猫"
    data.symlink_to(photos)
    command = commands.start(
        "tune", data, "--out", tmp_path / "a.safetensors", *SHORT,
        stdout=to_file(tmp_path / "answer.txt"), stderr=to_file(tmp_path / "messages.txt"),
        env={"PYTHONIOENCODING": encoding, "COLUMNS": "40"},
    )  # fmt: skip
    assert command.wait() == ExitCode.OK
    text = (tmp_path / "answer.txt").read_bytes().decode(encoding)
    assert "\\u732b" in text and "a.safetensors" in text


def test_tune_twice_at_once_is_refused_with_the_holder(commands: CommandServer, photos: Path, tmp_path: Path) -> None:
    def start(name: str) -> ForkedCommand:
        return commands.start(
            "tune", photos, "--out", tmp_path / "a.safetensors", *LONG,
            stdout=to_file(tmp_path / "answer.txt"), stderr=to_file(tmp_path / name),
        )  # fmt: skip

    first = start("first.txt")
    wait_for_epochs(first, tmp_path / "a.run", 1)
    assert start("second.txt").wait() == ExitCode.STORAGE
    assert f"a.run is being written by process {first.pid} on " in (tmp_path / "second.txt").read_text()
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    kept = len((tmp_path / "a.run" / "metrics.jsonl").read_text().splitlines())
    third = start("third.txt")  # at once: a killed process holds no lock
    # The checkpoint may be an epoch ahead of the lines, and the third writes that epoch's line before it says a word.
    wait_for_epochs(third, tmp_path / "a.run", kept + 2)
    third.send_signal(signal.SIGTERM)
    assert third.wait() == ExitCode.TERMINATED
    assert "going on after epoch" in (tmp_path / "third.txt").read_text()
    assert not leftovers(tmp_path)
