"""A folder is prepared by one process, and a kill at any moment leaves what the next one goes on with."""

from __future__ import annotations

from pathlib import Path

import pytest

from vpt.core.io import temporary_path
from vpt.data.manifest import begin_preparation, finish_preparation, preparation, read_manifest
from vpt.errors import DataError, StorageError


def test_preparation_of_a_folder_that_is_complete_is_not_asked_for(tmp_path: Path) -> None:
    with preparation(tmp_path / "a") as is_missing:
        assert is_missing
        begin_preparation(tmp_path / "a", "digest")
        finish_preparation(tmp_path / "a", {"task": "x"})
    with preparation(tmp_path / "a") as is_missing:
        assert not is_missing
    assert read_manifest(tmp_path / "a") == {"task": "x"}


def test_preparation_by_two_processes_is_refused(tmp_path: Path) -> None:
    first, second = preparation(tmp_path / "a"), preparation(tmp_path / "a")
    with first, pytest.raises(StorageError, match="is being written"), second:
        pytest.fail("both prepare")


def test_preparation_after_a_kill_at_its_start_begins(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    temporary_path(tmp_path / "a" / ".preparing.json").write_bytes(b"{")
    with pytest.raises(DataError, match="already exists"):
        begin_preparation(tmp_path / "a", "digest")
    with preparation(tmp_path / "a") as is_missing:
        assert is_missing
        begin_preparation(tmp_path / "a", "digest")


def test_preparation_after_a_kill_at_its_end_removes_the_marker(tmp_path: Path) -> None:
    begin_preparation(tmp_path / "a", "digest")
    marker = next((tmp_path / "a").iterdir())
    content = marker.read_bytes()
    finish_preparation(tmp_path / "a", {})
    marker.write_bytes(content)
    with preparation(tmp_path / "a") as is_missing:
        assert not is_missing
    assert not marker.exists()
