"""Folders of tuned files."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vpt import attach, load_backbone, save
from vpt.core.io import temporary_path
from vpt.errors import StorageError, TunedFileError
from vpt.serving.task_files import TaskFiles
from vpt.serving.tuned_files import read_headers


def test_read_headers_of_a_folder_passes_over_what_a_kill_left(tmp_path: Path) -> None:
    save(attach(load_backbone(), "linear", 2), tmp_path / "pets.safetensors")
    whole = (tmp_path / "pets.safetensors").read_bytes()
    temporary_path(tmp_path / "pets.safetensors").write_bytes(whole[:100])
    (tmp_path / ".pets.x8f2a1b3.safetensors").write_bytes(whole[:100])  # as earlier versions named them
    assert list(read_headers([tmp_path])) == ["pets"]


@pytest.fixture
def out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function from which on the folder cannot be listed, as after a change of its permissions."""

    def refuse(path: object = ".") -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    def begin() -> None:
        monkeypatch.setattr(os, "listdir", refuse)
        monkeypatch.setattr(os, "scandir", refuse)

    return begin


def test_find_files_of_a_folder_out_of_reach_does_not_lose_its_files(
    tmp_path: Path, out_of_reach: Callable[[], None]
) -> None:
    save(attach(load_backbone(), "linear", 2), tmp_path / "pets.safetensors")
    files = TaskFiles([tmp_path], accept=lambda name, file: None, forget=lambda file: None)
    out_of_reach()
    with pytest.raises(StorageError, match="cannot be listed: Permission denied; make it readable"):
        files.refresh()
    assert list(files.current) == ["pets"]


def test_read_headers_of_a_folder_out_of_reach_says_why(tmp_path: Path, out_of_reach: Callable[[], None]) -> None:
    out_of_reach()
    with pytest.raises(TunedFileError, match="cannot be listed: Permission denied"):
        read_headers([tmp_path])


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are Unicode")
def test_file_with_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    save(attach(load_backbone(), "linear", 2), tmp_path / "pets.safetensors")
    files = TaskFiles([tmp_path], accept=lambda name, file: None, forget=lambda file: None)
    path = tmp_path / os.fsdecode(b"caf\xe9.safetensors")
    shutil.copy(tmp_path / "pets.safetensors", path)
    assert [line[:7] for line in files.refresh()] == ["refused"] and list(files.current) == ["pets"]
    with pytest.raises(TunedFileError, match="is not UTF-8; rename the file"):
        read_headers([tmp_path])
