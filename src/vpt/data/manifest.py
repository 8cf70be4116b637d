"""Marker and manifest of a prepared folder: the marker exists while it is written, the manifest when it is complete."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vpt.core.damage import damage_named
from vpt.core.io import write_atomic
from vpt.core.lock import lock_output
from vpt.errors import DataError

_MANIFEST, _IN_PROGRESS = "prepared.json", ".preparing.json"


def begin_preparation(folder: Path, digest: str) -> None:
    """Mark a folder as being prepared.

    Args:
        folder: The output folder.
        digest: Hash of the source and of the options.

    Raises:
        DataError: The folder contains something else.
    """
    marker = folder / _IN_PROGRESS
    if marker.is_file():
        with damage_named(marker, "marker", f"delete {folder}, or choose another --out", DataError):
            started = json.loads(marker.read_text(encoding="utf-8"))["digest"]
        if started == digest:
            return
        raise DataError(
            f"{folder} was started from another source or with another split; delete it, or choose another --out"
        )
    if folder.is_dir() and any(folder.iterdir()):
        raise DataError(
            f"{folder} already exists and was not made by `vpt data prepare` or `vpt data import`; delete it, or "
            "choose another --out"
        )
    write_atomic(marker, json.dumps({"digest": digest}).encode())


def finish_preparation(folder: Path, values: dict[str, Any]) -> None:
    """Write the manifest and remove the marker.

    Args:
        folder: The output folder.
        values: Contents of the manifest, as JSON values.
    """
    write_atomic(folder / _MANIFEST, (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode())
    (folder / _IN_PROGRESS).unlink(missing_ok=True)


@contextmanager
def preparation(folder: Path) -> Iterator[bool]:
    """Hold the lock on a folder while it is prepared, during a `with` block.

    A StorageError is raised if another process is preparing it.

    Args:
        folder: The output folder.

    Yields:
        True if the folder is still to be prepared.
    """
    if is_prepared(folder) and not (folder / _IN_PROGRESS).exists():
        yield False
        return
    with lock_output(folder):
        if is_prepared(folder):  # a kill at the very end has left the marker
            (folder / _IN_PROGRESS).unlink(missing_ok=True)
        yield not is_prepared(folder)


def is_prepared(folder: Path) -> bool:
    """Return True if a folder is completely prepared.

    Args:
        folder: The folder.

    Returns:
        True if the manifest exists.
    """
    return (folder / _MANIFEST).is_file()


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder.

    Args:
        folder: The folder.

    Returns:
        The manifest, empty if the folder was not prepared by vpt.

    Raises:
        DataError: The preparation is not complete, or the manifest is damaged.
    """
    if is_prepared(folder):
        path = folder / _MANIFEST
        with damage_named(path, "manifest", f"delete {folder} and prepare it again", DataError):
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return dict(values.items())
    if (folder / _IN_PROGRESS).is_file():
        raise DataError(
            f"the preparation of {folder} is not complete; run the same `vpt data` command again, it resumes"
        )
    return {}
