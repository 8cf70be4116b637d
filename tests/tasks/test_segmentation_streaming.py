"""Segmentation trains to the same file whether images are decoded once, or by workers whenever they are used."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vpt
from helpers.segmentation import write_split
from vpt.data.masks.augmentation import JointAugmentation
from vpt.data.masks.dataset import SegmentationDataset, load_segmentation_dataset
from vpt.errors import DataError, TunedFileError
from vpt.tasks.segmentation import SegmentationConfig, pair_reader
from vpt.tasks.segmentation.streaming import CropLoader, choose_crop_loading
from vpt.training import Callback, EpochMetrics

FAST: dict[str, Any] = {
    "method": "vpt(length=2)", "head": "linear", "image_size": 48, "batch_size": 2, "iterations": 6, "eval_every": 3,
    "progress": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    write_split(root / "images", root / "masks", 5, first_id=0)
    return root


@pytest.fixture
def dataset(scenes: Path) -> SegmentationDataset:
    return load_segmentation_dataset(scenes, val_fraction=0)


class Screen(Callback):
    def __init__(self, stops_after: int = 0) -> None:
        self.first_line = ""
        self.stops_after = stops_after

    def on_data(self, lines: Any) -> None:
        self.first_line = lines[0]

    def on_epoch(self, record: EpochMetrics) -> None:
        if record.epoch == self.stops_after:
            raise KeyboardInterrupt


def test_tune_segmentation_with_any_loading_and_after_a_stop_writes_the_same_file(scenes: Path, tmp_path: Path) -> None:
    files, lines = [], []
    for name, loading in (("a", {}), ("b", {"loading": "stream", "workers": 2})):
        screen = Screen()
        vpt.tune(scenes, out=tmp_path / f"{name}.safetensors", callback=screen, **loading, **FAST)
        files.append((tmp_path / f"{name}.safetensors").read_bytes())
        lines.append(screen.first_line)
    assert "; decoded once (" in lines[0] and "; streamed by 2 workers (" in lines[1]
    stopped = tmp_path / "stopped.safetensors"
    with pytest.raises(KeyboardInterrupt):
        vpt.tune(scenes, out=stopped, callback=Screen(1), loading="stream", workers=1, **FAST)
    vpt.tune(scenes, out=stopped, loading="stream", workers=0, **FAST)
    assert files[0] == files[1] == stopped.read_bytes()
    history = json.loads(stopped.with_suffix(".run").joinpath("result.json").read_text())["history"]
    assert len(history) == 2


def test_crops_of_an_image_depend_on_seed_and_draw_and_on_nothing_else(dataset: SegmentationDataset) -> None:
    batches = [np.array([0, 3]), np.array([8, 2]), np.array([5, 0])]  # draws 8 and 5 are images 3 and 0 again
    found = []
    for options in ({"streams": False}, {"workers": 0}, {"workers": 2}):
        crops = CropLoader(dataset, JointAugmentation(), 32, **options)
        crops.plan(batches, (7, 1))
        found.append([crops.load(batch, (7, 1)) for batch in batches])
    for other in found[1:]:
        for batch, expected in zip(other, found[0], strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(batch, expected, strict=True))
    (first, _), _, (last, _) = found[0]
    assert np.array_equal(first[0], last[1]) and not np.array_equal(first[0], last[0])
    assert not np.array_equal(crops.load(batches[0], (7, 2))[0], first)


def test_tune_segmentation_from_a_checkpoint_with_other_crops_is_refused(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.safetensors"
    with monkeypatch.context() as earlier, pytest.raises(KeyboardInterrupt):
        earlier.setattr(SegmentationConfig, "crop_version", 1)
        vpt.tune(scenes, out=out, callback=Screen(1), **FAST)
    now = SegmentationConfig.crop_version
    with pytest.raises(TunedFileError, match=rf"other random crops \(way 1, and {now} now\); begin anew with --overw"):
        vpt.tune(scenes, out=out, **FAST)


def test_cropper_beyond_the_limit_reads_again(dataset: SegmentationDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, read, load = np.array([0, 1, 2]), list[int](), pair_reader.load_pair

    def count(pairs: Any, index: int, *rest: Any) -> Any:
        read.append(index)
        return load(pairs, index, *rest)

    monkeypatch.setattr(pair_reader, "load_pair", count)
    expected, _ = CropLoader(dataset, JointAugmentation(), 32).load(batch, (7,))
    assert read == [0, 1, 2]
    pixels, mask = load(dataset.splits["train"], 0, dataset.lookup_table)
    monkeypatch.setattr(pair_reader, "MEMORY_LIMIT", 2 * (pixels.nbytes + mask.nbytes) * 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # which share the memory
    crops = CropLoader(dataset, JointAugmentation(), 32, streams=False)
    for _ in range(2):
        assert np.array_equal(crops.load(batch, (7,))[0], expected)
    assert read == [0, 1, 2] * 2 + [2]


def test_crop_loader_of_a_file_that_changes_later_names_it(tmp_path: Path) -> None:
    write_split(tmp_path / "images", tmp_path / "masks", 3, first_id=0)
    crops = CropLoader(load_segmentation_dataset(tmp_path, val_fraction=0), JointAugmentation(), 32, workers=1)
    (tmp_path / "masks" / "scene_1.png").write_bytes(b"")
    crops.plan([np.array([0]), np.array([1])], (0, 0))
    assert crops.load(np.array([0]), (0, 0))[0].shape == (1, 3, 32, 32)
    with pytest.raises(DataError, match=r"images/scene_1: a mask that cannot be read.*it was sound"):
        crops.load(np.array([1]), (0, 0))


def test_choose_crop_loading_by_size_streams_above_the_limit(dataset: SegmentationDataset) -> None:
    assert choose_crop_loading(dataset, "auto", None)[0] is False
    assert choose_crop_loading(dataset, "stream", 3)[1].startswith("streamed by 3 workers (72.8 kB of pixels")
    large = {name: replace(stats, size=(20_000, 15_000)) for name, stats in dataset.mask_stats.items()}
    assert choose_crop_loading(replace(dataset, mask_stats=large), "auto", None)[0] is True


def test_segmentation_with_skip_corrupt_leaves_pairs_out_in_every_command(tmp_path: Path) -> None:
    root, notes = tmp_path / "broken", list[str]()
    write_split(root / "images", root / "masks", 6, first_id=0)
    (root / "images" / "scene_1.jpg").write_bytes(b"no image")
    (root / "masks" / "scene_4.png").write_bytes(b"no mask")

    class Notes(Callback):
        def on_note(self, text: str) -> None:
            notes.append(text)

    options: dict[str, Any] = {**FAST, "iterations": 1, "out": tmp_path / "a.safetensors", "callback": Notes()}
    with pytest.raises(DataError, match=r"(?s)2 faults.*scene_1.*scene_4.*or leave out .* with --skip-corrupt"):
        vpt.tune(root, **options)
    result = vpt.tune(root, skip_corrupt=True, **options)
    assert sum(result.images.values()) == 4
    dropped = [note for note in notes if note.startswith("left out ")]
    assert len(dropped) == 2 and "images/scene_1" in dropped[0] and "images/scene_4" in dropped[1]
    notes.clear()
    seen = {"skip_corrupt": True, "callback": Notes(), "progress": False}
    assert vpt.evaluate(result.file, root, split="train", **seen).images == result.images["train"]
    assert [note for note in notes if note.startswith("left out ")] == dropped
    notes.clear()
    with pytest.raises(DataError, match=r"scene_1.*\n.*or leave them out with --skip-corrupt"):
        vpt.predict(result.file, root / "images", progress=False)
    assert len(vpt.predict(result.file, root / "images", **seen)) == 5
    assert len(notes) == 1 and "scene_1.jpg" in notes[0]
