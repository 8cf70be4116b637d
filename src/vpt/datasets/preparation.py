"""Preparation of a benchmark task from downloaded files, with verification of the source and of the folder."""

import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from vpt.core.text import bullets, pluralize, refuse
from vpt.data.dataset import Dataset
from vpt.data.images.deep_colors import read_deep_colors
from vpt.data.images.files import supported_formats
from vpt.data.manifest import preparation, read_manifest
from vpt.data.tables.list_files import has_list_files, read_list_files
from vpt.datasets.download_dir import DownloadDir, MissingFilesError, RemoteFile, check_download, extract_archive
from vpt.datasets.prepared import ImageRecords, Progress, SourceData, no_progress, write_data_folder
from vpt.datasets.published_splits import find_fgvc_lists, split_by_lists, split_by_names
from vpt.datasets.task import BenchmarkTask
from vpt.errors import DataError

_PUBLISHED_LISTS = "lists train.json, val.json, test.json"
UNKNOWN_CHECKSUM = "no published checksum is known; the count is verified"


def prepare_task(
    task: BenchmarkTask,
    out: Path,
    source: Path | None = None,
    split_files: Path | None = None,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Create the folder `out / task.name`, unless it is prepared already.

    Image files are copied byte for byte, arrays are stored as PNG. After an interruption, the same call resumes. If
    files are missing, the message contains `instructions`.

    Args:
        task: The task.
        out: Parent of the new folder.
        source: Folder of the downloaded files, as archives or extracted, also as torchvision extracts them.
        split_files: The published name file of VTAB, or the folder of train.json, val.json and test.json of FGVC.
            Default: the published order is computed.
        progress: Called after each file.

    Returns:
        The manifest (prepared.json).

    Raises:
        DataError: Files are missing or damaged, the source or the split differs from the published one, or the folder
            was made with another split than that of `split_files`.
    """
    folder = out / task.name
    with preparation(folder) as is_missing:
        if is_missing:
            _prepare(task, out, source, split_files, progress)
    manifest = read_manifest(folder)
    asked = None if split_files is None else _describe_split_files(task, split_files)
    if asked not in (None, manifest.get("split", asked)):
        raise DataError(f"{folder} was made with the split {manifest['split']!r}, not {asked!r}; choose another --out")
    return manifest


def _prepare(task: BenchmarkTask, out: Path, source: Path | None, split_files: Path | None, progress: Progress) -> None:
    try:
        source_data, checksums = _read_source(task, out, source, progress)
    except MissingFilesError as error:
        raise DataError(f"{task.name}: {error}\n{instructions(task, out)}") from error
    _verify_source(task, source_data)
    splits, split_description = _make_splits(task, source_data, split_files)
    differs = f"{task.name}: the split differs from that of the benchmark"
    refuse(task.size_faults(splits), differs, "give its published lists")
    metadata = {
        "task": task.name,
        "benchmark": task.benchmark,
        "label": task.label_description,
        "split": split_description,
        "source": task.source.homepage,
        "terms": task.source.terms,
        "citation": task.source.citation,
        "checksums": checksums,
        "notes": [*source_data.notes, *([f"{task.name}: {task.remark}"] if task.remark else [])],
    }
    write_data_folder(out / task.name, splits, source_data.classes, task.list_files, metadata, progress)


def instructions(task: BenchmarkTask, out: Path | str = "FOLDER") -> str:
    """Return the instructions for downloading the files of a task.

    Args:
        task: The task.
        out: The output folder to show in the command. Default: "FOLDER".

    Returns:
        Files, addresses, terms and the next command.
    """
    source, lines = task.source, []
    for remote in source.files:
        size = "" if remote.size is None else f" ({remote.size:,} bytes)"
        checksum = remote.sha256 or f"of {remote.name}: {UNKNOWN_CHECKSUM}"
        lines += [f"{remote.name}{size}  {remote.url}", f"  SHA-256 {checksum}"]
    manual_text = f"\n  by hand: {source.manual_steps}" if source.manual_steps else ""
    return (
        f"{task.name} ({task.benchmark}, {task.group}: {task.classes} classes, {task.sizes_text} images) is at "
        f"{source.homepage}\n  terms: {source.terms}\n  cite: {source.citation}{manual_text}\n"
        f"  download into one folder:{bullets(lines, limit=len(lines))}\n"
        f"then: vpt data prepare {task.name} --from DOWNLOADS --out {out}"
    )


def _read_source(
    task: BenchmarkTask, out: Path, source: Path | None, progress: Progress
) -> tuple[SourceData, dict[str, str]]:
    """Return the images of the source, and the state of each checksum. Archives are extracted if necessary."""
    if source is None:
        raise DataError(f"{task.name} needs downloaded files:\n{instructions(task, out)}")
    if not source.is_dir():
        raise DataError(f"{source} is not a folder; give the folder of the downloaded files as --from")
    unpacked, source_dir = out / ".unpacked" / task.source.name, DownloadDir(source)
    downloads = DownloadDir(source, unpacked)
    found = {remote: source_dir.find(remote.name)[0] for remote in task.source.files if source_dir.has(remote.name)}
    checksums = dict.fromkeys((remote.name for remote in task.source.files), "not needed: already extracted")

    def verify(files: dict[RemoteFile, Path]) -> None:
        faults = [fault for remote, file in files.items() if (fault := check_download(file, remote, progress))]
        refuse(faults, f"{len(faults)} downloaded files differ from the published ones")
        for remote in files:
            checksums[remote.name] = f"SHA-256 {remote.sha256}" if remote.sha256 else UNKNOWN_CHECKSUM

    verify({remote: file for remote, file in found.items() if not remote.is_archive})
    try:
        return task.read_source(downloads), checksums
    except MissingFilesError:
        archives = {
            remote: file
            for remote, file in found.items()
            if remote.is_archive and not (unpacked / remote.name).is_dir()
        }
        if not archives:
            raise
    verify(archives)
    for i, archive in enumerate(archives.values()):
        progress(f"extracting {task.name}", i, len(archives))
        extract_archive(archive, unpacked)
    progress(f"extracting {task.name}", len(archives), len(archives))
    return task.read_source(downloads), checksums


def _verify_source(task: BenchmarkTask, source_data: SourceData) -> None:
    """Compare counts, classes, labels and names with those of the task, and report every fault."""
    faults = []
    if len(source_data.classes) != task.classes:
        faults.append(f"{len(source_data.classes)} classes, published are {task.classes}")
    for split_name, count in task.published_sizes.items():
        found = len(source_data.splits[split_name]) if split_name in source_data.splits else 0
        if count is not None and found != count:
            faults.append(f"{split_name}: {found} images, published are {count}")
    for split_name, records in source_data.splits.items():
        invalid_labels = records.labels[(records.labels < 0) | (records.labels >= task.classes)]
        if len(invalid_labels):
            allowed = f"0 to {task.classes - 1}"
            faults.append(f"{split_name}: {len(invalid_labels)} labels outside {allowed}, such as {invalid_labels[0]}")
        names = Counter(zip(records.labels.tolist(), records.names, strict=True))
        duplicates = [name for (_, name), count in names.items() if count > 1]
        if duplicates:
            faults.append(f"{split_name}: {len(duplicates)} duplicate names, such as {duplicates[0]!r}")
    advice = "extract or download it again; an incomplete dataset cannot be compared with published results"
    refuse(faults, f"{task.name}: the source differs from the published dataset", advice)


def _make_splits(
    task: BenchmarkTask, source_data: SourceData, split_files: Path | None
) -> tuple[dict[str, ImageRecords], str]:
    """Return train, val and test, and a description of the split."""
    spec = task.split_spec
    if spec.limits is not None:
        splits = spec.apply(source_data.splits)
        if split_files is not None:
            return split_by_names(task, splits, source_data, split_files), _describe_split_files(task, split_files)
        slices = ", ".join(f"{split_name} {text}" for split_name, text in spec.slices.items())
        return splits, f"{slices}; of train and val the first {spec.limits}, all in published order"
    lists = find_fgvc_lists(split_files or source_data.folder)
    if lists:
        return split_by_lists(lists, source_data), _PUBLISHED_LISTS
    if split_files is not None:
        raise DataError(
            f"{split_files} does not contain train.json, val.json and test.json; give the folder of these lists"
        )
    return spec.apply(source_data.splits), (
        f"val is drawn by vpt, {spec.val}: the lists of the paper's authors were not next to the data"
        if "[" in spec.val
        else "the publisher's splits"
    )


def _describe_split_files(task: BenchmarkTask, split_files: Path) -> str:
    """Return the description of a split by published files."""
    return _PUBLISHED_LISTS if task.split_spec.limits is None else f"published names in {split_files.name}"


def check_folder(folder: Path, task: BenchmarkTask | None = None, progress: Progress = no_progress) -> Dataset:
    """Verify a data folder: lists, number of images, classes, labels, and the header of every image.

    If the lists cannot be read, only their faults are reported.

    Args:
        folder: The data folder.
        task: The expected task. Default: only lists and images are verified.
        progress: Called after each image.

    Returns:
        The dataset.

    Raises:
        DataError: The folder is faulty. The message names every fault.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} does not exist\n{_prepare_hint(task, {})}".rstrip())
    manifest = read_manifest(folder)
    if not has_list_files(folder):
        hint = _prepare_hint(task, manifest)
        raise DataError(f"{folder} contains no list files such as train800.txt\n{hint}".rstrip())
    dataset = read_list_files(folder)
    faults = []
    if task is not None:
        if manifest and manifest.get("task") != task.name:
            faults.append(f"prepared.json says it is {manifest.get('task')!r}, not {task.name!r}")
        faults += task.size_faults(dataset.splits)
        if len(dataset.classes) != task.classes:
            faults.append(f"labels 0 to {len(dataset.classes) - 1}, {task.name} has 0 to {task.classes - 1}")
    images = [image for split in dataset.splits.values() for image in zip(split.names, split.paths, strict=True)]
    for done, (name, path) in enumerate(images, start=1):
        fault = _header_error(path)
        if fault:
            faults.append(f"{name}: {fault}")
        progress(f"checking {folder.name}", done, len(images))
    refuse(faults, f"{folder}: {pluralize(len(faults), 'fault')}", _prepare_hint(task, manifest), limit=len(faults))
    return dataset


def _header_error(path: Path) -> str | None:
    """Return the fault of an image header, or None. Pixels are decoded only of what Pillow cannot open."""
    if path.exists() and not path.is_file():  # opening a pipe blocks
        return "not a regular file"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # decoding reports them
            try:
                with Image.open(path, formats=supported_formats()) as image:
                    return None if min(image.size) > 0 else "no pixels"
            except UnidentifiedImageError:
                with path.open("rb") as file:
                    if read_deep_colors(file, None) is None:
                        raise
                return None
    except Exception as error:  # Pillow raises any kind of error on damaged files
        return f"cannot be read as an image: {error}"


def _prepare_hint(task: BenchmarkTask | None, manifest: Mapping[str, Any]) -> str:
    """Return what creates the folder of a task. Only what `vpt data prepare` made is to be deleted."""
    if task is None:
        return ""
    is_own = manifest.get("task") == task.name
    start = "to create it again: delete the folder, then" if is_own else f"to create {task.name} in a new folder:"
    return f"{start} run `vpt data prepare {task.name} --from DOWNLOADS --out FOLDER`"
