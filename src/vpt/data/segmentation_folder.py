"""Folders of images and masks, in the layouts that data sets are published in; every fault is named at once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import permutations
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vpt.core.text import lines, listed, number
from vpt.data.image_files import SUFFIXES, BadImage, formats, listening, open_rgb
from vpt.data.mask_labels import LABELS, VOID, Labels
from vpt.errors import DataError, SpecError, nearest

SHAPE = (
    "a segmentation folder holds images/ and masks/ (with or without train/, val/, test/ inside), or is laid out like "
    "CamVid (train/, trainannot/), ADE20K, Cityscapes or VOC"
)
_PARTS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


@dataclass(frozen=True)
class Layout:
    """Where images and masks lie, with {part} for the name of a part; what their stems end with besides the key.

    labels: the row of `LABELS` that this layout stands for. lists: file of stems of a part, where one names them.
    """

    images: str
    masks: str
    labels: str = "plain"
    image_tag: str = ""
    mask_tag: str = ""
    lists: str | None = None

    @property
    def parted(self) -> bool:
        """Whether train, val and test lie apart."""
        return "{part}" in self.images or self.lists is not None


LAYOUTS = (
    Layout("{part}", "{part}annot", "camvid"),
    Layout("images/{part}", "annotations/{part}", "ade20k"),
    Layout("leftImg8bit/{part}", "gtFine/{part}", "cityscapes", "_leftImg8bit", "_gtFine_labelIds"),
    Layout("JPEGImages", "SegmentationClass", "voc", lists="ImageSets/Segmentation/{part}.txt"),
    Layout("images/{part}", "masks/{part}"),
    Layout("{part}/images", "{part}/masks"),
    Layout("images", "masks"),
)


@dataclass(frozen=True)
class Pairs:
    """Images with their masks, by path; names are relative to the data folder, without suffix."""

    images: tuple[Path, ...] = ()
    masks: tuple[Path, ...] = ()
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def __add__(self, others: Pairs) -> Pairs:
        return Pairs(self.images + others.images, self.masks + others.masks, self.names + others.names)

    def pick(self, indices: Sequence[int]) -> Pairs:
        """The pairs at these positions, in this order."""
        images, masks = (tuple(paths[i] for i in indices) for paths in (self.images, self.masks))
        return Pairs(images, masks, tuple(self.names[i] for i in indices))


@dataclass(frozen=True)
class Scenes:
    """A segmentation task, checked.

    table: id in a mask -> class, see `Labels.table`. pixels: of each class in train, int64 (classes,).
    digest: of all masks and of the images' names and sizes.
    """

    name: str
    classes: tuple[str, ...]
    parts: dict[str, Pairs]
    table: NDArray[np.int16]
    pixels: NDArray[np.int64]
    digest: str
    notes: tuple[str, ...] = field(default=())


def layout_of(root: Path) -> tuple[Layout, dict[str, str]] | None:
    """The layout of a folder, and the names its parts have there; None where it is no segmentation folder."""
    for layout in LAYOUTS:
        if not layout.parted:
            if (root / layout.images).is_dir() and (root / layout.masks).is_dir():
                return layout, {"train": ""}
            continue
        places = (layout.lists,) if layout.lists else (layout.images, layout.masks)
        found = {
            part: name
            for part, names in _PARTS.items()
            for name in names
            if all((root / place.format(part=name)).exists() for place in places)
        }
        if "train" in found:
            return layout, found
    return None


def read_scenes(
    source: str | Path,
    labels: str = "auto",
    *,
    ignore: int | None = None,
    reduce_zero: bool = False,
    val_fraction: float = 0.2,
    seed: int = 0,
    test: bool = True,
    train_on: Literal["train", "trainval"] = "train",
    val_as_test: bool = False,
    classes: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Scenes:
    """Read and check a folder: all images and all masks are opened once.

    labels: a row of `LABELS`; "auto" takes the layout's own. ignore, reduce_zero: for "plain" masks. classes: names
    known already; else the row's, or `classes.txt` in the folder (one name a line), or numbers.
    val_fraction: cut from train where there is no val. test: False leaves the test part unopened.
    train_on: "trainval" adds val to train. val_as_test: the folder's val is scored on as test, for sets that publish
    no masks of their test images, and another val is cut from train.
    Raises DataError with every fault: images without masks and masks without images, files that cannot be read, masks
    of another size, ids that stand for nothing.
    """
    root = Path(source)
    known = layout_of(root) if root.is_dir() else None
    if known is None:
        raise DataError(f"{str(source)!r} is no segmentation folder; {SHAPE}")
    layout, names = known
    wanted = layout.labels if labels == "auto" else labels
    if wanted not in LABELS:
        raise SpecError(f"labels is {labels!r}; {nearest(labels, ['auto', *LABELS])}")
    row = LABELS[wanted]
    notes = [f"masks are read as {wanted}; --labels chooses another reading"] if labels == "auto" else []
    if ignore is not None:
        if not 0 <= ignore <= 65535:
            raise SpecError(f"ignore is {ignore}; ids in masks are 0 to 65535")
        row = replace(row, ignore=(*row.ignore, ignore))
    if reduce_zero:
        row = replace(row, reduce_zero=True)

    if not 0 <= val_fraction < 1:
        raise SpecError(f"val_fraction is {val_fraction}; it must be at least 0 and below 1")
    if val_as_test:
        if "val" not in names:
            raise DataError(f"{root} has no val that could be scored on as test; {SHAPE}")
        names = {"train": names["train"], "test": names["val"]}
    faults = _one_sided(root, layout, names)
    parts = {part: _pairs(root, layout, name, faults) for part, name in names.items() if test or part != "test"}
    seen = _look(parts, faults, progress)
    found = tuple(classes or row.classes or _listed_classes(root) or _numbered(row, seen))
    if len(found) > VOID:
        raise DataError(
            f"{root}: {number(len(found), 'class')}, or ids that large in a mask; {VOID} can be told apart. Is the "
            "largest id one to be ignored? See --ignore"
        )
    table = row.table(len(found))
    for name, look in seen.items():
        strange = [int(k) for k in look.ids if table[k] < 0]
        if strange:
            faults.append(f"{name}: ids {listed([str(k) for k in strange])} of the mask stand for no class: with "
                          f"{len(found)} classes read as {wanted}, ids are {_range(table)}; it holds "
                          f"{listed([str(k) for k in look.ids], 12)}")  # fmt: skip
    if faults:
        raise DataError(
            f"{root}: {number(len(faults), 'fault')}:{lines(faults)}\ncorrect or delete these files; for ids, see "
            "--labels, --ignore and --reduce-zero"
        )
    if train_on == "trainval":
        parts["train"] += parts.pop("val", Pairs())
    elif "val" not in parts and val_fraction > 0 and len(parts["train"]) > 1:
        parts |= _cut(parts["train"], val_fraction, seed)
        notes.append(f"{number(len(parts['val']), 'image')} of train were set apart as val (seed {seed})")
    empty = [part for part, pairs in parts.items() if not len(pairs)]
    if empty:
        raise DataError(f"{root} has no images for {', '.join(empty)}; {SHAPE}")
    pixels = np.zeros(len(found), dtype=np.int64)
    for name in parts["train"].names:
        own = table[seen[name].ids]
        np.add.at(pixels, own[own != VOID], seen[name].counts[own != VOID])
    absent = [found[k] for k in np.flatnonzero(pixels == 0)]
    if absent:
        notes.append(f"train has no pixel of {number(len(absent), 'class')}: {listed(absent)}")
    digest = hashlib.sha256("".join(f"{name} {look.key}\n" for name, look in sorted(seen.items())).encode())
    return Scenes(root.resolve().name, found, parts, table, pixels, digest.hexdigest(), tuple(notes))


def read_pair(pairs: Pairs, index: int, table: NDArray[np.int16]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One image (3, height, width) and its classes (height, width), VOID where there is none. Inside `listening`."""
    image, _ = open_rgb(pairs.images[index])
    mask = table[_open_mask(pairs.masks[index])].astype(np.uint8)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)), mask


