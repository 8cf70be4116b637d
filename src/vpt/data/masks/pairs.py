"""Images and masks of a data folder, found by the names of folders and files, or by the names that a user gives."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from vpt.core.text import comma_list, pluralize
from vpt.data.folders.names import SPLITS, find_split_names, own_words, parse_split_names, role_of
from vpt.data.folders.walk import describe_foreign, walk_images
from vpt.data.masks.layouts import ImageMaskPairs, find_published_pairs
from vpt.data.masks.pair_matching import match_beside, match_stems
from vpt.errors import DataError, SpecError


@dataclass(frozen=True)
class PairNames:
    """Names that a user gives, where those of a folder are not recognized.

    Args:
        images: Folder of the images, such as "pics", anywhere below the data folder. Default: recognized.
        masks: Folder of the masks. Default: recognized.
        mask_suffix: End of the stem of a mask after the stem of its image, such as "_mask". Default: recognized.
        split_names: Names of the split folders, see `parse_split_names`. Default: recognized.
    """

    images: str | None = None
    masks: str | None = None
    mask_suffix: str | None = None
    split_names: str | None = None

    def __post_init__(self) -> None:
        """Check the values. A SpecError is raised for an empty end of names."""
        if self.mask_suffix == "":
            raise SpecError(
                "mask_suffix is empty, and an image and its mask in one folder need different names; move the masks to "
                "a folder of their own (masks/), or give their names an end such as _mask"
            )

    def are_in(self, root: Path) -> bool:
        """Return whether a folder has the folders of images and masks, and the end of names, that are given.

        Args:
            root: The data folder.

        Returns:
            True or False; True where none are given.
        """
        files = [path.relative_to(root) for path in walk_images(root)]
        folders = {folder.parts for file in files for folder in file.parents}
        wanted = [PurePosixPath(name).parts for name in (self.images, self.masks) if name is not None]
        has_folders = all(any(parts[len(parts) - len(end) :] == end for parts in folders) for end in wanted)
        return has_folders and (self.mask_suffix is None or any(file.stem.endswith(self.mask_suffix) for file in files))

    @property
    def are_given(self) -> bool:
        """True if a name is given."""
        return any(value is not None for value in (self.images, self.masks, self.mask_suffix, self.split_names))


@dataclass(frozen=True)
class FoundPairs:
    """Images and masks of a data folder.

    Args:
        splits: Split to its pairs; without folders of splits all are "train".
        labels: Name of the scheme in `LABEL_SCHEMES` that the layout is known for.
        faults: Images without a mask, masks without an image, and the like.
        notes: Messages for the user that require no action.
        in_folders_of: Folders that could as well be classes, with masks beside their images.
    """

    splits: Mapping[str, ImageMaskPairs]
    labels: str = "plain"
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    in_folders_of: tuple[str, ...] = ()


@dataclass(frozen=True)
class _File:
    """An image file: its split, its role, and the key that images share with their masks: folder and stem."""

    path: Path
    split: str
    role: Literal["image", "mask"] | None
    folder: str
    stem: str


@dataclass
class _Group:
    """Images and masks of one split whose folders have the same key."""

    images: dict[str, Path] = field(default_factory=dict)
    masks: dict[str, Path] = field(default_factory=dict)


def find_pairs(root: Path, names: PairNames | None = None, wanted: Sequence[str] = SPLITS) -> FoundPairs | None:
    """Return the images and masks of a data folder.

    Args:
        root: The data folder.
        names: Names that a user gives. Default: all are recognized.
        wanted: Splits whose files are paired. Default: all.

    Returns:
        The pairs; None if the folder holds no masks that are recognized.

    Raises:
        DataError: Several folders may hold the masks, or given names do not exist.
    """
    names = names or PairNames()
    if not names.are_given:
        published = find_published_pairs(root, wanted)
        if published is not None:
            labels, splits, layout_faults = published
            return FoundPairs(splits, labels, tuple(layout_faults))
    unread: list[str] = []
    paths = walk_images(root, unread)
    if not names.are_given and not _name_masks(root, paths):
        return None
    files = [file for file in _read_names(root, paths, names) if file.split in wanted]
    masks = [file for file in files if file.role == "mask"]
    images = [file for file in files if file.role == "image"] or [file for file in files if file.role is None]
    if not masks or not images:
        if names.images or names.masks or names.mask_suffix:
            raise DataError(_nothing_found(root, names, len(images), len(masks)) + describe_foreign(unread))
        return None
    _refuse_two_folders(root, masks)
    groups: defaultdict[tuple[str, str], _Group] = defaultdict(_Group)
    faults: list[str] = []
    for file in images:
        _add(groups[file.split, file.folder].images, file, root, faults)
    for file in masks:
        _add(groups[file.split, file.folder].masks, file, root, faults)
    matched = {key: match_stems(group.images, group.masks) for key, group in groups.items()}
    if not any(matched.values()):
        if names.are_given:
            raise DataError(_nothing_found(root, names, len(images), len(masks)))
        return None
    return _collect(root, groups, matched, faults)


def _name_masks(root: Path, paths: Sequence[Path]) -> bool:
    """Return True if the name of a folder or of a file is one of masks."""
    folders = {path.parent for path in paths}
    parts = {part for folder in folders for part in folder.relative_to(root).parts}
    return any(role_of(part) == "mask" for part in parts) or any(role_of(path.stem) == "mask" for path in paths)


def _read_names(root: Path, paths: Sequence[Path], names: PairNames) -> list[_File]:
    """Return what the names of folders and files say of each file."""
    relative = [path.relative_to(root) for path in paths]
    given_splits = parse_split_names(names.split_names)
    split_of = _splits_of_folders(relative, given_splits)
    stems: defaultdict[Path, set[str]] = defaultdict(set)
    for path in relative:
        stems[path.parent].add(path.stem)
    folders = {folder: _read_folder(folder, split_of, names) for folder in stems}
    partners = {folder: match_beside(found) for folder, found in stems.items()} if names.masks is None else {}
    files = []
    for path, full in zip(relative, paths, strict=True):
        split, role, folder = folders[path.parent]
        stem = path.stem
        if names.mask_suffix is not None:
            if stem.removesuffix(names.mask_suffix) not in ("", stem) and (names.masks is None or role == "mask"):
                role, stem = "mask", stem.removesuffix(names.mask_suffix)
            elif role == "mask":
                continue
        elif role != "mask" and role_of(stem) == "mask" and names.masks is None:
            partner = partners[path.parent].get(stem)
            if partner is not None:
                role, stem = "mask", partner
        files.append(_File(full, split, role, folder, stem))
    return files


def _splits_of_folders(paths: Iterable[Path], given: Mapping[str, str] | None) -> dict[Path, str]:
    """Return the split of each folder that names one."""
    folders = {parent for path in paths for parent in path.parents if parent.name}
    if given is not None:
        return {folder: split for folder in folders for split, name in given.items() if folder.name == name}
    children: defaultdict[Path, list[str]] = defaultdict(list)
    for folder in folders:
        children[folder.parent].append(folder.name)
    return {
        parent / name: split
        for parent, beside in children.items()
        for split, names in find_split_names(sorted(beside)).items()
        for name in names
    }


def _read_folder(
    folder: Path, split_of: Mapping[Path, str], names: PairNames
) -> tuple[str, Literal["image", "mask"] | None, str]:
    """Return the split, the role and the key of a folder: its path without the words for split and role."""
    parts, given_splits = folder.parts, parse_split_names(names.split_names) or {}
    roles: list[Any] = [role_of(part) for part in parts]
    dropped = {index for index, part in enumerate(parts) if part in given_splits.values()}
    for role, name in (("image", names.images), ("mask", names.masks)):
        if name is None:
            continue
        wanted = PurePosixPath(name).parts
        roles = [None if known == role else known for known in roles]  # no other folder has the role
        for start in range(len(parts) - len(wanted) + 1):
            end = start + len(wanted)
            if wanted and parts[start:end] == wanted:
                dropped.update(range(start, end))
                roles[start:end] = [None] * (len(wanted) - 1) + [role]
        if not wanted and not parts:
            roles = [role]
    split, key = "train", []
    for index, part in enumerate(parts):
        path = Path(*parts[: index + 1])
        split = split_of.get(path, split)
        if index not in dropped:
            key.append(" ".join(own_words(part)) if path in split_of or role_of(part) is not None else part)
    found = [known for known in roles if known is not None]  # the deepest folder decides
    return split, found[-1] if found else None, "/".join(filter(None, key))


def _add(found: dict[str, Path], file: _File, root: Path, faults: list[str]) -> None:
    if file.stem in found:
        faults.append(f"{file.path.relative_to(root)}: {found[file.stem].relative_to(root)} has the same name")
    found[file.stem] = file.path


def _collect(
    root: Path,
    groups: Mapping[tuple[str, str], _Group],
    matched: Mapping[tuple[str, str], Mapping[str, str]],
    faults: list[str],
) -> FoundPairs:
    """Return the pairs of all groups, with faults of the files that have no partner."""
    pairs: defaultdict[str, list[tuple[Path, Path]]] = defaultdict(list)
    notes: list[str] = []
    used_masks = {mask.parent for key, pairing in matched.items() for mask in _masks_of(groups[key], pairing)}
    for (split, folder), group in groups.items():
        pairing = matched[split, folder]
        pairs[split] += [(group.images[image], group.masks[mask]) for image, mask in pairing.items()]
        without_mask = [path for stem, path in group.images.items() if stem not in pairing]
        without_image = [
            path for stem, path in group.masks.items() if stem not in pairing.values() and path.parent in used_masks
        ]
        if without_mask and not pairing:
            where = without_mask[0].parent.relative_to(root)
            text = f"{where}: there is no mask for its {pluralize(len(without_mask), 'image')}"
            if split == "test":
                notes.append(f"{text}; it is left out")
                continue
            faults.append(f"{text}; add masks, or move the folder away")
        else:
            faults += [f"{path.relative_to(root)}: an image without a mask" for path in without_mask]
        faults += [f"{path.relative_to(root)}: a mask without an image" for path in without_image]
    splits = {split: _make_pairs(root, pairs[split]) for split in SPLITS if pairs[split]}
    beside = sorted(
        {image.parent.name for found in pairs.values() for image, mask in found if image.parent == mask.parent}
    )
    images, masks = (
        sorted({path.parent.relative_to(root).as_posix() for found in pairs.values() for path in paths})
        for paths in zip(*(pair for found in pairs.values() for pair in found), strict=True)
    )
    notes.append(f"images are those in {comma_list(images)}, masks those in {comma_list(masks)}")
    return FoundPairs(splits, "plain", tuple(faults), tuple(notes), tuple(beside) if len(beside) > 1 else ())


def _masks_of(group: _Group, pairing: Mapping[str, str]) -> list[Path]:
    return [group.masks[mask] for mask in pairing.values()]


def _make_pairs(root: Path, pairs: Iterable[tuple[Path, Path]]) -> ImageMaskPairs:
    ordered = sorted(pairs)
    names = tuple(image.relative_to(root).with_suffix("").as_posix() for image, _ in ordered)
    return ImageMaskPairs(tuple(image for image, _ in ordered), tuple(mask for _, mask in ordered), names)


def _refuse_two_folders(root: Path, masks: Sequence[_File]) -> None:
    """Refuse masks of the same images in two folders."""
    folders: defaultdict[tuple[str, str, str], set[Path]] = defaultdict(set)
    for file in masks:
        folders[file.split, file.folder, file.stem].add(file.path.parent.relative_to(root))
    several = max(folders.values(), key=len)
    if len(several) > 1:
        names = comma_list(sorted(folder.as_posix() for folder in several))
        raise DataError(f"{root} holds masks of the same names in {names}; choose the folder with --masks")


def _nothing_found(root: Path, names: PairNames, num_images: int, num_masks: int) -> str:
    given = {
        "images": names.images,
        "masks": names.masks,
        "mask-suffix": names.mask_suffix,
        "split-names": names.split_names,
    }
    options = " ".join(f"--{name} {value}" for name, value in given.items() if value is not None)
    return (
        f"{root}: with {options} there are {pluralize(num_images, 'image')} and {pluralize(num_masks, 'mask')}, and no "
        "mask has the name of an image; give the folders below the data folder, and what follows the name of the image "
        "in that of its mask"
    )
