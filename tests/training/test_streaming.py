"""Streamed images train to the same file as decoded ones, whatever the number of workers, and after a kill."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision.transforms.v2 import functional as tv

import vpt
from helpers.brightness import draw
from vpt.data.dataset import Split
from vpt.data.decoding.stream import StreamedImages
from vpt.data.preprocessing import Preprocessing
from vpt.errors import DataError, SpecError
from vpt.training import Callback, EpochMetrics
from vpt.training.batches import number_draws
from vpt.training.streaming import StreamAugmentation, choose_loading, stream_splits

FAST: dict[str, Any] = {"batch_size": 8, "epochs": 2, "seed": 3, "progress": False}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark and light PNG files of several sizes, one of them turned by its EXIF orientation."""
    root = tmp_path_factory.mktemp("photos")
    for index, (pixels, label) in enumerate(zip(*draw(20), strict=True)):
        path = root / ("dark", "light")[label] / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        image, exif = Image.fromarray(pixels).resize((50 + index, 60)), Image.Exif()
        exif[0x0112] = 6 if index == 4 else 1
        image.save(path, exif=exif)
    return root


class Screen(Callback):
    def __init__(self) -> None:
        self.first_line = ""

    def on_data(self, lines: Any) -> None:
        self.first_line = lines[0]


