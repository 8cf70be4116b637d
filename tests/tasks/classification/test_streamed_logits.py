"""Scoring while worker processes decode: the same scores as of decoded images, in memory that does not grow."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vpt
from helpers.brightness import draw
from helpers.command_line import vpt as command
from helpers.two_processes import model
from vpt.data.dataset import Dataset, Split
from vpt.data.decoding.arrays import DecodedImages
from vpt.errors import DataError
from vpt.model.tuned_model import TunedModel
from vpt.tasks.classification import prediction
from vpt.tasks.classification.streamed_logits import stream_logits
from vpt.training import Callback


class Notes(Callback):
    def __init__(self) -> None:
        self.texts: list[str] = []
        self.done: list[tuple[int, int]] = []

    def on_note(self, text: str) -> None:
        self.texts.append(text)

    def on_data_progress(self, split: str, done: int, total: int) -> None:
        self.done.append((done, total))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Images of several sizes, more than a batch of them."""
    for index, (pixels, label) in enumerate(zip(*draw(70), strict=True)):
        path = tmp_path / "photos" / ("dark", "light")[label] / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((40 + index, 50)).save(path)
    return tmp_path / "photos"


def split_of(photos: Path) -> Split:
    paths = tuple(sorted(photos.rglob("*.png")))
    return Split(paths, np.array([path.parent.name == "light" for path in paths], np.int64))


def dataset_of(split: Split) -> Dataset:
    return Dataset("photos", ("0", "1", "2"), Split(), Split(), split)


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluate_of_a_stream_equals_that_of_decoded_images(photos: Path, workers: int) -> None:
    tuned, data, progress = model("linear"), dataset_of(split_of(photos)), Notes()
    expected = prediction.evaluate(tuned, data, "test", Callback(), loading="cache")
    found = prediction.evaluate(tuned, data, "test", progress, loading="stream", workers=workers)
    assert np.array_equal(found.confusion, expected.confusion) and found.loss == expected.loss
    assert progress.done == [(64, 70), (70, 70)] and not progress.texts


def test_evaluate_of_a_stream_keeps_groups_and_leaves_out_the_corrupt(photos: Path) -> None:
    split = split_of(photos)
    split = Split(split.images, split.labels, split.names, np.arange(70) // 7)
    for index in (3, 66):
        Path(str(split.images[index])).write_bytes(b"<html>gone</html>")
    options = {"workers": 0, "skip_corrupt": False}
    with pytest.raises(DataError, match=r"2 of 70 images cannot be used:(.|\n)*not an image but a web page"):
        stream_logits(model("linear"), split, "test", Callback(), **options)  # type: ignore[arg-type]
    notes = Notes()
    options["skip_corrupt"] = True
    logits, left = stream_logits(model("linear"), split, "test", notes, **options)  # type: ignore[arg-type]
    assert logits.shape == (68, 3) and left.names == tuple(np.delete(split.names, (3, 66)))
    assert left.groups is not None and left.groups.tolist() == np.delete(split.groups, (3, 66)).tolist()
    assert sum("left out" in text for text in notes.texts) == 2


def test_evaluate_of_a_stream_holds_one_batch_of_pixels(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The peak of what NumPy allocates does not grow with the number of images."""
    split, tuned = split_of(photos), model("linear")
    monkeypatch.setattr(TunedModel, "forward", lambda self, images: torch.zeros(len(images), 3))

    def peak(copies: int) -> int:
        images = split.select(np.tile(np.arange(64), copies))
        tracemalloc.start()
        stream_logits(tuned, images, "test", Callback(), workers=0, skip_corrupt=False)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(1)
    batch = 64 * 3 * tuned.backbone.preprocessing.size**2
    assert peak(8) - peak(2) < batch < 8 * batch  # of six more batches


def test_eval_command_streams_above_the_limit_or_if_told(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.safetensors"
    vpt.tune(photos, out, method="linear", ridge=1, progress=False)
    command("eval", out, photos, "--json")
    expected = capsys.readouterr().out

    def refuse(*args: object, **options: object) -> DecodedImages:
        raise AssertionError("images are decoded before the model runs")

    monkeypatch.setattr(prediction, "decode_to_tempdir", refuse)
    command("eval", out, photos, "--json", "--loading", "stream", "--workers", "0")
    assert capsys.readouterr().out == expected
    monkeypatch.setattr("vpt.training.streaming.MEMORY_LIMIT", 1000)
    command("eval", out, photos, "--json", "--workers", "0")
    assert capsys.readouterr().out == expected
