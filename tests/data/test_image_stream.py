"""Batches of a stream are decoded in advance, and depend on what is asked for alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vpt.data.dataset import Split
from vpt.data.decoding.batches import CHUNK, BatchRequest
from vpt.data.decoding.stream import ImageLoader, StreamedImages
from vpt.data.preprocessing import Preprocessing
from vpt.errors import DataError

SMALL = Preprocessing(size=16)


@pytest.fixture
def split(tmp_path: Path) -> Split:
    """Five PNG files of noise."""
    paths = tuple(tmp_path / f"{index}.png" for index in range(5))
    for index, path in enumerate(paths):
        noise = np.random.default_rng(index).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    return Split(paths, np.arange(5) % 2)


def test_streamed_images_of_a_file_that_changes_later_name_it(split: Split, tmp_path: Path) -> None:
    loader = ImageLoader([split.images], SMALL, workers=1)
    images = StreamedImages(loader, np.arange(5), split.names, b"", tmp_path)
    images.plan([np.array([0, 1])])
    (tmp_path / "3.png").unlink()
    assert images.load(np.array([0, 1])).shape == (2, 3, 16, 16)
    with pytest.raises(DataError, match=r"3\.png: no such file; it was sound"):
        images.load(np.array([2, 3]))


@pytest.mark.parametrize("workers", [0, 2])
def test_image_loader_returns_other_batches_than_announced(split: Split, workers: int) -> None:
    loader = ImageLoader([split.images], SMALL, workers=workers)
    announced = [BatchRequest(np.arange(start, min(5, start + 2))) for start in (0, 2, 4)]
    loader.plan(announced)
    other = loader.load(BatchRequest(np.array([4, 0]))).pixels
    found = [loader.load(request).pixels for request in announced]
    assert np.array_equal(np.concatenate(found)[[4, 0]], other)
    loader.plan(announced[:2])  # what is announced and never loaded is dropped
    loader.plan(announced[2:])
    assert np.array_equal(loader.load(announced[2]).pixels, found[2])


def test_image_loader_with_workers_returns_batches_of_several_chunks_as_without(tmp_path: Path) -> None:
    count = 2 * CHUNK + 5
    for index in range(count):
        noise = np.random.default_rng(index).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{index}.png")
    for broken in (3, CHUNK + 2, count - 1):
        (tmp_path / f"{broken}.png").write_bytes(b"no image")
    frames = [Image.new("RGB", (20, 20), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / f"{CHUNK}.png", save_all=True, append_images=frames[1:])  # which has a note
    paths = tuple(tmp_path / f"{index}.png" for index in range(count))
    batches = [np.arange(count), np.arange(count)[::-1], np.arange(4)] * 3  # more chunks than have memory
    found = []
    for workers in (0, 2):
        loader = ImageLoader([paths], SMALL, workers=workers)
        loader.plan([BatchRequest(batch) for batch in batches])
        found.append([loader.load(BatchRequest(batch)) for batch in batches])
    for alone, together in zip(*found, strict=True):
        assert np.array_equal(alone.pixels, together.pixels)
        assert alone.notes == together.notes and alone.faults == together.faults
    assert sorted(found[1][0].faults) == [3, CHUNK + 2, count - 1] and list(found[1][0].notes) == [CHUNK]
    assert not found[1][1].pixels[0].any()  # unusable, in memory that held another image


def test_image_loader_of_several_sources_counts_through_them(split: Split) -> None:
    first, none, rest = split.select(np.array([0, 1])), Split(), split.select(np.array([2, 3, 4]))
    arrays = np.stack([np.asarray(Image.open(str(path))) for path in rest.images])
    loader = ImageLoader([first.images, none.images, arrays], SMALL)
    expected = ImageLoader([split.images], SMALL)
    for position in range(5):
        request = BatchRequest(np.array([position]))
        assert np.array_equal(loader.load(request).pixels, expected.load(request).pixels)
