"""CLEVR: rendered scenes; the labels are computed from the objects of each scene."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from vpt.datasets.download_dir import Place
from vpt.datasets.layouts.bins import bin_of
from vpt.datasets.prepared.records import Listing, from_files

FEWEST = 3  # objects in a scene
EDGES = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0)  # of the distance from the camera to the closest object
_PARTS = {"train": "train", "validation": "val"}  # the published test images have no scenes


def _clevr(place: Place, *, label: Callable[[list[Any]], int], classes: tuple[str, ...]) -> Listing:
    """`CLEVR_v1.0/scenes/CLEVR_train_scenes.json` and `images/train/`, likewise val."""
    scenes = place.find(*(f"CLEVR_v1.0/scenes/CLEVR_{own}_scenes.json" for own in _PARTS.values()))
    parts = {}
    for (part, own), file in zip(_PARTS.items(), scenes, strict=True):
        found = json.loads(file.read_text(encoding="utf-8"))["scenes"]
        names = [scene["image_filename"] for scene in found]
        labels = [label(scene["objects"]) for scene in found]
        parts[part] = from_files(file.parents[1] / "images" / own, names, labels)
    return Listing(classes, parts)


count = partial(
    _clevr, label=lambda objects: len(objects) - FEWEST, classes=tuple(f"{k}_objects" for k in range(FEWEST, 11))
)
distance = partial(
    _clevr,
    label=lambda objects: bin_of(min(thing["pixel_coords"][2] for thing in objects), EDGES),
    classes=("up_to_8.0", "up_to_8.5", "up_to_9.0", "up_to_9.5", "up_to_10.0", "beyond_10.0"),
)
