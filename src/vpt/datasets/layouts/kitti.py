"""KITTI object detection: distance of the closest vehicle."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from vpt.datasets.download_dir import DownloadDir
from vpt.datasets.layouts.bins import bin_index
from vpt.datasets.prepared.records import SourceData, records_from_files
from vpt.errors import DataError

VEHICLES = ("Car", "Van", "Truck")
EDGES = (-100.0, 8.0, 20.0, 999.0)  # meters along the camera's axis; no vehicle counts as 1000
_PERCENT, _SEED = 10, 123  # percent of the videos for validation, and for test


def kitti(downloads: DownloadDir) -> SourceData:
    """Read `training/image_2/000000.png`, `training/label_2/000000.txt` and `mapping/` of the devkit.

    Args:
        downloads: The downloaded files.

    Returns:
        The images of each split.
    """
    images, labels, rand, mapping = downloads.find(
        "training/image_2", "training/label_2", "mapping/train_rand.txt", "mapping/train_mapping.txt"
    )
    splits = {}
    for split_name, ids in _split_by_video(rand, mapping).items():
        found = [_label(labels / f"{i:06d}.txt") for i in ids]
        splits[split_name] = records_from_files(images, [f"{i:06d}.png" for i in ids], found)
    return SourceData(("up_to_8_m", "up_to_20_m", "beyond_20_m", "no_vehicle"), splits)


def _label(file: Path) -> int:
    """Return the class of a frame. A line has the type, 10 numbers, then x, y, z in meters, and the rotation."""
    try:
        objects = [line.split() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        depths = [float(fields[13]) for fields in objects if fields[0] in VEHICLES]
    except (OSError, IndexError, ValueError) as error:
        raise DataError(f"{file} cannot be read as labels of KITTI: {error}; extract it again") from error
    return bin_index(min([1000.0, *depths]), EDGES)


def _split_by_video(rand: Path, mapping: Path) -> dict[str, list[int]]:
    """Return split to image numbers. All frames of a video are in one split, drawn as in TensorFlow Datasets."""
    lines = mapping.read_text(encoding="utf-8").splitlines()
    frames: defaultdict[str, list[int]] = defaultdict(list)
    for i, line in enumerate(rand.read_text(encoding="utf-8").split(",")):
        frames[lines[int(line) - 1].split(" ")[1]].append(i)
    rng = np.random.RandomState(_SEED)
    count = max(1, _PERCENT * len(frames) // 100)
    test = {str(video) for video in rng.choice(sorted(frames), count, replace=False)}
    validation = {str(video) for video in rng.choice(sorted(set(frames) - test), count, replace=False)}
    splits: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for video, ids in frames.items():
        splits["test" if video in test else "validation" if video in validation else "train"] += ids
    return splits
