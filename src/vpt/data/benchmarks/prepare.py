"""From a publisher's files to a folder with list files: verified, lossless, and resumable."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from vpt._version import __version__
from vpt.data.benchmarks.manifest import begin, finish, is_finished, read_manifest
from vpt.data.benchmarks.order import Cut
from vpt.data.benchmarks.place import MissingFiles, Place, Progress, Remote, unpack, verify
from vpt.data.benchmarks.published import by_lists, by_names, fgvc_lists
from vpt.data.benchmarks.records import Listing, Records
from vpt.data.benchmarks.task import BenchmarkTask
from vpt.data.messages import lines
from vpt.errors import DataError
from vpt.files import write_atomic, write_atomic_by

UNKNOWN = "no published checksum is known; the count is verified"
_File = tuple[str, Records, int]  # path below the folder, where its bytes come from


def quiet(what: str, done: int, total: int) -> None:
    """A listener that says nothing."""


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
    classes = _class_folders(listing.classes)
    files = {part: _files(part, records, classes) for part, records in parts.items()}
    lists = {
        name: "".join(
            f"{path} {records.labels[i]}\n" for part in within for path, records, i in files[part]
        )
        for name, within in task.lists.items()
    }  # fmt: skip
    begin(folder, hashlib.sha256("".join(lists.values()).encode()).hexdigest())
    _write(folder, [file for part in files.values() for file in part], f"writing {task.name}", progress)
    for name, text in lists.items():
        write_atomic(folder / name, text.encode())
    notes = [*listing.notes, *([f"{task.name}: {task.remark}"] if task.remark else [])]
    finish(
        folder,
        {
            "format": 1,
            "task": task.name,
            "benchmark": task.benchmark,
            "images": {part: len(records) for part, records in parts.items()},
            "classes": list(listing.classes),
            "label": task.rule,
            "split": how,
            "source": task.source.home,
            "terms": task.source.terms,
            "citation": task.source.citation,
            "checksums": checksums,
            "notes": notes,
            "vpt": __version__,
        },
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


def _class_folders(classes: tuple[str, ...]) -> tuple[str, ...]:
    """A folder for each class, named after it; with its number where two names would be one."""
    plain = [re.sub(r"[^\w.+-]+", "_", name).strip("_.") or "_" for name in classes]
    twice = {name for name, count in Counter(name.casefold() for name in plain).items() if count > 1}
    return tuple(f"{k:03d}_{name}" if name.casefold() in twice else name for k, name in enumerate(plain))


def _files(part: str, records: Records, classes: tuple[str, ...]) -> list[_File]:
    """Where each image goes. The parts have folders of their own: the same name may stand in two of them."""
    return [
        (f"images/{part}/{classes[label]}/{_flat(name)}", records, i)
        for i, (name, label) in enumerate(zip(records.names, records.labels.tolist(), strict=True))
    ]


def _flat(name: str) -> str:
    return PurePosixPath(name).name


def _write(folder: Path, files: list[_File], what: str, progress: Progress) -> None:
    """Write what is not there yet. Files come into place whole, so one that is there is complete."""
    twice = [path for path, count in Counter(path for path, _, _ in files).items() if count > 1]
    if twice:
        raise DataError(f"{folder}: {len(twice)} images would share a path, such as {twice[0]}; this is a fault of vpt")
    for done, (path, records, i) in enumerate(files):
        place = folder / path
        if not place.is_file() or not place.stat().st_size:  # an empty one is left by a power cut
            content = records.encoded(i)
            write_atomic_by(place, partial(_put, content), size=len(content))
        progress(what, done + 1, len(files))


def _put(content: bytes, part: Path) -> None:
    """Without waiting for the disk: a power cut costs files, not sense, and there may be 70,000 of them."""
    part.write_bytes(content)
