"""Copies of training files in other splits are named; nothing else is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from vpt.data.copies import describe_copies
from vpt.data.dataset import Split
from vpt.data.loading import load_dataset
from vpt.data.overview import check_folder


def write(folder: Path, names: list[str], seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for name in names:
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(folder / name)


def test_describe_copies_of_training_files(tmp_path: Path) -> None:
    for seed, split in enumerate(("train", "val", "test")):
        for kind in ("cat", "dog"):
            write(tmp_path / split / kind, ["0.bmp", "1.bmp"], 2 * seed + (kind == "dog"))  # files of equal size
    assert describe_copies(load_dataset(tmp_path).splits) == ()
    (tmp_path / "test/cat/0.bmp").write_bytes((tmp_path / "train/cat/1.bmp").read_bytes())
    (note,) = describe_copies(load_dataset(tmp_path).splits)
    assert note == (
        "1 image of test is a copy of training images, such as test/cat/0.bmp of train/cat/1.bmp: the score there is "
        "optimistic; remove one of both"
    )
    assert f"odd: {note}" in check_folder(tmp_path).lines()
    (tmp_path / "test/dog/0.bmp").write_bytes((tmp_path / "train/dog/0.bmp").read_bytes()[:-1] + b"x")  # the last byte
    assert describe_copies(load_dataset(tmp_path).splits) == (note,)
    (tmp_path / "val/dog/1.bmp").write_bytes((tmp_path / "train/dog/1.bmp").read_bytes())
    assert [text.partition(",")[0] for text in describe_copies(load_dataset(tmp_path).splits)] == [
        "1 image of val is a copy of training images", "1 image of test is a copy of training images",
    ]  # fmt: skip


def test_describe_copies_of_arrays_and_absent_files_is_empty(tmp_path: Path) -> None:
    arrays = Split(np.zeros((2, 8, 8, 3), np.uint8), np.array([0, 1]))
    assert describe_copies({"train": arrays, "test": arrays}) == ()
    absent = Split.of_files(tmp_path, ["a.png"], [0])
    assert describe_copies({"train": absent, "test": absent}) == ()
