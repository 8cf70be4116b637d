"""From a publisher's files to a folder with list files: verified, lossless, and resumable."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from vpt.core.text import bullets
from vpt.data.manifest import is_prepared, read_manifest
from vpt.datasets.download_dir import DownloadDir, MissingFilesError, RemoteFile, check_download, extract_archive
from vpt.datasets.prepared.progress import Progress, no_progress
from vpt.datasets.prepared.records import ImageRecords, SourceData
from vpt.datasets.prepared.writer import write_data_folder
from vpt.datasets.published_splits import find_fgvc_lists, split_by_lists, split_by_names
from vpt.datasets.split_spec import SplitSpec
from vpt.datasets.task import BenchmarkTask
from vpt.errors import DataError

UNKNOWN_CHECKSUM = "no published checksum is known; the count is verified"


def prepare_task(
    task: BenchmarkTask,
    out: Path,
    source: Path | None = None,
    split_files: Path | None = None,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Make the folder `out / task.name`, and return what it says of itself (prepared.json).

    source: the folder of the downloaded files, packed or unpacked, also as torchvision unpacks them.
    split_files: VTAB's published name file, or the folder of FGVC's train.json, val.json and test.json.

    Image files are copied as they are, arrays become PNG. Interrupted or killed, the same call goes on. What is
    prepared already is left alone. Raises DataError with `instructions` where files are missing, and naming every
    fault where counts, labels or checksums are not the published ones.
    """
    folder = out / task.name
    if is_prepared(folder):
        return _manifest(folder)
    source_data, checksums = _read_source(task, out, source, progress)
    _verify_source(task, source_data)
    splits, split_description = _make_splits(task, source_data, split_files)
    _verify_sizes(task, splits)
    notes = [*source_data.notes, *([f"{task.name}: {task.remark}"] if task.remark else [])]
    write_data_folder(
        folder,
        splits,
        source_data.classes,
        task.list_files,
        {
            "task": task.name,
            "benchmark": task.benchmark,
            "label": task.label_description,
            "split": split_description,
            "source": task.source.homepage,
            "terms": task.source.terms,
            "citation": task.source.citation,
            "checksums": checksums,
            "notes": notes,
        },
        progress,
    )
    return _manifest(folder)


def _manifest(folder: Path) -> dict[str, Any]:
    manifest = read_manifest(folder)
    assert manifest is not None
    return manifest


def instructions(task: BenchmarkTask, out: Path | str = "FOLDER") -> str:
    """What to download for a task, from where, and under which terms."""
    source = task.source
    files = [f"{remote.name}{_format_size(remote)}  {remote.url}" for remote in source.files]
    checksum_lines = [
        f"SHA-256 {remote.sha256 or 'of ' + remote.name + ': ' + UNKNOWN_CHECKSUM}" for remote in source.files
    ]
    file_lines = [text for pair in zip(files, checksum_lines, strict=True) for text in (pair[0], f"  {pair[1]}")]
    manual_text = f"\n  by hand: {source.manual_steps}" if source.manual_steps else ""
    return (
        f"{task.name} ({task.benchmark}, {task.group}: {task.classes} classes, {task.sizes_text} images) is at "
        f"{source.homepage}\n  terms: {source.terms}\n  cite: {source.citation}{manual_text}\n"
        f"  download into one folder:{bullets(file_lines, limit=len(file_lines))}\n"
        f"then: vpt data prepare {task.name} --from DOWNLOADS --out {out}"
    )


def _format_size(remote: RemoteFile) -> str:
    return "" if remote.size is None else f" ({remote.size:,} bytes)"


