"""CLEVR: rendered scenes. Labels are computed from the objects of each scene."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from vpt.datasets.download_dir import DownloadDir
from vpt.datasets.layouts.bins import bin_index
from vpt.datasets.prepared.records import SourceData, records_from_files

MIN_OBJECTS = 3  # objects in a scene
EDGES = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0)  # of the distance from the camera to the closest object
_SPLIT_NAMES = {"train": "train", "validation": "val"}  # the published test images have no scenes


def _read_clevr(downloads: DownloadDir, *, label: Callable[[list[Any]], int], classes: tuple[str, ...]) -> SourceData:
    """Read `CLEVR_v1.0/scenes/CLEVR_train_scenes.json` and `images/train/`, and the same for val."""
    scenes = downloads.find(
        *(f"CLEVR_v1.0/scenes/CLEVR_{source_name}_scenes.json" for source_name in _SPLIT_NAMES.values())
    )
    splits = {}
    for (split_name, source_name), file in zip(_SPLIT_NAMES.items(), scenes, strict=True):
        scenes_of_split = json.loads(file.read_text(encoding="utf-8"))["scenes"]
        names = [scene["image_filename"] for scene in scenes_of_split]
        labels = [label(scene["objects"]) for scene in scenes_of_split]
        splits[split_name] = records_from_files(file.parents[1] / "images" / source_name, names, labels)
    return SourceData(classes, splits)


count: Callable[[DownloadDir], SourceData] = partial(
    _read_clevr,
    label=lambda objects: len(objects) - MIN_OBJECTS,
    classes=tuple(f"{k}_objects" for k in range(MIN_OBJECTS, 11)),
)
distance: Callable[[DownloadDir], SourceData] = partial(
    _read_clevr,
    label=lambda objects: bin_index(min(obj["pixel_coords"][2] for obj in objects), EDGES),
    classes=("up_to_8.0", "up_to_8.5", "up_to_9.0", "up_to_9.5", "up_to_10.0", "beyond_10.0"),
)
