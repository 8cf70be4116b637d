"""What is kept and needed of each image before any is decoded, so that folders of any size fit."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from vpt.data.decoding.batches import BatchDecoder
from vpt.data.folders.walk import stamp_files, walk_images
from vpt.data.loading import load_dataset
from vpt.data.preprocessing import Preprocessing
from vpt.data.task_detection import detect_task
from vpt.data.training_marks import make_marks

FEW, MANY = 200, 1000


def draw(root: Path, count: int) -> Path:
    """Files of the size of others, in two classes."""
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
    for number in range(count):
        (root / ("cat", "dog")[number % 2] / f"{number:06}.png").write_bytes(b"%04d" % number)
    return root


def load_streamed(root: Path) -> object:
    dataset = load_dataset(root)
    decoder = BatchDecoder([split.images for split in dataset.splits.values()], Preprocessing(size=16), None)
    return dataset, decoder, make_marks(dataset.train.images)


@pytest.mark.parametrize(
    ("step", "kept", "peak"),
    [(detect_task, 5, 300), (stamp_files, 5, 250), (load_streamed, 200, 450)],
    ids=["detect", "stamp", "load"],
)
def test_data_folder_takes_few_bytes_for_each_image(
    tmp_path: Path, step: Callable[[Path], object], kept: int, peak: int
) -> None:
    found = []
    for count in (FEW, MANY):
        root = draw(tmp_path / str(count), count)
        step(root)  # what is made once
        tracemalloc.start()
        try:
            result = step(root)
            found.append(tracemalloc.get_traced_memory())
        finally:
            tracemalloc.stop()
        del result
    growth = [(large - small) / (MANY - FEW) for small, large in zip(*found, strict=True)]
    assert growth[0] <= kept and growth[1] <= peak, growth


def test_walk_images_sorts_as_path_objects(tmp_path: Path) -> None:
    names = ("a/b.png", "a-x/c.png", "a.png", "a/b-1/d.png", "a/b 1.png", "é.png", "B.png", "a0.png")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list(walk_images(tmp_path)) == sorted(tmp_path / name for name in names)