def tune(photos: Path, out: Path, **options: Any) -> bytes:
    vpt.tune(photos, out=out, **{**FAST, **options})
    return out.read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        {"method": "vpt(length=3)"},
        {"method": "linear"},
        {"method": "partial(k=1)"},
        {"method": "vpt(length=2, init=prototypes)", "resize": "crop"},
        {"method": "vpt(length=2)", "probe_epochs": 2, "grad_accum_steps": 3},
        {"method": "linear", "ridge": 1.0, "epochs": None, "batch_size": None},
    ],
    ids=str,
)
def test_tune_streaming_without_augmentation_writes_the_same_file(
    photos: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    decoded = tune(photos, tmp_path / "decoded.safetensors", loading="cache", **options)
    streamed = tune(photos, tmp_path / "streamed.safetensors", loading="stream", workers=2, **options)
    assert streamed == decoded


@pytest.mark.parametrize(
    ("method", "augment"),
    [("linear", "random_resized_crop"), ("vpt(length=3)", "random_crop + trivial_augment + mixup")],
)
def test_tune_streaming_with_any_number_of_workers_writes_the_same_file(
    photos: Path, tmp_path: Path, method: str, augment: str
) -> None:
    options = {"method": method, "augment": augment, "loading": "stream", "epochs": 1}
    files = [tune(photos, tmp_path / f"{n}.safetensors", workers=n, **options) for n in (0, 1, 2)]
    assert files[0] == files[1] == files[2]
    assert tune(photos, tmp_path / "other.safetensors", **options | {"seed": 4}) != files[0]


class Kill(Exception):
    pass


class KillAfter(Callback):
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_epoch(self, record: EpochMetrics) -> None:
        if record.epoch == self.epoch:
            raise Kill


def test_tune_streaming_resumed_equals_an_unbroken_run(photos: Path, tmp_path: Path) -> None:
    options = {"method": "vpt(length=3)", "augment": "random_resized_crop", "loading": "stream", "epochs": 3}
    unbroken = tune(photos, tmp_path / "unbroken.safetensors", workers=2, **options)
    resumed = tmp_path / "resumed.safetensors"
    with pytest.raises(Kill):
        tune(photos, resumed, workers=1, callback=KillAfter(2), **options)
    assert tune(photos, resumed, workers=0, **options) == unbroken


def test_tune_says_how_images_are_loaded_in_the_first_line(photos: Path, tmp_path: Path) -> None:
    screen = Screen()
    tune(photos, tmp_path / "a.safetensors", method="linear", callback=screen)
    assert screen.first_line.endswith("; decoded once (138.2 kB of pixels, and more than 4.29 GB are streamed)")
    tune(photos, tmp_path / "b.safetensors", method="linear", callback=screen, loading="stream", workers=1)
    assert screen.first_line.endswith(
        "; streamed by 1 worker (138.2 kB of pixels, and at most 4.29 GB are decoded once)"
    )


def test_choose_loading_streams_above_the_limit_unless_a_folder_keeps_images(tmp_path: Path) -> None:
    below, above = 2**32, 2**32 + 1  # bytes of decoded images
    assert not choose_loading("auto", below, None, 2)[0]
    assert choose_loading("auto", above, None, 2)[0]
    assert not choose_loading("auto", above, tmp_path, 2)[0]
    assert not choose_loading("cache", above, None, 2)[0]
    assert choose_loading("stream", 1, tmp_path, 2)[0]


@pytest.mark.parametrize(("option", "value"), [("loading", "streams"), ("workers", -1)])
def test_tune_refuses_loading_and_workers_out_of_range(photos: Path, tmp_path: Path, option: str, value: Any) -> None:
    with pytest.raises(SpecError, match=f"{option} is"):
        tune(photos, tmp_path / "a.safetensors", method="linear", **{option: value})


def test_search_refuses_streaming(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="loading is 'stream'"):
        vpt.tune(photos, out=tmp_path / "a.safetensors", minutes=1, loading="stream", progress=False)


def split_of(folder: Path, count: int = 5, size: tuple[int, int] = (60, 40)) -> Split:
    folder.mkdir(exist_ok=True)
    for index in range(count):
        noise = np.random.default_rng(index).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{index}.png")
    return Split(tuple(folder / f"{index}.png" for index in range(count)), np.arange(count) % 2)


SMALL = Preprocessing(size=16)


def stream(split: Split, folder: Path, **options: Any) -> Any:
    given = {"augment": "none", "workers": 0, "skip_corrupt": False, "callback": Callback(), **options}
    return stream_splits({"train": split, "test": split}, SMALL, folder=folder, **given)


def test_stream_splits_names_every_fault_of_every_split(tmp_path: Path) -> None:
    split = split_of(tmp_path / "images")
    for index in (1, 3):
        (tmp_path / "images" / f"{index}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"(?s)train: 2 of 5 .*1\.png.*3\.png.*test: 2 of 5"):
        stream(split, tmp_path)


def test_stream_splits_without_the_corrupt_ones_keeps_the_others(tmp_path: Path) -> None:
    split = split_of(tmp_path / "images")
    whole = stream(split, tmp_path)[0]["train"].pixels
    (tmp_path / "images" / "1.png").write_bytes(b"no image")
    splits, notes = stream(split, tmp_path, skip_corrupt=True, workers=1)
    assert [note for note in notes if "left out" in note and "1.png" in note] == notes and len(notes) == 2
    for examples in splits.values():
        assert examples.labels.tolist() == [0, 0, 1, 0]
        assert np.array_equal(examples.pixels[:], whole[[0, 2, 3, 4]])


@pytest.mark.parametrize("size", [(600, 300), (300, 600), (333, 250)])
def test_random_crops_of_a_stream_equal_torchvisions_resized_crop_of_the_whole_image(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    image, boxes = Image.fromarray(noise), []
    preprocessing = Preprocessing(size=64, resize="crop")
    resize_box = Preprocessing.resize_box

    class Recorder(Preprocessing):
        def resize_box(self, image: Image.Image, side: int, corner: Any, sides: Any) -> Any:
            boxes.append((side, *corner, *sides))
            return resize_box(self, image, side, corner, sides)

    augment = StreamAugmentation("random_resized_crop", Recorder(**preprocessing.to_dict()))
    for seed in range(50):
        found = augment(image, np.random.default_rng(seed)).astype(int)
        side, *box = boxes[-1]
        factor = min(size) / side
        expected = tv.resized_crop(image, *(round(length * factor) for length in box), [64, 64])
        wanted = np.asarray(expected).transpose(2, 0, 1).astype(int)
        assert (
            min(np.abs(view - wanted).mean() for view in (found, found[..., ::-1])) < 12
        )  # boxes are rounded to pixels
    starts = np.array(boxes)[:, 1:3]
    long = 1 if size[0] > size[1] else 0
    ends = starts[:, long] + np.array(boxes)[:, 3 + long]
    assert starts[:, long].min() < 10 and ends.max() > max(size) * boxes[0][0] / min(size) - 10


def test_tune_streaming_shards_equals_tuning_their_images(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "train.tar", "w") as shard:
        for path in sorted(photos.glob("*/*.png")):
            name = path.relative_to(photos).as_posix()
            shard.add(path, name)
            label = tarfile.TarInfo(name.replace(".png", ".cls"))
            label.size = len(path.parent.name)
            shard.addfile(label, io.BytesIO(path.parent.name.encode()))
    options = {**FAST, "method": "vpt(length=3)", "val_fraction": 0.0, "test_fraction": 0.0}
    vpt.tune(photos, out=tmp_path / "a.safetensors", loading="cache", **options)
    vpt.tune(tmp_path / "shards", out=tmp_path / "b.safetensors", loading="stream", workers=2, **options)
    first, second = (load_file(tmp_path / f"{name}.safetensors") for name in "ab")
    assert all(torch.equal(second[name], tensor) for name, tensor in first.items())


def test_tune_streaming_rows_of_hugging_face_equals_decoding_them(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    pixels, labels = draw(20)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["dark", "light"])})
    images = [Image.fromarray(image) for image in pixels]
    rows = datasets.Dataset.from_dict({"image": images, "label": labels.tolist()}, features=features)
    options = {**FAST, "method": "vpt(length=3)"}
    named = (pixels, [["dark", "light"][label] for label in labels])
    files = []
    for number, (data, loading) in enumerate(((named, "cache"), (rows, "cache"), (rows, "stream"))):
        out = tmp_path / f"{number}.safetensors"
        vpt.tune(data, out=out, loading=loading, **options)
        files.append(load_file(out))
    for found in files[1:]:
        assert all(torch.equal(found[name], tensor) for name, tensor in files[0].items())
    undecoded = rows.cast_column("image", datasets.Image(decode=False))
    vpt.tune(undecoded, out=tmp_path / "raw.safetensors", loading="stream", workers=1, **options)
    assert all(torch.equal(load_file(tmp_path / "raw.safetensors")[name], files[0][name]) for name in files[0])


def test_number_draws_tells_the_draws_of_an_image_apart() -> None:
    order = np.array([2, 0, 2, 1, 2, 0])
    assert number_draws(order, 3).tolist() == [2, 0, 5, 1, 8, 3]
    assert (number_draws(order, 3) % 3).tolist() == order.tolist()
    assert number_draws(np.arange(4), 4).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("workers", [0, 1])
def test_image_that_is_drawn_again_in_an_epoch_has_another_crop(photos: Path, tmp_path: Path, workers: int) -> None:
    paths, preprocessing = tuple(sorted(photos.rglob("*.png"))), Preprocessing(size=16)
    splits, _ = stream_splits(
        {"train": Split(paths, np.zeros(len(paths), np.int64))}, preprocessing, "random_resized_crop", workers=workers,
        folder=tmp_path, skip_corrupt=False, callback=Callback(),
    )  # fmt: skip
    images, n = splits["train"].pixels, len(paths)
    assert isinstance(images, StreamedImages)
    batches = [np.array([0, n, 1]), np.array([2 * n, 2])]  # the first image three times
    images.plan(batches, (3, 0))
    found = [images.load(indices, (3, 0)) for indices in batches]
    again = [images.load(indices, (3, 0)) for indices in batches]  # not announced: decoded here, alike
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))
    draws = [found[0][0], found[0][1], found[1][0]]
    assert not any(np.array_equal(draws[a], draws[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    assert np.array_equal(images.load(np.array([0]), (3, 0))[0], draws[0])
    assert all(np.array_equal(images.load(np.array([k * n]))[0], images[0]) for k in range(3))  # without augmentation


def test_tune_streaming_with_balanced_sampling_equals_decoding_without_crops(photos: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"method": "vpt(length=2)", "balanced_sampling": True}
    decoded, streamed = (
        tune(photos, tmp_path / f"{loading}.safetensors", loading=loading, **options, **extra)
        for loading, extra in (("cache", {}), ("stream", {"workers": 1}))
    )
    assert decoded == streamed