@dataclass(frozen=True)
class _Look:
    ids: NDArray[np.int64]
    counts: NDArray[np.int64]
    key: str


def _one_sided(root: Path, layout: Layout, names: Mapping[str, str]) -> list[str]:
    """Parts with images and no masks, or the other way round; those of test are often kept back."""
    if not layout.parted or layout.lists:
        return []
    return [
        f"{there.relative_to(root)}: there is no {lacking.relative_to(root)} for it"
        for part in ("train", "val")
        if part not in names
        for name in _PARTS[part]
        for there, lacking in permutations([root / place.format(part=name) for place in (layout.images, layout.masks)])
        if there.is_dir() and not lacking.exists()
    ]


def _pairs(root: Path, layout: Layout, name: str, faults: list[str]) -> Pairs:
    images = _by_key(root, layout.images.format(part=name), layout.image_tag, faults)
    masks = _by_key(root, layout.masks.format(part=name), layout.mask_tag, faults)
    if layout.lists:
        stems = (root / layout.lists.format(part=name)).read_text(encoding="utf-8-sig").split()
        faults += [f"{stem}: named in the list, but there is no such image" for stem in stems if stem not in images]
        images, masks = ({k: found[k] for k in stems if k in found} for found in (images, masks))
    faults += [f"{path.relative_to(root)}: an image without a mask" for k, path in images.items() if k not in masks]
    faults += [f"{path.relative_to(root)}: a mask without an image" for k, path in masks.items() if k not in images]
    both = sorted(images.keys() & masks.keys())
    names = tuple(images[k].relative_to(root).with_suffix("").as_posix() for k in both)
    return Pairs(tuple(images[k] for k in both), tuple(masks[k] for k in both), names)


