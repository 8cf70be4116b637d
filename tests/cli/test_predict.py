"""`vpt predict --out`: tables of predictions, resumed after a kill."""

from __future__ import annotations

import csv
import json
import signal
import time
from pathlib import Path

import pytest
from PIL import Image

import vpt as library
from helpers.command_line import exit_code, start_command, vpt
from vpt.model.label_kinds import MultiLabel, Regression
from vpt.tasks.classification import prediction_file


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_predict_to_each_format_has_the_rows_of_predict(
    photos: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for suffix in ("csv", "jsonl", "parquet", "CSV"):
        vpt("predict", tuned, photos, "--out", tmp_path / f"predictions.{suffix}", "--probabilities")
    assert (tmp_path / "predictions.CSV").read_bytes() == (tmp_path / "predictions.csv").read_bytes()
    assert capsys.readouterr().out.splitlines()[0] == f"{tmp_path / 'predictions.csv'}: 32 images"
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    table = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "predictions.parquet").to_pylist()
    texts = [{name: str(value) for name, value in row.items()} for row in rows]
    assert table == rows and read_csv(tmp_path / "predictions.csv") == texts
    assert list(rows[0]) == ["path", "label", "probability", "p_bars", "p_disc"]
    for row, expected in zip(rows, library.predict(tuned, photos), strict=True):
        assert (row["path"], row["label"]) == (expected.image, expected.label)
        assert row["probability"] == pytest.approx(expected.probability, abs=1e-6)
        assert row["p_bars"] + row["p_disc"] == pytest.approx(1, abs=1e-6)
    assert {path.suffix for path in tmp_path.iterdir()} == {".csv", ".jsonl", ".parquet", ".CSV"}


def test_commands_with_events_write_their_progress(photos: Path, tuned: Path, tmp_path: Path) -> None:
    table = ("--out", tmp_path / "a.csv")
    for number, (name, *more) in enumerate([("predict",), ("predict", *table), ("eval",), ("embed", *table)]):
        file = tmp_path / f"{number}.jsonl"
        vpt(name, tuned, photos, *more, "--events", file)
        events = [json.loads(line) for line in file.read_text().splitlines()]
        assert [events[0]["event"], events[-1]["event"]] == ["start", "end"]
        progress = [(event["done"], event["total"]) for event in events if event["event"] == "data_progress"]
        assert progress and progress[-1][0] == progress[-1][1]


