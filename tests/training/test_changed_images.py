"""A finished run is reused only while its images are the same."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vpt import DataError, tune


def write(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for k, name in enumerate(("a", "b")):
        for i in range(5):
            write(tmp_path / "photos" / name / f"{i}.png", 10 * k + i)
    return tmp_path / "photos"


def run(photos: Path, **options: object) -> float:
    out = photos.parent / "photos.safetensors"
    result = tune(photos, out, method="linear", epochs=1, progress=False, **options)
    return Path(result.file).stat().st_mtime_ns


def test_tune_of_changed_images_is_refused(photos):
    run(photos)
    for change in (
        lambda: write(photos / "a/0.png", 99),
        lambda: write(photos / "a/new.png", 98),
        lambda: (photos / "b/1.png").unlink(),
        lambda: (photos / "b/2.png").rename(photos / "a/moved.png"),
    ):
        change()
        with pytest.raises(DataError, match=r"images of .* have changed"):
            run(photos)
        run(photos, overwrite=True)


def test_tune_of_files_written_again_reuses_the_result(photos):
    before = run(photos)
    for path in photos.rglob("*.png"):
        os.utime(path, (1, 1))
    assert run(photos) == before
    (photos / "README.md").write_text("not an image")
    assert run(photos) == before


def test_tune_of_a_table_with_changed_images_or_labels_is_refused(photos):
    names = [path.relative_to(photos).as_posix() for path in sorted(photos.rglob("*.png"))]
    table = photos.parent / "tables" / "labels.csv"
    table.parent.mkdir()
    lines = [f"../photos/{name},{name[0]}\n" for name in names]
    table.write_text("image,label\n" + "".join(lines))
    run(table)
    before = run(table)
    assert run(table) == before
    write(photos / "a/0.png", 99)
    with pytest.raises(DataError, match=r"images of .* have changed"):
        run(table)
    run(table, overwrite=True)
    table.write_text("image,label\n" + "".join([lines[0].replace(",a", ",b"), *lines[1:]]))
    with pytest.raises(DataError, match=r"images of .* have changed"):
        run(table)
