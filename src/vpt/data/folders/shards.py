"""WebDataset shards: tar files whose members of one name are an image and its label, such as `7.jpg` and `7.cls`.

Members are read by their position in the tar file, which is not extracted. Images and labels in `.cls` (a number or a
name) or `.json` are decoded, and nothing else; a pickle is refused.
"""

import json
import re
import tarfile
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vpt.core.damage import FAULTS, forward_members
from vpt.core.text import comma_list, pluralize, refuse
from vpt.data.checks import check_classes
from vpt.data.dataset import Dataset, Split
from vpt.data.folders.names import SPLITS, find_split_names, split_words
from vpt.data.folders.walk import exists, walk_images
from vpt.data.images.files import IMAGE_SUFFIXES
from vpt.data.images.inputs import StoredImage
from vpt.errors import DataError

SHARD_SUFFIX = ".tar"
_PICKLES = ("pyd", "pickle", "pkl", "pth", "pt", "joblib")
_LABEL_KEYS = ("label", "cls", "class", "target")
_MAX_LABEL_BYTES = 2**20
_NAME = re.compile(r"(?P<key>(?:.*/)?[^./][^./]*)\.(?P<kind>[^/]+)")  # as webdataset splits it: at the first dot


@dataclass(frozen=True, slots=True)
class TarImage(StoredImage):
    """An image in a tar file.

    Attributes:
        shard: The tar file.
        offset: Position of its first byte.
        size: Number of bytes.
    """

    shard: Path
    offset: int
    size: int

    def read(self) -> bytes:  # noqa: D102
        with self.shard.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def find_shards(source: Path) -> list[Path]:
    """Return the shards of a source.

    Args:
        source: A tar file, or a folder with tar files, or folders of them, and no images at any depth.

    Returns:
        The shards in the order of their names; none if the source is something else.
    """
    if not exists(source):
        return []
    if source.is_file():
        return [source] if source.suffix == SHARD_SUFFIX else []
    found = sorted((*source.glob(f"[!.]*{SHARD_SUFFIX}"), *source.glob(f"[!.]*/[!.]*{SHARD_SUFFIX}")))
    return [] if found and walk_images(source) else found


def read_shards(source: Path, *, complete: bool = True) -> Dataset:
    """Read the labels of shards, and where their images are.

    A word of the name of a shard, or of its folder, is its split: `train-000.tar`, `val/0.tar`. Without any, all is
    train. Numbers are classes in their order, names in alphabetical order.

    Args:
        source: A tar file, or a folder with shards.
        complete: False also reads shards without a training split, or of one class. Default: True.

    Returns:
        The dataset. A split without images is empty.

    Raises:
        DataError: A shard holds a pickle or cannot be read, or an image has no label. The message names every fault.
    """
    faults: list[str] = []
    unused: Counter[str] = Counter()
    by_split: defaultdict[str, list[tuple[str, TarImage, str]]] = defaultdict(list)
    for shard, split in _splits_of(source).items():
        try:
            by_split[split] += _read_shard(shard, faults, unused)
        except DataError:
            raise
        except (tarfile.TarError, *FAULTS, MemoryError) as error:  # tarfile itself takes sizes as they are written
            reason = str(error) or type(error).__name__
            faults.append(
                f"{shard.name} cannot be read as a plain tar file: {reason}; decompress it, or write it again"
            )
    refuse(faults, f"{source}: {pluralize(len(faults), 'fault')} in its shards")
    labels = {label for samples in by_split.values() for _, _, label in samples}
    are_numbers = all(label.isdecimal() for label in labels)
    classes = tuple(sorted(labels, key=int)) if are_numbers else tuple(sorted(labels))
    present = [name for name in SPLITS if by_split[name]]
    if not present:
        raise DataError(f"{source} has no shard with an image; give another folder")
    if complete:
        if "train" not in present:
            raise DataError(f"{source} has no shard of train with an image, only of {comma_list(present)}; add one")
        check_classes(source, {name: Counter(label for _, _, label in by_split[name]) for name in present})
    index = {name: number for number, name in enumerate(classes)}
    train, val, test = (_make_split(by_split[name], index) for name in SPLITS)
    ignored = tuple(f"{pluralize(count, 'member')} *.{kind}" for kind, count in sorted(unused.items()))
    return Dataset(source.resolve().stem, classes, train, val, test, f"shards {source}", ignored=ignored)


