"""From a publisher's files to a folder with list files: verified, lossless, and resumable."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from vpt.core.text import lines
from vpt.data.manifest import is_finished, read_manifest
from vpt.datasets.download_dir import MissingFiles, Place, Remote, unpack, verify
from vpt.datasets.prepared.progress import Progress, quiet
from vpt.datasets.prepared.records import Listing, Records
from vpt.datasets.prepared.writer import write_folder
from vpt.datasets.published_splits import by_lists, by_names, fgvc_lists
from vpt.datasets.split_spec import Cut
from vpt.datasets.task import BenchmarkTask
from vpt.errors import DataError

UNKNOWN = "no published checksum is known; the count is verified"


def prepare(
    task: BenchmarkTask, out: Path, source: Path | None = None, splits: Path | None = None, progress: Progress = quiet
) -> dict[str, Any]:
    """Make the folder `out / task.name`, and return what it says of itself (prepared.json).

    source: the folder of the downloaded files, packed or unpacked, also as torchvision unpacks them.
    splits: VTAB's published name file, or the folder of FGVC's train.json, val.json and test.json.

    Image files are copied as they are, arrays become PNG. Interrupted or killed, the same call goes on. What is
    prepared already is left alone. Raises DataError with `instructions` where files are missing, and naming every
    fault where counts, labels or checksums are not the published ones.
    """
    folder = out / task.name
    if is_finished(folder):
        return _manifest(folder)
    listing, checksums = _read(task, out, source, progress)
    _verify(task, listing)
    parts, how = _cut(task, listing, splits)
    _verify_sizes(task, parts)
    notes = [*listing.notes, *([f"{task.name}: {task.remark}"] if task.remark else [])]
    write_folder(
        folder,
        parts,
        listing.classes,
        task.lists,
        {
            "task": task.name,
            "benchmark": task.benchmark,
            "label": task.rule,
            "split": how,
            "source": task.source.home,
            "terms": task.source.terms,
            "citation": task.source.citation,
            "checksums": checksums,
            "notes": notes,
        },
        progress,
    )
    return _manifest(folder)


def _manifest(folder: Path) -> dict[str, Any]:
    done = read_manifest(folder)
    assert done is not None
    return done


def instructions(task: BenchmarkTask, out: Path | str = "FOLDER") -> str:
    """What to download for a task, from where, and under which terms."""
    source = task.source
    files = [f"{remote.name}{_size(remote)}  {remote.url}" for remote in source.files]
    sums = [f"SHA-256 {remote.sha256 or 'of ' + remote.name + ': ' + UNKNOWN}" for remote in source.files]
    told = [text for pair in zip(files, sums, strict=True) for text in (pair[0], f"  {pair[1]}")]
    by_hand = f"\n  by hand: {source.how}" if source.how else ""
    return (
        f"{task.name} ({task.benchmark}, {task.group}: {task.classes} classes, {task.sizes_text} images) is at "
        f"{source.home}\n  terms: {source.terms}\n  cite: {source.citation}{by_hand}\n"
        f"  download into one folder:{lines(told, most=len(told))}\n"
        f"then: vpt data prepare {task.name} --from DOWNLOADS --out {out}"
    )


def _size(remote: Remote) -> str:
    return "" if remote.size is None else f" ({remote.size:,} bytes)"


def _read(task: BenchmarkTask, out: Path, source: Path | None, progress: Progress) -> tuple[Listing, dict[str, str]]:
    """The listing, and for each file what is known of its checksum. Archives are unpacked where that is needed."""
    unpacked = out / ".unpacked" / task.source.name
    if source is None:
        raise DataError(f"nothing to prepare {task.name} from:\n{instructions(task, out)}")
    if not source.is_dir():
        raise DataError(f"{source} is no folder; --from takes the folder of the downloaded files")
    place, downloads = Place(source, unpacked), Place(source)
    there = {remote: downloads.find(remote.name)[0] for remote in task.source.files if downloads.has(remote.name)}
    plain = [remote for remote in there if not remote.is_archive]
    checksums = dict.fromkeys((remote.name for remote in task.source.files), "not needed: it was unpacked already")
    _checksums(plain, there, checksums, progress)
    try:
        return task.read(place), checksums
    except MissingFiles as error:
        archives = [remote for remote in there if remote.is_archive and not (unpacked / remote.name).is_dir()]
        if not archives:
            raise DataError(f"{task.name}: {error}\n{instructions(task, out)}") from error
    _checksums(archives, there, checksums, progress)
    for i, remote in enumerate(archives):
        progress(f"unpacking {task.name}", i, len(archives))
        unpack(there[remote], unpacked)
    progress(f"unpacking {task.name}", len(archives), len(archives))
    try:
        return task.read(place), checksums
    except MissingFiles as error:
        raise DataError(f"{task.name}: {error}\n{instructions(task, out)}") from error


def _checksums(remotes: list[Remote], there: dict[Remote, Path], known: dict[str, str], progress: Progress) -> None:
    faults = [fault for remote in remotes if (fault := verify(there[remote], remote, progress))]
    if faults:
        raise DataError(f"{len(faults)} downloaded files are not the published ones:{lines(faults)}")
    known.update({remote.name: f"SHA-256 {remote.sha256}" if remote.sha256 else UNKNOWN for remote in remotes})


def _verify(task: BenchmarkTask, listing: Listing) -> None:
    """Counts, classes, labels and names against the row; every fault at once."""
    faults = []
    if len(listing.classes) != task.classes:
        faults.append(f"{len(listing.classes)} classes, published are {task.classes}")
    for part, count in task.published.items():
        found = len(listing.parts[part]) if part in listing.parts else 0
        if count is not None and found != count:
            faults.append(f"{part}: {found} images, published are {count}")
    for part, records in listing.parts.items():
        strange = records.labels[(records.labels < 0) | (records.labels >= task.classes)]
        if len(strange):
            faults.append(f"{part}: {len(strange)} labels outside 0 to {task.classes - 1}, such as {strange[0]}")
        twice = [
            name
            for name, count in Counter(zip(records.labels.tolist(), records.names, strict=True)).items()
            if count > 1
        ]
        if twice:
            faults.append(f"{part}: {len(twice)} names stand twice, such as {twice[0][1]!r}")
    if faults:
        raise DataError(
            f"{task.name}: the source is not what its publisher has:{lines(faults)}\n"
            "unpack or download it again; a part of a data set cannot be compared with published figures"
        )


def _cut(task: BenchmarkTask, listing: Listing, splits: Path | None) -> tuple[dict[str, Records], str]:
    """train, val and test, and how they came about."""
    if task.cut.first is None:
        files = fgvc_lists(splits) if splits is not None else listing.folder and fgvc_lists(listing.folder)
        if splits is not None and files is None:
            raise DataError(
                f"{splits} holds no train.json, val.json and test.json; give the folder of the published lists"
            )
        if files:
            return by_lists(files, listing), "lists " + ", ".join(file.name for file in files.values())
    cut = task.cut.apply(listing.parts)
    if task.cut.first is None:
        return cut, _drawn(task.cut)
    if splits is not None:
        return by_names(task, cut, listing, splits), f"published names in {splits.name}"
    slices = f"train {task.cut.train}, val {task.cut.val}, test {task.cut.test}"
    return cut, f"{slices}; of train and val the first {task.cut.first}, all in published order"


def _drawn(cut: Cut) -> str:
    if "[" not in cut.val:
        return "the publisher's parts"
    return f"val is vpt's own draw, {cut.val}: the lists of the paper's authors were not beside the data"


def _verify_sizes(task: BenchmarkTask, parts: dict[str, Records]) -> None:
    wrong = [
        f"{part}: {len(parts[part])} images, the benchmark has {size}"
        for part, size in task.sizes.items()
        if size is not None and len(parts[part]) != size
    ]
    if wrong:
        raise DataError(f"{task.name}: the split is not the benchmark's:{lines(wrong)}\ngive its published lists")