def test_predict_resumed_computes_only_rows_that_are_missing(
    photos: Path, tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_file, "_CHUNK", 5)
    whole, out = tmp_path / "whole.csv", tmp_path / "predictions.csv"
    seen: list[int] = []
    classify_chunk = prediction_file.classify_chunk
    library.predict_to_file(tuned, photos, whole)

    def stop_after_two(model: object, images: list[Path], *args: object) -> object:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(len(images))
        return classify_chunk(model, images, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(prediction_file, "classify_chunk", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        library.predict_to_file(tuned, photos, out)
    journal = tmp_path / "predictions.csv.partial"
    assert not out.exists() and len(journal.read_text().splitlines()) == 11
    journal.write_bytes(journal.read_bytes()[:-9])  # a kill within a line
    seen.clear()
    monkeypatch.setattr(
        prediction_file,
        "classify_chunk",
        lambda m, images, *a: seen.append(len(images)) or classify_chunk(m, images, *a),
    )
    found = library.predict_to_file(tuned, photos, out)
    assert (found.images, found.resumed, seen) == (32, 9, [1, 5, 5, 5, 5, 2])
    assert not journal.exists()
    again, once = read_csv(out), read_csv(whole)
    assert [(row["path"], row["label"]) for row in again] == [(row["path"], row["label"]) for row in once]
    assert [float(row["probability"]) for row in again] == pytest.approx([float(r["probability"]) for r in once])


def test_predict_killed_leaves_no_table_and_is_resumed(tuned: Path, photos: Path, tmp_path: Path) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for number in range(1200):
        (many / f"{number:04}.png").hardlink_to(photos / ("disc" if number % 2 else "bars") / f"{number % 16}.png")
    out, journal = tmp_path / "predictions.csv", tmp_path / "predictions.csv.partial"
    process = start_command("predict", tuned, many, "--out", out)
    end = time.monotonic() + 200
    while time.monotonic() < end and not (journal.exists() and journal.read_bytes().count(b"\n") > 256):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not out.exists() and journal.exists()
    found = library.predict_to_file(tuned, many, out)
    assert found.resumed >= 256 and found.images == 1200
    rows = read_csv(out)
    assert [row["path"] for row in rows] == [str(path) for path in sorted(many.iterdir())]
    assert [row["label"] for row in rows[:2]] == ["bars", "disc"]


def test_predict_to_file_with_unreadable_images_leaves_them_out(
    photos: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_file, "_CHUNK", 2)
    for name in ("a", "b", "c", "d", "e"):
        Image.open(photos / "disc" / "0.png").save(tmp_path / f"{name}.png")
    for name in ("b", "e"):  # one beside a good image, one alone
        (tmp_path / f"{name}.png").write_bytes(b"no image")
    out = tmp_path / "predictions.csv"
    assert exit_code("predict", tuned, tmp_path, "--out", out) == 3
    assert "b.png" in capsys.readouterr().err and not out.exists()
    vpt("predict", tuned, tmp_path, "--out", out, "--skip-corrupt", "--json")
    assert json.loads(capsys.readouterr().out) == {"file": str(out), "images": 3, "resumed": 0, "dropped": 2}
    assert [Path(row["path"]).stem for row in read_csv(out)] == ["a", "c", "d"]


def test_predict_to_file_refuses_what_it_would_overwrite_or_mix(
    photos: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "predictions.csv"
    vpt("predict", tuned, photos / "disc", "--out", out)
    assert exit_code("predict", tuned, photos, "--out", out) == 2
    assert "already exists" in capsys.readouterr().err
    vpt("predict", tuned, photos, "--out", out, "--overwrite")
    assert len(read_csv(out)) == 32
    journal = tmp_path / "other.csv.partial"
    journal.write_text('{"backbone": "another"}\n')
    assert exit_code("predict", tuned, photos, "--out", tmp_path / "other.csv") == 2
    assert "another model or other options" in capsys.readouterr().err
    assert exit_code("predict", tuned, photos, "--probabilities") == 2
    assert "give --out" in capsys.readouterr().err
    assert exit_code("predict", tuned, photos, "--out", tmp_path / "predictions.txt") == 2
    assert "ends in .csv, .jsonl, .parquet" in capsys.readouterr().err


def test_predict_to_file_of_several_labels_joins_those_above_thresholds(
    photos: Path, tuned: Path, tmp_path: Path
) -> None:
    model = library.load(tuned)
    for thresholds, names in (((0.0, 0.0), "|".join(model.classes or ())), ((1.0, 1.0), "")):
        model.label_kind = MultiLabel(thresholds)
        library.predict_to_file(model, photos, tmp_path / "a.csv", overwrite=True)
        with (tmp_path / "a.csv").open(newline="") as file:
            assert {row["label"] for row in csv.DictReader(file)} == {names}


def test_predict_to_file_of_a_number_has_no_probabilities(photos: Path, tuned: Path, tmp_path: Path) -> None:
    model = library.load(tuned)
    model.label_kind = Regression()
    with pytest.raises(library.SpecError, match="predicts a number, which has no probabilities"):
        library.predict_to_file(model, photos, tmp_path / "a.csv", probabilities=True)
    assert library.predict_to_file(model, photos, tmp_path / "a.csv").images == 32
    with (tmp_path / "a.csv").open(newline="") as file:
        assert csv.DictReader(file).fieldnames == ["path", "prediction"]


def test_predict_resumed_after_an_image_was_replaced_is_refused(
    photos: Path, tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_file, "_CHUNK", 2)
    inbox, out = tmp_path / "inbox", tmp_path / "predictions.csv"
    inbox.mkdir()
    for name in "abcd":
        (inbox / f"{name}.png").write_bytes((photos / "disc" / "0.png").read_bytes())
    (inbox / "d.png").write_bytes(b"no image")
    with pytest.raises(library.DataError):
        library.predict_to_file(tuned, inbox, out)
    (inbox / "d.png").write_bytes((photos / "bars" / "0.png").read_bytes())
    (inbox / "a.png").write_bytes((photos / "bars" / "0.png").read_bytes())
    with pytest.raises(library.DataError, match=r"a\.png has changed since the call was interrupted"):
        library.predict_to_file(tuned, inbox, out)
    assert library.predict_to_file(tuned, inbox, out, overwrite=True).images == 4
    assert [row["label"] for row in read_csv(out)] == ["bars", "disc", "disc", "bars"]
