"""Images with lists of the objects in them, from which the label is computed: CLEVR and KITTI."""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vpt.datasets.download_dir import DownloadDir
from vpt.datasets.prepared import SourceData, records_from_files
from vpt.errors import DataError

CLEVR_EDGES = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0)  # of the distance from the camera to the closest object
_CLEVR_MIN_OBJECTS, _CLEVR_MAX_OBJECTS = 3, 10
_CLEVR_SPLITS = {"train": "train", "validation": "val"}  # the published test images have no scenes
KITTI_EDGES = (-100.0, 8.0, 20.0, 999.0)  # meters along the camera's axis; no vehicle counts as 1000
_KITTI_VEHICLES = ("Car", "Van", "Truck")
_KITTI_PERCENT, _KITTI_SEED = 10, 123  # percent of the videos for validation, and for test


def bin_index(value: float, edges: Sequence[float]) -> int:
    """Return the k with edges[k] < value <= edges[k + 1] in float32, as the benchmark does. The last bin is unbounded.

    Args:
        value: The distance.
        edges: Lower edge of each bin.

    Returns:
        The index of the bin.

    Raises:
        DataError: The value is below the first edge.
    """
    found = int(np.searchsorted(np.asarray(edges, dtype=np.float32), np.float32(value), side="left")) - 1
    if found < 0:
        raise DataError(f"the distance {value} is below {edges[0]}; download the source again")
    return found


def _read_clevr(downloads: DownloadDir, *, label: Callable[[list[Any]], int], classes: tuple[str, ...]) -> SourceData:
    """Read `CLEVR_v1.0/scenes/CLEVR_train_scenes.json` and `images/train/`, and the same for val."""
    files = downloads.find(*(f"CLEVR_v1.0/scenes/CLEVR_{name}_scenes.json" for name in _CLEVR_SPLITS.values()))
    splits = {}
    for (split_name, source_name), file in zip(_CLEVR_SPLITS.items(), files, strict=True):
        scenes = json.loads(file.read_text(encoding="utf-8"))["scenes"]
        names, labels = [scene["image_filename"] for scene in scenes], [label(scene["objects"]) for scene in scenes]
        splits[split_name] = records_from_files(file.parents[1] / "images" / source_name, names, labels)
    return SourceData(classes, splits)


clevr_count: partial[SourceData] = partial(
    _read_clevr,
    label=lambda objects: len(objects) - _CLEVR_MIN_OBJECTS,
    classes=tuple(f"{k}_objects" for k in range(_CLEVR_MIN_OBJECTS, _CLEVR_MAX_OBJECTS + 1)),
)
clevr_distance: partial[SourceData] = partial(
    _read_clevr,
    label=lambda objects: bin_index(min(obj["pixel_coords"][2] for obj in objects), CLEVR_EDGES),
    classes=("up_to_8.0", "up_to_8.5", "up_to_9.0", "up_to_9.5", "up_to_10.0", "beyond_10.0"),
)


def kitti(downloads: DownloadDir) -> SourceData:
    """Read `training/image_2/000000.png`, `training/label_2/000000.txt` and `mapping/` of the devkit.

    The label is the distance of the closest vehicle.

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
        found = [_distance_class(labels / f"{i:06d}.txt") for i in ids]
        splits[split_name] = records_from_files(images, [f"{i:06d}.png" for i in ids], found)
    return SourceData(("up_to_8_m", "up_to_20_m", "beyond_20_m", "no_vehicle"), splits)


def _distance_class(file: Path) -> int:
    """Return the class of a frame. A line has the type, 10 numbers, then x, y, z in meters, and the rotation."""
    try:
        objects = [line.split() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        depths = [float(fields[13]) for fields in objects if fields[0] in _KITTI_VEHICLES]
    except (OSError, IndexError, ValueError) as error:
        raise DataError(f"{file} cannot be read as labels of KITTI: {error}; extract it again") from error
    return bin_index(min([1000.0, *depths]), KITTI_EDGES)


def _split_by_video(rand: Path, mapping: Path) -> dict[str, list[int]]:
    """Return split to image numbers. All frames of a video are in one split, drawn as in TensorFlow Datasets."""
    lines = mapping.read_text(encoding="utf-8").splitlines()
    frames: defaultdict[str, list[int]] = defaultdict(list)
    for i, line in enumerate(rand.read_text(encoding="utf-8").split(",")):
        frames[lines[int(line) - 1].split(" ")[1]].append(i)
    rng = np.random.RandomState(_KITTI_SEED)
    num_drawn = max(1, _KITTI_PERCENT * len(frames) // 100)
    test = {str(video) for video in rng.choice(sorted(frames), num_drawn, replace=False)}
    validation = {str(video) for video in rng.choice(sorted(set(frames) - test), num_drawn, replace=False)}
    splits: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for video, ids in frames.items():
        splits["test" if video in test else "validation" if video in validation else "train"] += ids
    return splits
