"""Images are decoded once, and again whenever anything about them has changed."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vpt.data.dataset import Split
from vpt.data.decoding import cache as decode_cache
from vpt.data.decoding.arrays import DecodedImages
from vpt.data.decoding.cache import decode_cached
from vpt.data.preprocessing import Preprocessing
from vpt.errors import DataError

SMALL = Preprocessing(size=8, interpolation="nearest")
COLORS = ((10, 20, 30), (200, 0, 0), (0, 250, 0))


@pytest.fixture
def split(tmp_path: Path) -> Split:
    paths = tuple(tmp_path / f"{i}.png" for i in range(len(COLORS)))
    for path, color in zip(paths, COLORS, strict=True):
        Image.new("RGB", (16, 16), color).save(path)
    return Split(paths, np.array([0, 1, 2]))


def decode(split: Split, folder: Path, preprocessing: Preprocessing = SMALL, **options: bool) -> DecodedImages:
    return decode_cached(split, preprocessing, cache_dir=folder / "kept", spill_dir=folder / "spill", **options)


def colors(pixels: DecodedImages) -> list[tuple[int, ...]]:
    assert isinstance(pixels.images, np.memmap)
    return [tuple(image[:, 0, 0].tolist()) for image in pixels.images]


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: object, **__: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(decode_cache, "decode", decode)


def test_decode_cached_a_second_time_reads_the_cache(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = decode(split, tmp_path)
    forbid_decoding(monkeypatch)
    again = decode(split, tmp_path)
    assert colors(first) == colors(again) == list(COLORS)
    assert again.labels.tolist() == [0, 1, 2] and again.names == split.names
    assert not again.images.flags.writeable
    other = decode(split, tmp_path, replace(SMALL, mean=(0.5, 0.5, 0.5)))  # the pixels do not depend on it
    assert colors(other) == list(COLORS)
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_decode_cached_of_changed_image_decodes_again(split: Split, tmp_path: Path) -> None:
    decode(split, tmp_path)
    path = split.images[1]
    assert isinstance(path, Path)
    size, then = path.stat().st_size, path.stat().st_mtime_ns
    Image.new("RGB", (16, 16), (201, 0, 0)).save(path)
    assert path.stat().st_size == size, "this test wants files of one size"
    os.utime(path, ns=(then + 1, then + 1))
    assert colors(decode(split, tmp_path))[1] == (201, 0, 0)


@pytest.mark.parametrize("change", [{"size": 10}, {"interpolation": "bilinear"}, {"resize": "crop"}])
def test_decode_cached_with_other_preprocessing_decodes_again(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, object]
) -> None:
    decode(split, tmp_path)
    forbid_decoding(monkeypatch)
    with pytest.raises(AssertionError, match="decoded again"):
        decode(split, tmp_path, replace(SMALL, **change))


@pytest.mark.parametrize("suffix", [".npy", ".json"])
@pytest.mark.parametrize("damage", [b"", b"nonsense"])
def test_decode_cached_with_damaged_entry_decodes_again(
    split: Split, tmp_path: Path, suffix: str, damage: bytes
) -> None:
    decode(split, tmp_path)
    (path,) = (tmp_path / "kept").glob(f"*{suffix}")
    path.write_bytes(damage)
    assert colors(decode(split, tmp_path)) == list(COLORS)


def test_decode_cached_with_skip_corrupt_keeps_the_dropped_names(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = split.images[0]
    assert isinstance(path, Path)
    path.write_bytes(b"no image")
    with pytest.raises(DataError, match="1 of 3 images cannot be used"):
        decode(split, tmp_path)
    assert not list((tmp_path / "kept").iterdir())
    first = decode(split, tmp_path, skip_corrupt=True)
    forbid_decoding(monkeypatch)
    again = decode(split, tmp_path, skip_corrupt=True)
    assert colors(first) == colors(again) == list(COLORS[1:])
    assert again.labels.tolist() == [1, 2] and again.dropped == first.dropped != ()


def test_decode_cached_in_parallel_threads_writes_one_entry(split: Split, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: decode(split, tmp_path), range(8)))
    assert [colors(pixels) for pixels in found] == [list(COLORS)] * 8
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_decode_cached_of_arrays_writes_no_entry(tmp_path: Path) -> None:
    arrays = Split(np.zeros((2, 16, 16, 3), dtype=np.uint8), np.array([0, 1]))
    assert len(decode(arrays, tmp_path)) == 2
    assert not (tmp_path / "kept").exists()