def _by_key(root: Path, folder: str, tag: str, faults: list[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted((root / folder).rglob("*")):
        if path.name.startswith(".") or path.suffix.casefold() not in SUFFIXES or not path.stem.endswith(tag):
            continue
        key = path.relative_to(root / folder).with_suffix("").as_posix().removesuffix(tag)
        if key in found:
            faults.append(f"{path.relative_to(root)}: {found[key].name} has the same name")
        found[key] = path
    return found


def _open_mask(path: Path) -> NDArray[np.int64]:
    """Ids (height, width), as they stand in an index or grey image of 8 or 16 bits. Raises BadImage."""
    try:
        if not path.is_file():  # a pipe would be waited for for ever
            raise BadImage("not a regular file")
        with Image.open(path, formats=formats()) as image:
            if image.mode not in ("P", "L", "1", "I", "I;16"):
                raise BadImage(f"a mask of mode {image.mode}; save it with one number per pixel (index or grey PNG)")
            ids = np.asarray(image).astype(np.int64)
    except BadImage:
        raise
    except Exception as error:  # on damaged files Pillow raises whatever its decoders stumble over
        raise BadImage(f"a mask that cannot be read: {error}") from error
    if ids.min() < 0 or ids.max() > 65535:
        raise BadImage(f"a mask with ids from {ids.min()} to {ids.max()}, outside 0 to 65535")
    return ids


def _look(parts: dict[str, Pairs], faults: list[str], progress: Callable[[int, int], None] | None) -> dict[str, _Look]:
    """Open everything once: name -> ids and their counts. What cannot be used goes to `faults`."""

    def one(job: tuple[str, Path, Path]) -> _Look | str:
        name, image_path, mask_path = job
        try:
            image, _ = open_rgb(image_path)
            ids = _open_mask(mask_path)
        except BadImage as error:
            return f"{name}: {error}"
        if image.size != ids.shape[::-1]:
            return f"{name}: the image has {image.width} x {image.height} px, its mask {ids.shape[1]} x {ids.shape[0]}"
        values, counts = np.unique(ids, return_counts=True)
        return _Look(values, counts, f"{ids.shape} {hashlib.sha256(ids.tobytes()).hexdigest()}")

    jobs = [job for pairs in parts.values() for job in zip(pairs.names, pairs.images, pairs.masks, strict=True)]
    seen: dict[str, Any] = {}
    with listening(), ThreadPoolExecutor() as pool:
        for done, (job, look) in enumerate(zip(jobs, pool.map(one, jobs), strict=True), start=1):
            if isinstance(look, str):
                faults.append(look)
            else:
                seen[job[0]] = look
            if progress:
                progress(done, len(jobs))
    return seen


def _listed_classes(root: Path) -> tuple[str, ...]:
    path = root / "classes.txt"
    names = tuple(path.read_text(encoding="utf-8-sig").strip().splitlines()) if path.is_file() else ()
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path} names {listed(twice)} more than once; give each class a name of its own")
    return names


def _numbered(row: Labels, seen: dict[str, _Look]) -> tuple[str, ...]:
    """As many classes as the largest id of any mask tells."""
    ids = np.unique(np.concatenate([look.ids for look in seen.values()])) if seen else np.zeros(0, dtype=np.int64)
    ids = ids[~np.isin(ids, row.ignore)]
    top = int(ids.max()) + 1 - int(row.reduce_zero) if len(ids) else 0
    return tuple(str(k) for k in range(max(top, 1)))


def _range(table: NDArray[np.int16]) -> str:
    known = np.flatnonzero(table >= 0)
    return listed([str(k) for k in known], 20)


def _cut(train: Pairs, fraction: float, seed: int) -> dict[str, Pairs]:
    order = np.random.default_rng(seed).permutation(len(train))
    count = min(max(1, round(fraction * len(train))), len(train) - 1)
    return {"train": train.pick(sorted(order[count:])), "val": train.pick(sorted(order[:count]))}
