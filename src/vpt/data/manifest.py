"""What stands in a prepared folder besides images: a mark while it is being written, in the end what was done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vpt.core.io import write_atomic
from vpt.errors import DataError

_MANIFEST, _IN_PROGRESS = "prepared.json", ".preparing.json"


def begin_preparation(folder: Path, digest: str) -> None:
    """Mark `folder` as being prepared. Raises DataError where it holds something else."""
    marker = folder / _IN_PROGRESS
    if marker.is_file():
        if json.loads(marker.read_text(encoding="utf-8"))["digest"] == digest:
            return
        raise DataError(
            f"{folder} was begun from another source or with another split; delete it, or choose another --out"
        )
    if folder.is_dir() and any(folder.iterdir()):
        raise DataError(
            f"{folder} is there and was not made by `vpt data prepare` or `vpt data import`; delete it, or choose another --out"
        )
    write_atomic(marker, json.dumps({"digest": digest}).encode())


def finish_preparation(folder: Path, values: dict[str, Any]) -> None:
    """Say what was done; from now on the folder is prepared."""
    write_atomic(folder / _MANIFEST, (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode())
    (folder / _IN_PROGRESS).unlink(missing_ok=True)


def is_prepared(folder: Path) -> bool:
    """Whether the folder was prepared to its end."""
    return (folder / _MANIFEST).is_file()


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """What was done; None where the folder was not prepared. Raises DataError where preparing is not finished."""
    if is_prepared(folder):
        try:
            values: dict[str, Any] = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(
                f"{folder / _MANIFEST} is damaged ({error}); delete {folder} and prepare it again"
            ) from error
        return values
    if (folder / _IN_PROGRESS).is_file():
        raise DataError(f"{folder} is not prepared to its end; give the same `vpt data` command again, it goes on")
    return None
