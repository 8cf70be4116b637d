"""Import of image datasets in Parquet files, as data hubs store them: one row per image, with its label.

The images are written to a folder with list files, byte for byte. Requires the extra `parquet`.
"""

import io
import json
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from PIL import Image

from vpt.core.hub import is_address
from vpt.core.optional import import_optional
from vpt.core.text import comma_list, did_you_mean, pluralize, refuse
from vpt.data.images.files import suffix_for_format, supported_formats
from vpt.data.manifest import preparation, read_manifest
from vpt.datasets.prepared import ImageRecords, Progress, no_progress, write_data_folder
from vpt.errors import DataError

_HUB = "hf://datasets/"
_HUB_ADDRESS = re.compile(r"hf:/{1,2}datasets/(?P<repo>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>.+))?")
_CONVERTED_REVISION = "refs/convert/parquet"  # the branch where the hub keeps its own conversion of other formats
_SPLIT_NAMES = {"train": "train", "validation": "val", "valid": "val", "val": "val", "dev": "val", "test": "test"}
_PARTIAL = re.compile(f"partial-({'|'.join(_SPLIT_NAMES)})", re.IGNORECASE)  # a folder of that conversion
_WORD = re.compile(r"[A-Za-z]+")
_IMAGE_TYPE = re.compile(r"(large_)?binary$|struct<bytes: (large_)?binary\b")


