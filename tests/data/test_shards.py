"""Shards hold what webdataset reads from them, and nothing but images and labels is decoded."""

from __future__ import annotations

import gc
import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.brightness import draw, encoded
from vpt.core.input_files import OUTSIDE_VARIABLE
from vpt.data.folders.shards import find_shards, read_shards
from vpt.data.images.inputs import read_image
from vpt.data.loading import load_dataset, load_scored_dataset
from vpt.data.overview import check_folder
from vpt.data.training_marks import has_marked, make_marks
from vpt.errors import DataError

SAMPLES = list(zip(*draw(12), strict=True))


def write_shard(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def members(first: int, last: int, kind: str = "cls") -> dict[str, bytes]:
    found = {}
    for index in range(first, last):
        pixels, label = SAMPLES[index]
        found[f"pictures/{index:04}.png"] = encoded(pixels)
        text = str(label) if kind == "cls" else json.dumps({"label": ["dark", "light"][label], "id": index})
        found[f"pictures/{index:04}.{kind}"] = text.encode()
    return found


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two shards of train, and one each of val and test."""
    for name, (first, last) in {"train-0": (0, 4), "train-1": (4, 8), "val-0": (8, 10), "test-0": (10, 12)}.items():
        write_shard(tmp_path / "shards" / f"{name}.tar", members(first, last))
    return tmp_path / "shards"


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # of webdataset
def test_read_shards_equals_the_reader_of_webdataset(shards: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    dataset = load_dataset(shards)
    assert dataset.classes == ("0", "1") and dataset.name == "shards"
    for name, split in dataset.splits.items():
        files = sorted(map(str, shards.glob(f"{name}-*.tar")))
        reference = webdataset.WebDataset(files, shardshuffle=False, empty_check=False).decode("rgb8")
        expected = list(reference.to_tuple("png", "cls"))
        del reference
        gc.collect()
        assert split.labels.tolist() == [label for _, label in expected]
        found = [np.asarray(read_image(image)[0]) for image in split.images]
        assert len(found) == len(expected)
        assert all(np.array_equal(own, other) for own, (other, _) in zip(found, expected, strict=True))


def test_read_shards_with_names_in_json_and_folders_of_splits(tmp_path: Path) -> None:
    write_shard(tmp_path / "train" / "0.tar", {**members(0, 4, "json"), "pictures/0000.npy": b"?", "README": b"?"})
    write_shard(tmp_path / "valid" / "0.tar", members(4, 8, "json"))
    dataset = read_shards(tmp_path)
    assert dataset.classes == ("dark", "light")
    assert [len(split) for split in dataset.splits.values()] == [4, 4, 0]
    assert dataset.train.names[0] == "0.tar/pictures/0000"
    assert dataset.ignored == ("1 member *.npy",)


def test_read_shards_without_names_of_splits_splits_them_off(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "animals.tar", members(0, 12))
    assert [len(split) for split in load_dataset(shard).splits.values()] == [8, 2, 2]
    scored = load_scored_dataset(shard, "test", trained_on=["1:0"])
    assert [len(split) for split in scored.splits.values()] == [0, 0, 12]


@pytest.mark.parametrize("kind", ["pyd", "pickle", "pkl", "label.PYD", "pth"])
def test_read_shards_with_a_pickle_refuses_it_by_name(tmp_path: Path, kind: str) -> None:
    write_shard(tmp_path / "train.tar", {**members(0, 4), f"pictures/0000.{kind}": pickle.dumps({"label": 1})})
    with pytest.raises(DataError, match=rf"train\.tar holds pictures/0000\.{kind}, a pickle"):
        read_shards(tmp_path)


def test_read_shards_names_every_fault(tmp_path: Path) -> None:
    samples = members(0, 4)
    del samples["pictures/0001.cls"]
    samples["pictures/0002.cls"] = b"\xff"
    samples["pictures/0003.jpg"] = samples["pictures/0003.png"]
    write_shard(tmp_path / "train-0.tar", samples)
    (tmp_path / "train-1.tar").write_bytes(b"\x1f\x8b no tar file")
    with pytest.raises(DataError) as caught:
        read_shards(tmp_path)
    for words in ("0001 has an image and no label", "0002.cls holds no label", "0003 has two images", "train-1.tar"):
        assert words in str(caught.value)


def test_read_shards_with_some_names_of_splits_names_the_others(tmp_path: Path) -> None:
    for name in ("train", "part"):
        write_shard(tmp_path / f"{name}.tar", members(0, 4))
    with pytest.raises(DataError, match=r"part\.tar name no split"):
        read_shards(tmp_path)


@pytest.mark.parametrize("folder", ["dark", "train/dark"])
def test_find_shards_beside_folders_of_images_finds_none(tmp_path: Path, folder: str) -> None:
    write_shard(tmp_path / "backup.tar", members(0, 4))
    (tmp_path / folder).mkdir(parents=True)
    Image.fromarray(SAMPLES[0][0]).save(tmp_path / folder / "0.png")
    assert find_shards(tmp_path) == []


def test_load_dataset_of_a_table_beside_a_tar_file_reads_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(OUTSIDE_VARIABLE, "1")
    write_shard(tmp_path / "data" / "backup.tar", members(0, 4))
    lines = ["image,label\n"]
    for index, (pixels, label) in enumerate(SAMPLES):
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
        lines.append(f"../{index}.png,class {label}\n")
    (tmp_path / "data" / "labels.csv").write_text("".join(lines))
    assert load_dataset(tmp_path / "data").classes == ("class 0", "class 1")


def test_read_shards_of_dev_and_eval_are_val_and_test(tmp_path: Path) -> None:
    for name, (first, last) in {"train-0": (0, 6), "dev-0": (6, 8), "eval-0": (8, 12)}.items():
        write_shard(tmp_path / f"{name}.tar", members(first, last))
    assert [len(split) for split in read_shards(tmp_path).splits.values()] == [6, 2, 4]


def test_read_shards_of_test_alone_are_scored_and_not_learned(tmp_path: Path) -> None:
    write_shard(tmp_path / "test-0.tar", members(0, 4))
    scored = load_scored_dataset(tmp_path, "test", trained_on=["1:0"])
    assert [len(split) for split in scored.splits.values()] == [0, 0, 4]
    with pytest.raises(DataError, match=r"no shard of train with an image, only of test; add one"):
        read_shards(tmp_path)


def test_read_shards_counts_links(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "train.tar", members(0, 4))
    with tarfile.open(shard, "a") as tar:
        link = tarfile.TarInfo("pictures/0009.png")
        link.type, link.linkname = tarfile.LNKTYPE, "pictures/0000.png"
        tar.addfile(link)
    dataset = read_shards(tmp_path)
    assert len(dataset.train) == 4 and dataset.ignored == ("1 member *.png (a link)",)


def test_read_shards_with_a_label_of_thousands_of_digits_refuses_it(tmp_path: Path) -> None:
    write_shard(tmp_path / "train.tar", {**members(0, 4), "pictures/0001.cls": b"1" * 5000})
    with pytest.raises(DataError, match=r"0001\.cls holds no label"):
        read_shards(tmp_path)


def test_marks_of_shards_are_those_of_their_files(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "shards" / "0.tar", members(0, 12))
    trained = load_dataset(shard.parent)
    marks = make_marks(trained.train.images)
    assert len(marks) == len(trained.train)
    folder = tmp_path / "extracted"
    for index, (pixels, label) in enumerate(SAMPLES):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        (folder / str(label) / f"{index}.png").write_bytes(encoded(pixels))
    assert has_marked(sorted(folder.rglob("*.png")), marks)


def test_shards_of_the_training_are_scored_on_the_images_that_did_not_train(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "shards" / "0.tar", members(0, 12))
    trained = load_dataset(shard.parent, seed=4)
    marks = make_marks(trained.train.images)
    again = load_scored_dataset(shard.parent, "test", trained_on=marks, seed=4)
    assert again.test.names == trained.test.names and len(again.test) == 2
    notes: list[str] = []
    others = {name.replace("00", "99"): content for name, content in members(8, 12).items()}
    for index in range(8, 12):  # other images than those of the training
        others[f"pictures/99{index:02}.png"] = encoded(255 - SAMPLES[index][0])
    new = write_shard(tmp_path / "new.tar", others)
    assert len(load_scored_dataset(new, "test", trained_on=marks, on_note=notes.append).test) == 4
    assert "has no test split and no training image" in notes[0]


def test_check_folder_opens_the_images_of_shards(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "shards" / "0.tar", members(0, 12))
    assert check_folder(shard.parent).lines()[0].startswith("shards: classification, 2 classes, 12 images")
    broken = {**members(0, 12), "pictures/0003.png": b"<html>not found</html>", "pictures/0004.png": b""}
    write_shard(shard, broken)
    with pytest.raises(DataError, match="2 images cannot be used") as caught:
        check_folder(shard.parent)
    assert "0.tar/pictures/0003: not an image but a web page" in str(caught.value)
    assert "0.tar/pictures/0004" in str(caught.value)
