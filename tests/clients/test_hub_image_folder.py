"""Folders with tables of labels, as the `imagefolder` of Hugging Face's `datasets` reads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from vpt.data.loading import load_dataset

pytest.importorskip("datasets.arrow_dataset", reason="the reference is the package datasets")


def test_tables_in_folders_of_splits_equal_image_folder(tmp_path: Path) -> None:
    for split, count in (("train", 6), ("test", 4)):
        folder = tmp_path / "data" / split
        folder.mkdir(parents=True)
        rows = [{"file_name": f"{i}.png", "label": "ab"[i % 2]} for i in range(count)]
        for i in range(count):
            Image.new("RGB", (8, 8), (i, i, 0)).save(folder / f"{i}.png")
        # Its reader of CSV leaves files open, which is a warning.
        (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    from datasets import load_dataset as load_reference

    reference = load_reference("imagefolder", data_dir=str(tmp_path / "data"), cache_dir=str(tmp_path / "cache"))
    ours = load_dataset(tmp_path / "data", val_fraction=0)
    for name, split in ours.splits.items():
        if name == "val":
            continue
        theirs = reference[name]
        assert [ours.classes[label] for label in split.labels] == list(theirs["label"])
        for path, image in zip(split.paths, theirs["image"], strict=True):
            assert Image.open(path).tobytes() == image.tobytes()