def import_parquet(
    source: Path | str,
    folder: Path,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Create a data folder from Parquet files.

    Splits and order follow the file names. Rows without a label (None or -1, or of a file without that column) are
    left out and noted. After an interruption, the same call resumes.

    Args:
        source: A Parquet file, a folder of them, or "hf://datasets/OWNER/NAME", optionally with "@REVISION".
        folder: The new data folder.
        image_column: Column of images. Default: detected.
        label_column: Column of labels. Default: detected.
        progress: Called after each image.

    Returns:
        The manifest (prepared.json).

    Raises:
        DataError: The source does not exist, its columns are not clear, or `folder` was made from another source or
            from other columns.
    """
    source = re.sub("^hub:", _HUB, source) if isinstance(source, str) else source  # as 0.1.0 had it
    with preparation(folder) as is_missing:
        if is_missing:
            _import(source, folder, image_column, label_column, progress)
    manifest = read_manifest(folder)
    earlier = [re.sub("^hub:", _HUB, str(manifest.get(key))) for key in ("asked", "source")]  # as 0.1.0 wrote it
    if str(source) not in earlier:
        raise DataError(f"{folder} was made from {manifest['source']}, not from {source}; choose another --out")
    for role, requested in (("image", image_column), ("label", label_column)):
        made_with = manifest.get(role)  # earlier versions did not write the column of images
        if None not in (requested, made_with) and made_with != f"column {requested}":
            raise DataError(f"{folder} was made with {role} {made_with}, not {requested}; choose another --out")
    return manifest


def _import(source: Path | str, folder: Path, image: str | None, label: str | None, progress: Progress) -> None:
    root, origin = Path(source), {"source": str(source), "asked": str(source)}
    if is_address(source):
        root, origin["source"], origin["terms"] = _download(str(source))
    tables = {split_name: _ParquetRows(files) for split_name, files in _find_files(root).items()}
    columns = _choose_columns(next(iter(tables.values())), image, label)
    classes, class_indices = _class_indices(tables, columns)
    notes, splits = [], {}
    unused = [name for name in columns.classes if name not in classes]
    if unused:
        notes.append(f"{pluralize(len(unused), 'class')} without any image left out: {comma_list(unused)}")
    for split_name, table in tables.items():
        records, missing = _read_records(split_name, table, columns, class_indices, progress)
        if missing:
            notes.append(f"{pluralize(missing, 'image')} of {split_name} have no label and were left out")
        if len(records):
            splits[split_name] = records
    if "train" not in splits:
        raise DataError(f"{source} has no labeled image for train, only files for {comma_list(list(tables))}; add some")
    list_files = {f"{split_name}.txt": (split_name,) for split_name in splits}
    metadata = {"image": f"column {columns.image}", "label": f"column {columns.label}", **origin, "notes": notes}
    write_data_folder(folder, splits, classes, list_files, metadata, progress)


def _download(address: str) -> tuple[Path, str, str]:
    """Download the Parquet files of a dataset. Return their folder, the address with revision, and the license."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    found = _HUB_ADDRESS.fullmatch(address)
    if found is None:
        raise DataError(f"{address} is no dataset on the Hub; write {_HUB}OWNER/NAME or {_HUB}OWNER/NAME@REVISION")
    repo, requested = found["repo"], found["revision"]
    try:
        for revision in [requested] if requested else [None, _CONVERTED_REVISION]:
            info = huggingface_hub.dataset_info(repo, revision=revision)
            if any(file.rfilename.endswith(".parquet") for file in info.siblings or ()):
                break
        else:
            raise DataError(f"{repo} on the Hub has no Parquet files; download it, and give its folder of images")
        _refuse_partial((PurePath(file.rfilename) for file in info.siblings or ()), address)
        snapshot = huggingface_hub.snapshot_download(
            repo, repo_type="dataset", revision=info.sha, allow_patterns=["*.parquet"]
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise DataError(f"{address} cannot be downloaded: {error}; check the name and the network") from error
    license_name = info.card_data.get("license") if info.card_data else None
    terms = f"as its page states: {license_name}" if license_name else "none stated"
    return Path(snapshot), f"{_HUB}{repo}@{info.sha}", terms


def _find_files(root: Path) -> dict[str, list[Path]]:
    """Return the files of each split in order."""
    found = [root] if root.is_file() else sorted(root.rglob("*.parquet")) if root.is_dir() else []
    found = [file for file in found if not any(part.startswith(".") for part in file.relative_to(root).parts)]
    if not found:
        raise DataError(f"{root} is not a Parquet file or a folder of them; give one of these")
    _refuse_partial((file.relative_to(root) for file in found), str(root))
    by_split: defaultdict[str | None, list[Path]] = defaultdict(list)
    for file in found:
        by_split[_split_of_file(file, root)].append(file)
    unknown = by_split.pop(None, [])
    if not by_split:
        by_split["train"], unknown = unknown, []
    refuse([file.name for file in unknown], f"{root}: files without train, val or test in their names", "rename them")
    for split_name, files in by_split.items():
        folders = sorted({str(file.parent) for file in files})
        if len(folders) > 1:
            raise DataError(f"{root} has {split_name} in {comma_list(folders)}; give one of these folders")
    return {split_name: by_split[split_name] for split_name in ("train", "val", "test") if split_name in by_split}


def _refuse_partial(files: Iterable[PurePath], source: str) -> None:
    """Refuse the folders `partial-SPLIT`, in which the hub puts the first gigabytes of a split that it cut off."""
    partial = sorted({part for file in files for part in file.parts[:-1] if _PARTIAL.fullmatch(part)})
    if partial:
        raise DataError(
            f"{source} has only the beginning of the data, in {comma_list(partial)}: the hub converts no more than the "
            "first gigabytes of a large dataset; download its original files, and give their folder (to import this "
            "part alone, download it, and rename its folders to train, val or test)"
        )


def _split_of_file(file: Path, root: Path) -> str | None:
    """Return the split by a word in the file name (`train-00000-of-00002.parquet`) or folder (`test/0.parquet`)."""
    folders = () if file == root else file.relative_to(root).parts[:-1]
    words = [word.casefold() for text in (file.stem, *reversed(folders)) for word in _WORD.findall(text)]
    return next((_SPLIT_NAMES[word] for word in words if word in _SPLIT_NAMES), None)


class _ParquetRows:
    """The rows of some files, read by row group, because the images of a split may not fit in memory."""

    def __init__(self, files: list[Path]) -> None:
        parquet = import_optional("pyarrow.parquet", "parquet", "a Parquet file")
        self.paths = files
        try:
            self.files = [parquet.ParquetFile(file) for file in files]
        except (ValueError, OSError) as error:  # an ArrowInvalid is a ValueError
            raise DataError(
                f"{comma_list(list(map(str, files)))} cannot be read: {error}; download it again"
            ) from error
        self.schema = self.files[0].schema_arrow
        self.groups = [(file, i) for file in self.files for i in range(file.num_row_groups)]
        self.row_ends = np.cumsum([file.metadata.row_group(i).num_rows for file, i in self.groups])
        self._cached_group: tuple[int, list[Any]] = (-1, [])

    def read_column(self, column: str) -> list[Any]:
        """Return all values of a small column, None for the rows of a file that lacks it."""
        values: list[Any] = []
        for file in self.files:
            has_column = column in file.schema_arrow.names
            values += file.read([column])[column].to_pylist() if has_column else [None] * file.metadata.num_rows
        return values

    def paths_without(self, column: str) -> list[Path]:
        """Return the files that lack a column."""
        found = zip(self.paths, self.files, strict=True)
        return [path for path, file in found if column not in file.schema_arrow.names]

    def read_value(self, column: str, row: int) -> Any:
        """Return one value of a large column. The last row group is kept in memory."""
        group = int(np.searchsorted(self.row_ends, row, side="right"))
        if self._cached_group[0] != group:
            file, i = self.groups[group]
            self._cached_group = (group, file.read_row_group(i, columns=[column])[column].to_pylist())
        return self._cached_group[1][row - self.row_ends[group]]  # from the end of the group


@dataclass(frozen=True)
class _Columns:
    image: str
    label: str
    classes: tuple[str, ...]  # from the metadata of the file; empty if it has none


def _choose_columns(table: _ParquetRows, image: str | None, label: str | None) -> _Columns:
    """Return the columns to read: those requested, those of the hub's metadata, or the only ones of a suitable type."""
    hub_metadata = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    features = hub_metadata.get("info", {}).get("features", {})
    types = {field.name: str(field.type) for field in table.schema}
    images = [name for name, kind in types.items() if _IMAGE_TYPE.match(kind)]
    class_labels = [name for name in types if features.get(name, {}).get("_type") == "ClassLabel"]
    labels = class_labels or [name for name, kind in types.items() if re.fullmatch(r"u?int\d+|(large_)?string", kind)]
    selected = {}
    for role, requested, candidates in (("image", image, images), ("label", label, labels)):
        if requested is not None and requested not in types:
            raise DataError(f"there is no column {requested!r} for the {role}; {did_you_mean(requested, types)}")
        if requested is None and len(candidates) != 1 and role not in candidates:
            available = comma_list([f"{name} ({kind})" for name, kind in types.items()], limit=len(types))
            raise DataError(
                f"{pluralize(len(candidates), 'column')} could be the {role}; name it with --{role}-column: {available}"
            )
        selected[role] = requested or (role if role in candidates else candidates[0])
    return _Columns(**selected, classes=tuple(features.get(selected["label"], {}).get("names", ())))


def _class_indices(tables: dict[str, _ParquetRows], columns: _Columns) -> tuple[tuple[str, ...], dict[int | str, int]]:
    """Return the names of the classes that occur, and value of the label column to class index."""
    values = {value for table in tables.values() for value in table.read_column(columns.label) if value is not None}
    if not any(all(isinstance(value, kind) for value in values) for kind in (str, int)):
        raise DataError(
            f"column {columns.label} contains neither integers nor text; name another one with --label-column"
        )
    used = sorted(value for value in values if isinstance(value, str) or value >= 0)
    if columns.classes and used and used[-1] >= len(columns.classes):
        raise DataError(
            f"column {columns.label} contains the label {used[-1]}, but there are "
            f"{pluralize(len(columns.classes), 'class')}; correct the file or name another column with --label-column"
        )
    names = tuple(columns.classes[value] if columns.classes else str(value) for value in used)
    return names, {value: k for k, value in enumerate(used)}


def _read_records(
    split_name: str, table: _ParquetRows, columns: _Columns, class_indices: dict[int | str, int], progress: Progress
) -> tuple[ImageRecords, int]:
    """Return the labeled images of a split, and the number of images without a label."""
    values = table.read_column(columns.label)
    labels = {row: class_indices[value] for row, value in enumerate(values) if value in class_indices}
    rows = list(labels)
    lacking = table.paths_without(columns.image) if rows else []
    if lacking:
        raise DataError(
            f"{comma_list(list(map(str, lacking)))} of {split_name}: there is no column {columns.image!r} for the "
            "image, as in the other files; give the columns one name in all files, or leave these files out"
        )

    def read_encoded(row: int) -> bytes:
        value = table.read_value(columns.image, row)
        content = value.get("bytes") if isinstance(value, dict) else value
        if not content:
            raise DataError(
                f"row {row} of {split_name} has no image bytes in column {columns.image}: only {value!r:.80}"
            )
        return bytes(content)

    names, faults = [], []
    for done, row in enumerate(rows, start=1):
        try:
            image = Image.open(io.BytesIO(read_encoded(row)), formats=supported_formats())
            names.append(f"{split_name}_{row:06d}{suffix_for_format(image.format)}")
        except DataError as error:
            faults.append(str(error))
        except Exception:  # Pillow raises any kind of error on damaged files
            faults.append(f"row {row} of {split_name} is not an image of a known format")
        progress(f"reading {split_name}", done, len(rows))
    refuse(faults, f"{pluralize(len(faults), 'row')} cannot be used", "correct the files")
    selected = np.array(list(labels.values()), dtype=np.int64)
    records = ImageRecords(tuple(names), selected, lambda i: read_encoded(rows[i]))
    return records, len(values) - len(rows)
