"""Events of long jobs, as a program reads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.json_answers import closed_validator
from vpt.errors import SpecError, StorageError
from vpt.training.callbacks import Callback, EpochMetrics
from vpt.training.events import open_events

EPOCH = EpochMetrics(1, 0.5, 0.9, None, None, 0.1, 2.0)


def read_events(path: Path) -> list[dict[str, Any]]:
    """The events of a file, each of which fits the schema."""
    events = [json.loads(line) for line in path.read_text().splitlines()]
    for event in events:
        closed_validator("event").validate(event)
    return events


def test_open_events_of_each_call_writes_a_valid_line(tmp_path: Path) -> None:
    path = tmp_path / "new" / "events.jsonl"
    with open_events(path) as callback:
        callback.on_note("a word\nand another")
        callback.on_data(["photos: 2 classes"])
        callback.on_data_progress("train", 3, 4)
        callback.on_step(1, 2, 0.25, 0.1)
        callback.on_epoch(EPOCH)
        callback.on_train_end({"test_top1": 1.0})
        callback.on_run_start(1, 2, "linear", 0)
        callback.on_progress(1, 2, None)
        seen = [event["event"] for event in read_events(path)]  # whole lines, while the file is open
    assert seen == ["start", "note", "data", "data_progress", "step", "epoch", "train_end", "run_start", "progress"]
    events = read_events(path)
    assert events[-1]["event"] == "end" and events[1]["text"] == "a word\nand another"
    assert {**events[5], "event": 0, "time_seconds": 0} == {**vars(EPOCH), "event": 0, "time_seconds": 0}
    assert sorted(events, key=lambda event: event["time_seconds"]) == events


def test_open_events_of_an_existing_file_appends_after_its_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with open_events(path) as callback:
        callback.on_note("first")
    with path.open("a") as file:
        file.write('{"event":"no' + "x" * 100_000)  # a kill cut it short
    with open_events(path) as callback:
        callback.on_note("second")
    assert [event.get("text", event["event"]) for event in read_events(path)] == [
        "start", "first", "end", "start", "second", "end",
    ]  # fmt: skip
    path.write_text('{"event":"sta')
    with open_events(path):
        pass
    assert [event["event"] for event in read_events(path)] == ["start", "end"]


@pytest.mark.parametrize(
    "content", [b"no line at all", b"\x89PNG\r\n\x1a\n", b"path,label\n1.png,a\n", b'{"epoch": 1}\n']
)
def test_open_events_of_another_file_refuses_it_and_leaves_it(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    with pytest.raises(SpecError, match=r"labels\.csv is no file of events; choose another"), open_events(path):
        raise AssertionError("it is not opened")
    assert path.read_bytes() == content


@pytest.mark.parametrize("error", [ValueError("wrong"), KeyboardInterrupt()])
def test_open_events_of_a_failing_job_writes_the_error(error: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with pytest.raises(type(error)), open_events(path):
        raise error
    last = read_events(path)[-1]
    assert (last["event"], last["type"], last["message"]) == ("error", type(error).__name__, str(error))


def test_open_events_of_no_path_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with open_events(None) as callback:
        callback.on_note("nobody")
    assert not list(tmp_path.iterdir())
    with pytest.raises(StorageError, match="could not be written"), open_events(tmp_path):
        raise AssertionError("it is not opened")


def test_event_writer_overrides_every_event_of_a_callback(tmp_path: Path) -> None:
    with open_events(tmp_path / "events.jsonl") as callback:
        for name in (name for name in vars(Callback) if name.startswith("on_")):
            ours: Callable[..., Any] = getattr(type(callback), name)
            assert ours is not getattr(Callback, name), name