def _read_source(
    task: BenchmarkTask, out: Path, source: Path | None, progress: Progress
) -> tuple[SourceData, dict[str, str]]:
    """The source data, and for each file what is known of its checksum. Archives are unpacked where that is needed."""
    unpacked = out / ".unpacked" / task.source.name
    if source is None:
        raise DataError(f"nothing to prepare {task.name} from:\n{instructions(task, out)}")
    if not source.is_dir():
        raise DataError(f"{source} is no folder; --from takes the folder of the downloaded files")
    downloads, source_dir = DownloadDir(source, unpacked), DownloadDir(source)
    found_files = {
        remote: source_dir.find(remote.name)[0] for remote in task.source.files if source_dir.has(remote.name)
    }
    plain_files = [remote for remote in found_files if not remote.is_archive]
    checksums = dict.fromkeys((remote.name for remote in task.source.files), "not needed: it was unpacked already")
    _verify_checksums(plain_files, found_files, checksums, progress)
    try:
        return task.read_source(downloads), checksums
    except MissingFilesError as error:
        archives = [remote for remote in found_files if remote.is_archive and not (unpacked / remote.name).is_dir()]
        if not archives:
            raise DataError(f"{task.name}: {error}\n{instructions(task, out)}") from error
    _verify_checksums(archives, found_files, checksums, progress)
    for i, remote in enumerate(archives):
        progress(f"unpacking {task.name}", i, len(archives))
        extract_archive(found_files[remote], unpacked)
    progress(f"unpacking {task.name}", len(archives), len(archives))
    try:
        return task.read_source(downloads), checksums
    except MissingFilesError as error:
        raise DataError(f"{task.name}: {error}\n{instructions(task, out)}") from error


def _verify_checksums(
    remotes: list[RemoteFile], found_files: dict[RemoteFile, Path], checksums: dict[str, str], progress: Progress
) -> None:
    faults = [fault for remote in remotes if (fault := check_download(found_files[remote], remote, progress))]
    if faults:
        raise DataError(f"{len(faults)} downloaded files are not the published ones:{bullets(faults)}")
    checksums.update(
        {remote.name: f"SHA-256 {remote.sha256}" if remote.sha256 else UNKNOWN_CHECKSUM for remote in remotes}
    )


def _verify_source(task: BenchmarkTask, source_data: SourceData) -> None:
    """Counts, classes, labels and names against the row; every fault at once."""
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
            faults.append(
                f"{split_name}: {len(invalid_labels)} labels outside 0 to {task.classes - 1}, such as {invalid_labels[0]}"
            )
        duplicates = [
            name
            for name, count in Counter(zip(records.labels.tolist(), records.names, strict=True)).items()
            if count > 1
        ]
        if duplicates:
            faults.append(f"{split_name}: {len(duplicates)} names stand twice, such as {duplicates[0][1]!r}")
    if faults:
        raise DataError(
            f"{task.name}: the source is not what its publisher has:{bullets(faults)}\n"
            "unpack or download it again; a part of a data set cannot be compared with published figures"
        )


def _make_splits(
    task: BenchmarkTask, source_data: SourceData, split_files: Path | None
) -> tuple[dict[str, ImageRecords], str]:
    """train, val and test, and how they came about."""
    if task.split_spec.limits is None:
        files = (
            find_fgvc_lists(split_files)
            if split_files is not None
            else source_data.folder and find_fgvc_lists(source_data.folder)
        )
        if split_files is not None and files is None:
            raise DataError(
                f"{split_files} holds no train.json, val.json and test.json; give the folder of the published lists"
            )
        if files:
            return split_by_lists(files, source_data), "lists " + ", ".join(file.name for file in files.values())
    splits = task.split_spec.apply(source_data.splits)
    if task.split_spec.limits is None:
        return splits, _describe_drawn_val(task.split_spec)
    if split_files is not None:
        return split_by_names(task, splits, source_data, split_files), f"published names in {split_files.name}"
    slices = f"train {task.split_spec.train}, val {task.split_spec.val}, test {task.split_spec.test}"
    return splits, f"{slices}; of train and val the first {task.split_spec.limits}, all in published order"


def _describe_drawn_val(split_spec: SplitSpec) -> str:
    if "[" not in split_spec.val:
        return "the publisher's splits"
    return f"val is vpt's own draw, {split_spec.val}: the lists of the paper's authors were not beside the data"


def _verify_sizes(task: BenchmarkTask, splits: dict[str, ImageRecords]) -> None:
    wrong = [
        f"{split_name}: {len(splits[split_name])} images, the benchmark has {size}"
        for split_name, size in task.sizes.items()
        if size is not None and len(splits[split_name]) != size
    ]
    if wrong:
        raise DataError(f"{task.name}: the split is not the benchmark's:{bullets(wrong)}\ngive its published lists")
