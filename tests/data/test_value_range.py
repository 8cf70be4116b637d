"""Images that use a small share of the range of their type: noticed, and read by a range of values."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from helpers.brightness import ColumnDataset
from vpt import evaluate, inspect, load, predict
from vpt.data.dataset import Split
from vpt.data.decoding.cache import decode_cached
from vpt.data.decoding.value_checks import value_range_notes
from vpt.data.folders.shards import TarImage
from vpt.data.images.files import UnreadableImageError, open_rgb
from vpt.data.images.inputs import read_image
from vpt.data.images.value_range import parse_value_range
from vpt.data.masks.dataset import load_segmentation_dataset
from vpt.data.masks.files import load_pair
from vpt.data.memory.datasets import dataset_from_memory
from vpt.data.preprocessing import Preprocessing
from vpt.errors import SpecError
from vpt.serving.bank import Bank
from vpt.serving.server import _prepare
from vpt.tuning import make_job, run_job

TWELVE_BITS = np.array([0, 2048, 4095, 4095], np.uint16).repeat(4).reshape(2, 8).repeat(4, axis=0)  # 8 x 8


def write(path: Path, values: NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def levels(image: Image.Image) -> list[int]:
    return sorted(set(np.asarray(image).flatten().tolist()))


def test_open_rgb_with_twelve_bits_reads_them_by_the_range(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", TWELVE_BITS)
    assert levels(open_rgb(path)[0]) == [0, 8, 16]
    for form in (
        path,
        path.read_bytes(),
        Image.open(path),
        TWELVE_BITS,
        torch.from_numpy(TWELVE_BITS.astype(np.int32)),
    ):
        assert levels(read_image(form, (0, 4095))[0]) == [0, 128, 255]
    assert levels(read_image(path, (1024, 2048))[0]) == [0, 255]  # values outside are black or white


def test_open_rgb_with_negative_values_names_the_option_that_reads_them(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tiff", TWELVE_BITS.astype(np.int32) - 1024)
    with pytest.raises(UnreadableImageError, match=r"pixels from -1024 to 3071, .* --value-range LOW,HIGH"):
        open_rgb(path)
    assert levels(open_rgb(path, parse_value_range("-1024,3071"))[0]) == [0, 128, 255]
    floats = write(tmp_path / "b.tiff", TWELVE_BITS.astype(np.float32) / 40950)
    assert levels(open_rgb(floats)[0]) == [0, 13, 26]
    assert levels(open_rgb(floats, (0, 0.1))[0]) == [0, 128, 255]


def test_open_rgb_of_eight_bits_with_a_range_changes_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", np.full((8, 8), 77, np.uint8))
    assert levels(open_rgb(path, (0, 4095))[0]) == levels(read_image(np.full((8, 8), 77, np.uint8), (0, 10))[0]) == [77]


@pytest.mark.parametrize(
    ("values", "fitting"),
    [
        (TWELVE_BITS, "0,4095"),
        (TWELVE_BITS - (TWELVE_BITS > 0), "0,4095"),
        (TWELVE_BITS // 16, "0,255"),
        (TWELVE_BITS * 4, "0,16383"),
        (TWELVE_BITS + 30000, "30000,34095"),
        (TWELVE_BITS.astype(np.float32) / 40950, "0,0.1"),
        (TWELVE_BITS * 8, None),
        (TWELVE_BITS * 16, None),
        (TWELVE_BITS.astype(np.float32) / 4095, None),
        (np.full((8, 8), 3, np.uint8), None),
    ],
)
def test_value_range_notes_of_deep_images_name_the_fitting_range(
    values: NDArray[Any], fitting: str | None, tmp_path: Path
) -> None:
    suffix = "tiff" if values.dtype.kind == "f" else "png"
    paths = [write(tmp_path / f"{i}.{suffix}", values) for i in range(3)]
    paths += [write(tmp_path / "photo.jpg", np.zeros((9, 9, 3), np.uint8)), tmp_path / "missing.png"]
    notes = value_range_notes(paths)
    assert [f"--value-range {fitting} reads" in note for note in notes] == [True] * (fitting is not None)
    if fitting is not None:
        assert value_range_notes(paths, parse_value_range(fitting)) == ()


def test_value_range_notes_look_into_every_form_of_image(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", TWELVE_BITS)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(path, "a.png")
    with tarfile.open(tmp_path / "a.tar") as tar:
        (member,) = tar.getmembers()
    in_shard = TarImage(tmp_path / "a.tar", member.offset_data, member.size)
    rows = ColumnDataset(TWELVE_BITS[None], np.zeros(1, np.int64), None)
    row = dataset_from_memory({"val": rows}).val.images[0]
    for form in (path, str(path), path.read_bytes(), Image.open(path), in_shard, row):
        assert ["--value-range 0,4095 reads" in note for note in value_range_notes([form])] == [True], form


def test_value_range_notes_of_a_float_tiff_that_pillow_cannot_open(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile", reason="the extra deep is not installed")
    tifffile.imwrite(tmp_path / "a.tif", TWELVE_BITS / 40950)
    tifffile.imwrite(tmp_path / "b.tif", np.full((8, 8, 3), 0.05, np.float32), photometric="rgb")
    (note,) = value_range_notes([tmp_path / "a.tif", tmp_path / "b.tif"])
    assert "--value-range 0,0.1 reads" in note


def test_value_range_notes_with_a_range_that_is_too_wide_name_a_smaller_one(tmp_path: Path) -> None:
    (note,) = value_range_notes([write(tmp_path / "a.png", TWELVE_BITS)], (0, 32767))
    assert "from 0 to 4095, and black to white is 0 to 32767" in note


@pytest.mark.parametrize("text", ["4095", "0,4095,1", "0;4095", "a,b", "4095,0", "0,0", "0,inf", "nan,1"])
def test_make_job_with_an_unreadable_value_range_raises(text: str) -> None:
    with pytest.raises(SpecError, match=f"value range {text!r} .* write LOW,HIGH: 0,4095"):
        make_job("digits", "x.safetensors", value_range=text)


def test_preprocessing_of_earlier_files_has_no_value_range() -> None:
    plain, ranged = Preprocessing(), Preprocessing(value_range=(0, 4095))
    assert "value_range" not in plain.to_dict()
    assert Preprocessing.from_dict(plain.to_dict()) == plain
    assert Preprocessing.from_dict({**ranged.to_dict(), "value_range": [0, 4095]}) == ranged


def test_decode_cached_with_another_range_decodes_anew(tmp_path: Path) -> None:
    paths = (write(tmp_path / "a.png", TWELVE_BITS),)
    split, dirs = Split(paths, np.zeros(1, np.int64)), {"cache_dir": tmp_path / "cache", "spill_dir": tmp_path}
    for value_range, white in ((None, 16), ((0.0, 4095.0), 255)):
        preprocessing = Preprocessing(size=8, interpolation="nearest", value_range=value_range)
        assert decode_cached(split, preprocessing, **dirs).images.max() == white


def test_job_with_value_range_is_read_alike_by_each_reader(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, offset in (("dim", 0), ("lit", 2500)):
        for i in range(10):
            write(tmp_path / "data" / name / f"{i}.png", (rng.integers(0, 1500, (48, 48)) + offset).astype(np.uint16))
    options = {"epochs": 1, "method": "linear", "test_fraction": 0.5}
    plain = run_job(make_job(tmp_path / "data", tmp_path / "plain.safetensors", **options), draw=False)
    assert any("--value-range 0,4095 reads" in note for note in plain.notes)
    job = make_job(tmp_path / "data", tmp_path / "deep.safetensors", value_range="0,4095", **options)
    result = run_job(job, draw=False)
    assert not any("--value-range" in note for note in result.notes)
    assert inspect(job.out).preprocessing.value_range == (0, 4095)
    assert "value_range" not in inspect(tmp_path / "plain.safetensors").preprocessing.to_dict()

    path = tmp_path / "data/lit/0.png"
    values = np.asarray(Image.open(path)).astype(np.float64)
    by_hand = Image.fromarray(np.rint(values * 255 / 4095).astype(np.uint8)).convert("RGB")
    model = load(job.out).eval()
    inputs = model.backbone.transform()(by_hand)
    assert torch.equal(model.backbone.transform()(Image.open(path)), inputs)
    with torch.no_grad():
        top = dict(zip(model.classes or (), model(inputs[None]).softmax(1)[0].tolist(), strict=True))
    assert dict(predict(job.out, path).top) == pytest.approx(top, abs=1e-5)
    bank = Bank([job.out])
    (served,) = bank.predict([_prepare(bank, "deep", path.read_bytes())[1]])
    assert dict(served.top) == pytest.approx(top, abs=1e-5)
    assert evaluate(job.out, tmp_path / "data").metrics == pytest.approx(result.eval_metrics)


def test_segmentation_with_value_range_reads_images_by_it(tmp_path: Path) -> None:
    mask = (np.indices((48, 48))[1] >= 24).astype(np.uint8)
    for i in range(6):
        write(tmp_path / f"data/images/{i}.png", np.where(mask, 4095, 100 * i).astype(np.uint16))
        write(tmp_path / f"data/masks/{i}.png", mask)
    plain, deep = (load_segmentation_dataset(tmp_path / "data", value_range=given) for given in (None, (0, 4095)))
    assert [any("--value-range 0,4095" in note for note in dataset.notes) for dataset in (plain, deep)] == [True, False]
    assert load_pair(deep.splits["train"], 0, deep.lookup_table, value_range=deep.value_range)[0].max() == 255

    options = {"value_range": "0,4095", "method": "linear", "head": "linear", "iterations": 2, "batch_size": 2}
    job = make_job(tmp_path / "data", tmp_path / "scenes.safetensors", **options)
    result = run_job(job, draw=False)
    model = load(job.out)
    assert model.backbone.preprocessing.value_range == (0, 4095)
    bright = Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).convert("RGB")
    path = tmp_path / "data/images/0.png"
    assert predict(model, path).top == predict(model, bright).top
    bank = Bank([job.out])
    image, _ = _prepare(bank, "scenes", path.read_bytes())
    assert image is not None and image.tobytes() == bright.tobytes()
    scores = evaluate(job.out, tmp_path / "data", split="val")
    assert scores.metrics == pytest.approx(result.eval_metrics)
