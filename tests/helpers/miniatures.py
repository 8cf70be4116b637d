"""Tasks of the catalog whose sources are miniatures, and archives of their files."""

from __future__ import annotations

import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

from helpers.publishers import BUILD, CLASSES
from vpt.datasets.catalog import TASKS
from vpt.datasets.download_dir import RemoteFile
from vpt.datasets.task import BenchmarkTask


def miniature(name: str, root: Path, limits: tuple[int, int] = (1000, 1000)) -> BenchmarkTask:
    """Build the source of a task in `root`; the row that fits it. first: as large as it is, all images are taken."""
    task = TASKS[name]
    published = BUILD[name](root)
    files = tuple(replace(remote, sha256=None, size=None) for remote in task.source.files)
    split_spec = task.split_spec
    if split_spec.limits is not None:
        split_spec = replace(split_spec, limits=limits)
    elif "[" in split_spec.val:
        split_spec = replace(split_spec, train="train[3:]", val="train[:3]")
    classes = CLASSES.get(name, task.classes)
    return replace(
        task,
        published_sizes=published,
        classes=classes,
        split_spec=split_spec,
        source=replace(task.source, files=files),
    )


def pack(root: Path, remote: RemoteFile, *names: str) -> None:
    """Move files and folders of `root` into the archive `remote`."""
    archive = root / remote.name
    if archive.name.endswith(".zip"):
        with zipfile.ZipFile(archive, "w") as packed:
            for file in sorted(path for name in names for path in (root / name).rglob("*") if path.is_file()):
                packed.write(file, file.relative_to(root))
    else:
        with tarfile.open(archive, "w:gz") as packed_tar:
            for name in names:
                packed_tar.add(root / name, name)
