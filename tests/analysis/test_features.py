"""Tables of features."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vpt
from helpers.brightness import CLASSES, draw, encoded, write_photos
from helpers.command_line import exit_code
from helpers.command_line import vpt as command
from vpt.analysis import features
from vpt.data.decoding.arrays import decode_to_tempdir
from vpt.data.loading import load_dataset
from vpt.errors import ExitCode
from vpt.model import tuned_file
from vpt.model.label_kinds import LabelKind, MultiLabel, Regression


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"), 20)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = vpt.attach(vpt.load_backbone("vit_nano_patch12_48"), "vpt(length=2)", 2, classes=CLASSES)
    return vpt.save(model, tmp_path_factory.mktemp("tuned") / "a.safetensors")


def test_embed_to_each_format_has_the_features_of_the_model(
    photos: Path, tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "_CHUNK", 7)
    for suffix in ("csv", "jsonl", "parquet", "npz"):
        found = vpt.embed_to_file(tuned, photos, tmp_path / f"a.{suffix}", split="all")
        assert (found.images, found.width) == (20, 128)
    model, dataset = vpt.load(tuned), load_dataset(photos)
    expected, labels, splits = [], [], []
    for name, split in dataset.splits.items():
        with decode_to_tempdir(split, model.backbone.preprocessing) as decoded, torch.inference_mode():
            inputs = model.backbone.preprocessing.normalize(torch.from_numpy(decoded.images))
            expected.append(model.features(inputs).numpy())
        labels += [dataset.classes[label] for label in split.labels]
        splits += [name] * len(split)
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [row["label"] for row in rows] == labels and [row["split"] for row in rows] == splits
    assert [row["path"] for row in rows] == [str(p) for split in dataset.splits.values() for p in split.paths]
    np.testing.assert_allclose([row["feature"] for row in rows], np.concatenate(expected), atol=1e-5)
    arrays = np.load(tmp_path / "a.npz")
    assert [arrays[name].tolist() for name in ("label", "split")] == [labels, splits]
    assert arrays["feature"].dtype == np.float32 and arrays["feature"].tolist() == [row["feature"] for row in rows]
    table = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "a.parquet")
    assert table.to_pylist() == rows and table.schema.field("feature").type.list_size == 128
    with (tmp_path / "a.csv").open(newline="") as file:
        lines = list(csv.reader(file))
    assert lines[0][:4] == ["path", "label", "split", "feature_0"]
    assert [[float(value) for value in line[3:]] for line in lines[1:]] == [row["feature"] for row in rows]


def test_embed_options_of_a_picture_are_refused_for_a_table(
    photos: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("embed", tuned, photos, "--out", tmp_path / "a.csv", "--limit", 9) == 2
    assert "--limit: for a picture" in capsys.readouterr().err
    assert exit_code("embed", tuned, photos, "--out", tmp_path / "a.png", "--split", "all") == 2
    assert "--split all: for a table" in capsys.readouterr().err
    command("embed", tuned, photos, "--out", tmp_path / "a.csv")
    assert capsys.readouterr().out == f"{tmp_path / 'a.csv'}: 4 images, features of 128 numbers\n"
    command("embed", tuned, photos, "--out", tmp_path / "a.csv", "--json")
    answer = {"file": str(tmp_path / "a.csv"), "images": 4, "width": 128, "dropped": 0}
    assert json.loads(capsys.readouterr().out) == answer


@pytest.mark.parametrize("suffix", ["csv", "npz", "parquet"])
def test_embed_with_skip_corrupt_names_omitted_images(
    suffix: str, photos: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(features, "_CHUNK", 3)  # one chunk has no image left, another has two
    new, out = tmp_path / "new", tmp_path / f"a.{suffix}"
    dataset = load_dataset(shutil.copytree(photos, new))
    paths = [*dataset.train.paths, *dataset.val.paths, *dataset.test.paths]
    torn = [paths[0], *dataset.test.paths[:3]]
    kept = [path for path in paths if path not in torn]
    for path in torn:
        path.write_bytes(b"no image")
    whole = ["embed", tuned, new, "--split", "all", "--out", out]
    assert exit_code(*whole) == ExitCode.DATA
    assert "leave them out with --skip-corrupt" in capsys.readouterr().err and not out.exists()
    command(*whole, "--skip-corrupt")
    captured = capsys.readouterr()
    assert captured.out == f"{out}: 16 images, features of 128 numbers, 4 left out\n"
    assert all(path.name in captured.err for path in torn)
    if suffix == "npz":
        paths = np.load(out)["path"].tolist()
        assert paths == list(map(str, kept))
    for path in kept:
        path.write_bytes(b"no image")
    assert exit_code(*whole, "--skip-corrupt") == ExitCode.DATA
    assert "none of 20 images can be used" in capsys.readouterr().err


def test_embed_picture_with_skip_corrupt_leaves_images_out(
    photos: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, out = load_dataset(shutil.copytree(photos, tmp_path / "new")), tmp_path / "a.png"
    paths = dataset.train.paths
    paths[3].write_bytes(b"no image")
    arguments = ("embed", tuned, tmp_path / "new", "--split", "train", "--out", out, "--json", "--skip-corrupt")
    command(*arguments)
    captured = capsys.readouterr()
    assert json.loads(captured.out)["images"] == 11 and f"left out {dataset.train.names[3]}: " in captured.err
    for path in paths[4:]:
        path.write_bytes(b"no image")
    assert exit_code(*arguments) == ExitCode.DATA
    assert "3 images in train that can be used, and an embedding needs 5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "labels", "expected"),
    [
        (MultiLabel(), [[1, 0], [1, 1], [0, 0], [0, 1]], ["dark", "dark|light", "", "light"]),
        (Regression(), [0.5, 2.0, -1.0, 4.0], [0.5, 2.0, -1.0, 4.0]),
    ],
    ids=["several", "number"],
)
def test_embed_to_file_of_other_labels_writes_them(
    kind: LabelKind, labels: list[object], expected: list[object], tmp_path: Path
) -> None:
    classes = ("dark", "light") if isinstance(kind, MultiLabel) else ("value",)
    model = vpt.attach(vpt.load_backbone("vit_nano_patch12_48"), "linear", len(classes), classes=classes)
    model.label_kind = kind
    data = (draw(4)[0], np.array(labels, np.float32))
    vpt.embed_to_file(model, data, tmp_path / "a.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [row["label"] for row in rows] == expected


def test_embed_all_splits_of_images_without_marks_writes_each(tmp_path: Path) -> None:
    """The model was trained on other images, so that no split is made up."""
    pixels, labels = draw(12)
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        folder = tmp_path / "photos" / ("train" if number < 8 else "test") / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(encoded(image))
    listed = sorted((tmp_path / "photos").glob("*/*/*.png"))
    lines = [f"{path.relative_to(tmp_path)},{path.parent.name},{path.parent.parent.name}" for path in listed]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,split", *lines]))
    model = vpt.attach(vpt.load_backbone(), "linear", 2, classes=CLASSES)
    file = tuned_file.save(model, tmp_path / "a.safetensors", split_options={"trained_on": ["1:0123456789ab"]})

    def written(data: Any) -> list[tuple[str, str]]:
        vpt.embed_to_file(file, data, tmp_path / "a.jsonl", split="all")
        rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
        return sorted((Path(row["path"]).parent.name, row["split"]) for row in rows)

    expected = sorted((path.parent.name, path.parent.parent.name) for path in listed)
    assert written(tmp_path / "photos") == written(tmp_path / "labels.csv") == expected
    assert written(tmp_path / "photos" / "train") == [("dark", "test")] * 4 + [("light", "test")] * 4
    in_memory = {"train": (pixels[:8], labels[:8]), "test": (pixels[8:], labels[8:])}
    assert sorted(split for _, split in written(in_memory)) == ["test"] * 4 + ["train"] * 8
