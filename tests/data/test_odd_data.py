"""Data of forms that nobody tried: images beside splits, names that occur twice, files that are decoded late."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vpt
from vpt import attach
from vpt.data.loading import load_dataset
from vpt.data.memory.datasets import dataset_from_memory
from vpt.errors import DataError, SpecError
from vpt.tasks.registry import find_task

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(PIXELS[len(str(path)) % 6]).save(path)


def test_images_beside_splits_of_a_class_are_refused(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for split in ("train", "test"):
            for number in range(3):
                write(tmp_path / name / split / f"{number}.png")
    (tmp_path / "cat" / "notes.txt").touch()
    assert load_dataset(tmp_path).ignored == ("cat/notes.txt",)
    write(tmp_path / "cat" / "more" / "0.png")
    with pytest.raises(DataError, match="cat holds more beside test, train, and images there are of no split"):
        load_dataset(tmp_path)
    (tmp_path / "cat" / "more" / "0.png").rename(tmp_path / "cat" / "0.png")
    with pytest.raises(DataError, match=r"cat holds 0\.png beside test, train"):
        load_dataset(tmp_path)


def test_class_without_training_images_beside_its_splits_is_refused(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for split in ("train", "test"):
            write(tmp_path / name / split / "0.png")
    (tmp_path / "bird" / "train").mkdir(parents=True)
    with pytest.raises(DataError, match="train holds no image; add some, or remove the class 'bird'"):
        load_dataset(tmp_path)


def test_names_of_classes_that_occur_twice_are_refused() -> None:
    with pytest.raises(DataError, match="several classes have the name 'a'; give each its own"):
        dataset_from_memory({"train": (PIXELS, [0, 1, 2, 0, 1, 2])}, classes=["a", "b", "a"])
    with pytest.raises(SpecError, match="several classes have the name 'a'; give each its own"):
        attach("vit_nano_patch12_48", "linear", 2, classes=("a", "a"))


def damaged() -> Image.Image:
    """An image whose file ends early, which shows when it is decoded."""
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(content, "PNG")
    return Image.open(io.BytesIO(content.getvalue()[:2000]))


def test_images_that_are_decoded_late_are_left_out_or_named() -> None:
    model = attach("vit_nano_patch12_48", "linear", 2).eval()
    whole = Image.fromarray(PIXELS[0])
    assert len(vpt.predict(model, [damaged(), whole], skip_corrupt=True)) == 1
    with pytest.raises(DataError, match="truncated"):
        vpt.predict(model, [damaged(), whole])
    assert dataset_from_memory({"train": ([damaged(), whole], [0, 1])}).digest


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((PIXELS, None), "train has no labels: they are None"),
        (
            SimpleNamespace(iloc=None),
            r"pandas says not which columns are images and labels; give \(df",
        ),
        (SimpleNamespace(column_names=["image", "label"], features={}), "the dataset is streamed"),
    ],
)
def test_data_of_other_kinds_are_refused(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        dataset_from_memory({"train": data})


def test_arrays_of_paths_are_read(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(2)]
    for path in paths:
        write(path)
    for kind in (str, object):
        dataset = dataset_from_memory({"train": (np.array(list(map(str, paths)), kind), [0, 1])})
        assert len(dataset.train) == 2


def test_no_images_have_no_predictions() -> None:
    model = attach("vit_nano_patch12_48", "linear", 2).eval()
    assert vpt.predict(model, []) == [] and vpt.predict(model, PIXELS[:0]) == []


def test_many_tables_are_no_name_of_a_file() -> None:
    tables = ",".join(f"labels_of_site_{number:02}.csv" for number in range(20))
    assert find_task("auto", tables).name == "classification"
    with pytest.raises(DataError, match="names several files, of which these are no tables that exist"):
        load_dataset(tables)


def test_embedding_does_not_replace_a_table_of_labels(tmp_path: Path) -> None:
    for number in range(6):
        write(tmp_path / f"{number}.png")
    rows = "".join(f"{number}.png,{'ab'[number % 2]}\n" for number in range(6))
    (tmp_path / "labels.csv").write_text(f"image,label\n{rows}")
    model = attach("vit_nano_patch12_48", "linear", 2, classes=("a", "b")).eval()
    with pytest.raises(SpecError, match=r"labels\.csv would be written, and .*labels\.csv is read from"):
        vpt.embed(model, tmp_path, out=tmp_path / "labels.png")
    with pytest.raises(SpecError, match=r"labels\.csv would be written"):
        vpt.embed_to_file(model, tmp_path, tmp_path / "labels.csv")
    assert (tmp_path / "labels.csv").read_text().startswith("image,label\n")
