"""KITTI object detection: how far away the closest vehicle is."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from vpt.datasets.download_dir import Place
from vpt.datasets.layouts.bins import bin_of
from vpt.datasets.prepared.records import Listing, from_files
from vpt.errors import DataError

VEHICLES = ("Car", "Van", "Truck")
EDGES = (-100.0, 8.0, 20.0, 999.0)  # metres along the camera's axis; no vehicle counts as 1000
_SHARE, _SEED = 10, 123  # per cent of the videos for validation, and for test


def kitti(place: Place) -> Listing:
    """`training/image_2/000000.png`, `training/label_2/000000.txt`, and the devkit's `mapping/`."""
    images, labels, rand, mapping = place.find(
        "training/image_2", "training/label_2", "mapping/train_rand.txt", "mapping/train_mapping.txt"
    )
    parts = {}
    for part, ids in _by_video(rand, mapping).items():
        found = [_label(labels / f"{i:06d}.txt") for i in ids]
        parts[part] = from_files(images, [f"{i:06d}.png" for i in ids], found)
    return Listing(("up_to_8_m", "up_to_20_m", "beyond_20_m", "no_vehicle"), parts)


def _label(file: Path) -> int:
    """The class of one frame. A line: type, 10 numbers, then x, y, z of the object in metres, and its rotation."""
    try:
        objects = [line.split() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        depths = [float(fields[13]) for fields in objects if fields[0] in VEHICLES]
    except (OSError, IndexError, ValueError) as error:
        raise DataError(f"{file} cannot be read as labels of KITTI: {error}; unpack it again") from error
    return bin_of(min([1000.0, *depths]), EDGES)


def _by_video(rand: Path, mapping: Path) -> dict[str, list[int]]:
    """Part -> image numbers. The frames of a video go into one part, which is drawn as TensorFlow Datasets draws it."""
    lines = mapping.read_text(encoding="utf-8").splitlines()
    frames: defaultdict[str, list[int]] = defaultdict(list)
    for i, line in enumerate(rand.read_text(encoding="utf-8").split(",")):
        frames[lines[int(line) - 1].split(" ")[1]].append(i)
    rng = np.random.RandomState(_SEED)
    count = max(1, _SHARE * len(frames) // 100)
    test = {str(video) for video in rng.choice(sorted(frames), count, replace=False)}
    validation = {str(video) for video in rng.choice(sorted(set(frames) - test), count, replace=False)}
    parts: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for video, ids in frames.items():
        parts["test" if video in test else "validation" if video in validation else "train"] += ids
    return parts
