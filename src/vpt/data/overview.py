"""One screen about a dataset before anything is trained on it: classes with counts, splits, sizes, what is odd."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from vpt.core.text import comma_list, format_number, pluralize, printable, refuse
from vpt.data.copies import describe_copies
from vpt.data.dataset import Dataset, Split
from vpt.data.decoding.arrays import map_images
from vpt.data.decoding.value_checks import value_range_notes
from vpt.data.images.files import UnreadableImageError
from vpt.data.images.inputs import read_image, read_size
from vpt.data.images.value_range import ValueRange
from vpt.data.loading import load_dataset
from vpt.data.masks.dataset import SegmentationDataset, load_segmentation_dataset
from vpt.data.masks.pairs import PairNames
from vpt.data.task_detection import detect_task

_MAX_CLASSES = 20  # rows of the screen
_NUM_SIZES = 500  # images whose headers are read
_IMBALANCE = 10  # largest class, in smallest ones
_FEW_IMAGES = 5  # training images of a class


@dataclass(frozen=True)
class Overview:
    """Facts on a dataset.

    Args:
        name: Name of the data.
        task: Name of the task.
        counts: Class to split to number of images; in segmentation, of images whose mask has a pixel of the class.
        images: Split to number of images.
        sizes: Width and height of images.
        notes: What is odd, one sentence each.
    """

    name: str
    task: str
    counts: Mapping[str, Mapping[str, int]]
    images: Mapping[str, int]
    sizes: Sequence[tuple[int, int]]
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return the screen, one text per line."""
        splits = ", ".join(f"{split} {count}" for split, count in self.images.items() if count)
        total = pluralize(sum(self.images.values()), "image")
        classes = f"{pluralize(len(self.counts), 'class')}, " if self.counts else ""
        lines = [f"{self.name}: {self.task}, {classes}{total} ({splits})"]
        shown = list(self.counts.items())[:_MAX_CLASSES]
        width = max((len(name) for name, _ in shown), default=0)
        for name, by_split in shown:
            row = "  ".join(f"{split} {by_split.get(split, 0)}" for split, count in self.images.items() if count)
            lines.append(f"  {name:<{width}}  {row}")
        if len(self.counts) > len(shown):
            lines.append(f"  and {pluralize(len(self.counts) - len(shown), 'class')} more")
        if self.sizes:
            lines.append(f"sizes: {_describe_sizes(self.sizes)}")
        lines += [f"odd: {note}" for note in (*_odd_counts(self.counts), *self.notes)]
        return [printable(line) for line in lines]

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as JSON values; of the sizes, the smallest, the median and the largest area."""
        sizes = sorted(self.sizes, key=lambda size: size[0] * size[1])
        shown = (0, len(sizes) // 2, -1) if sizes else ()
        return {
            "task": self.task,
            "images": dict(self.images),
            "classes": len(self.counts),
            "images_per_class": {name: dict(by_split) for name, by_split in self.counts.items()},
            "sizes_px": [list(sizes[index]) for index in shown],
            "notes": [*_odd_counts(self.counts), *self.notes],
        }


def overview_of_classes(dataset: Dataset) -> Overview:
    """Return the overview of a dataset of labeled images. Headers of some images are read.

    Args:
        dataset: The dataset.

    Returns:
        The overview.
    """
    splits = {name: split for name, split in dataset.splits.items() if len(split)}
    task = _describe_labels(dataset)
    named = () if dataset.label_kind == "regression" else dataset.classes
    by_split = {name: split.class_counts(len(dataset.classes)) for name, split in splits.items()}
    counts = {name: {split: int(found[k]) for split, found in by_split.items()} for k, name in enumerate(named)}
    every = max(1, sum(map(len, splits.values())) // _NUM_SIZES)
    images = chain.from_iterable(split.images for split in splits.values())
    sizes = [read_size(image) for image in islice(images, None, None, every)]
    notes = dataset.notes
    if dataset.ignored:
        notes += (f"{len(dataset.ignored)} entries of the folder not used: {comma_list(dataset.ignored)}",)
    sizes = [size for size in sizes if size != (1, 1)]
    return Overview(dataset.name, task, counts, {name: len(split) for name, split in splits.items()}, sizes, notes)


def overview_of_masks(dataset: SegmentationDataset) -> Overview:
    """Return the overview of a segmentation dataset.

    Args:
        dataset: The dataset.

    Returns:
        The overview.
    """
    counts: dict[str, dict[str, int]] = {name: {} for name in dataset.classes}
    for split, pairs in dataset.splits.items():
        for name in pairs.names:
            for k in dataset.classes_of(name):
                counts[dataset.classes[k]][split] = counts[dataset.classes[k]].get(split, 0) + 1
    images = {split: len(pairs) for split, pairs in dataset.splits.items()}
    sizes = [stats.size for stats in dataset.mask_stats.values()]
    return Overview(dataset.name, "segmentation", counts, images, sizes, dataset.notes)


def check_folder(
    root: Path,
    task: str | None = None,
    *,
    split_names: str | None = None,
    value_range: ValueRange | None = None,
    **options: Any,
) -> Overview:
    """Read a data folder, or tables, as `vpt tune` does, and decode every image. Nothing is trained.

    Args:
        root: The data folder or tables.
        task: "classification" or "segmentation". Default: detected.
        split_names: Names of the split folders. Default: recognized.
        value_range: Values of black and white in images with more than 8 bits. Default: the range of their type.
        **options: Other arguments of `load_dataset` or, in segmentation, of `load_segmentation_dataset`.

    Returns:
        The overview. A DataError names every fault.
    """
    if task is None:
        task = detect_task(root, PairNames(split_names=split_names)) if root.is_dir() else "classification"
    if task == "segmentation":
        dataset = load_segmentation_dataset(root, split_names=split_names, value_range=value_range, **options)
        return overview_of_masks(dataset)
    return _check_classes(root, load_dataset(root, split_names=split_names, **options), value_range)


def _check_classes(root: Path, dataset: Dataset, value_range: ValueRange | None) -> Overview:
    faults = [fault for split in dataset.splits.values() for fault in _unreadable(split, value_range)]
    refuse(faults, f"{root}: {pluralize(len(faults), 'image')} cannot be used", "replace or delete them")
    overview = overview_of_classes(dataset)
    found = (*value_range_notes(dataset.train.images, value_range), *describe_copies(dataset.splits))
    return replace(overview, notes=(*overview.notes, *found))


def _describe_labels(dataset: Dataset) -> str:
    """Return the kind of the labels in words, with the range of numbers to predict."""
    if dataset.label_kind != "regression":
        return "classification" if dataset.label_kind == "single_label" else "multi-label classification"
    values = np.concatenate([split.labels for split in dataset.splits.values() if len(split)])
    least, largest, mean = map(format_number, (values.min(), values.max(), values.mean()))
    return f"regression of {dataset.classes[0]} ({least} to {largest}, mean {mean})"


def _unreadable(split: Split, value_range: ValueRange | None) -> list[str]:
    def fault_of(i: int) -> str:
        try:
            read_image(split.images[i], value_range)
        except UnreadableImageError as error:
            return f"{split.names[i]}: {error}"
        return ""

    if isinstance(split.images, np.ndarray):  # of a built-in task
        return []
    return [fault for fault in map_images(fault_of, range(len(split))) if fault]


def _describe_sizes(sizes: Sequence[tuple[int, int]]) -> str:
    ordered = sorted(sizes, key=lambda size: size[0] * size[1])
    small, middle, large = (
        f"{width} x {height}" for width, height in (ordered[0], ordered[len(ordered) // 2], ordered[-1])
    )
    return f"{small} px" if small == large else f"{small} to {large} px, median {middle}"


def _odd_counts(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    train = {name: by_split.get("train", 0) for name, by_split in counts.items()}
    odd = []
    few = [name for name, count in train.items() if 0 < count < _FEW_IMAGES]
    if few:
        odd.append(f"fewer than {_FEW_IMAGES} training images of {comma_list(few)}")
    present = [count for count in train.values() if count]
    if present and max(present) >= _IMBALANCE * min(present):
        odd.append(f"the largest class has {max(present)} training images, the smallest {min(present)}")
    return odd