def _splits_of(source: Path) -> dict[Path, str]:
    """Return the split of each shard."""
    found: dict[Path, str | None] = {}
    for shard in find_shards(source):
        in_folder_of_split = source not in (shard, shard.parent)
        words = split_words(shard.stem) or (split_words(shard.parent.name) if in_folder_of_split else ())
        found[shard] = words[0] if words else None
    unnamed = [shard.name for shard, split in found.items() if split is None]
    if unnamed and len(unnamed) < len(found):
        raise DataError(f"{source}: the names of {comma_list(unnamed)} name no split, and others do; rename them")
    words_of = find_split_names([word for word in dict.fromkeys(found.values()) if word is not None])
    split_of = {word: split for split, words in words_of.items() for word in words}
    return {shard: "train" if word is None else split_of[word] for shard, word in found.items()}


def _read_shard(shard: Path, faults: list[str], unused: Counter[str]) -> list[tuple[str, TarImage, str]]:
    """Return the name, the image and the label of each sample."""
    images: dict[str, TarImage] = {}
    labels: dict[str, str] = {}
    with tarfile.open(shard, "r:") as tar:
        for member in forward_members(tar):
            tar.members = []  # type: ignore[attr-defined]  # else all are kept
            name = _NAME.fullmatch(member.name)
            if name is not None and (member.islnk() or member.issym()):
                unused[f"{name['kind'].lower()} (a link)"] += 1
            if not member.isreg() or name is None:
                continue
            key, kind = name["key"], name["kind"].lower()
            last = kind.rpartition(".")[2]
            if last in _PICKLES:
                raise DataError(
                    f"{shard.name} holds {member.name}, a pickle, which can run any program when it is read; write "
                    "images as .jpg or .png, and labels as .cls or .json"
                )
            if f".{last}" in IMAGE_SUFFIXES:
                if key in images:
                    faults.append(f"{shard.name}: {key} has two images")
                images[key] = TarImage(shard, member.offset_data, member.size)
            elif kind in ("cls", "json"):
                file = tar.extractfile(member)
                content = b"" if file is None else file.read(_MAX_LABEL_BYTES)
                label = _read_label(kind, content)
                if label is None and kind == "cls":
                    faults.append(f"{shard.name}: {member.name} holds no label: {content[:40]!r}")
                elif label is not None:
                    labels.setdefault(key, label)
            else:
                unused[kind] += 1
    missing = [key for key in images if key not in labels]
    faults += [f"{shard.name}: {key} has an image and no label in {key}.cls or {key}.json" for key in missing]
    return [(f"{shard.name}/{key}", image, labels[key]) for key, image in images.items() if key in labels]


def _read_label(kind: str, content: bytes) -> str | None:
    """Return the label in a member, or None without one."""
    try:
        text = content.decode().strip()
        if kind == "json":
            values = json.loads(text)
            if isinstance(values, dict):
                values = next((values[key] for key in _LABEL_KEYS if key in values), None)
            text = str(values) if isinstance(values, str | int) and not isinstance(values, bool) else ""
        return (str(int(text)) if text.isdecimal() else text) or None
    except (ValueError, RecursionError):  # no UTF-8 or JSON, a number of thousands of digits, or a nesting as deep
        return None


def _make_split(samples: list[tuple[str, TarImage, str]], index: Mapping[str, int]) -> Split:
    images = tuple(image for _, image, _ in samples)
    labels = np.array([index[label] for _, _, label in samples], dtype=np.int64)
    return Split(images, labels, tuple(name for name, _, _ in samples))
