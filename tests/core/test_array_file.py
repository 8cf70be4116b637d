"""Arrays on disk: a flipped bit anywhere is noticed."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vpt.core import array_file
from vpt.core.array_file import append_checksum, map_array, read_array, write_array
from vpt.errors import DataError, StorageError

VALUES = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_array(tmp_path / "a.npy", VALUES)
    return tmp_path / "a.npy"


def read(path: Path) -> Any:
    return read_array(path, "file of predictions", "begin anew")


def test_array_is_read_as_written_and_by_numpy(file: Path) -> None:
    for array in (map_array(file), map_array(file, "c"), read(file), np.load(file)):
        np.testing.assert_array_equal(array, VALUES)


def test_flipped_bit_anywhere_is_noticed(file: Path) -> None:
    whole = file.read_bytes()
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 1 << (position % 8)
        file.write_bytes(changed)
        assert map_array(file) is None, position
        if position < len(whole) - 18:  # in the array, not in the checksum behind it
            with pytest.raises(DataError, match=r"a\.npy is damaged .*; begin anew"):
                read(file)


def test_array_without_checksum_is_computed_again_where_it_can_be(file: Path) -> None:
    np.save(file, VALUES)
    assert map_array(file) is None
    np.testing.assert_array_equal(read(file), VALUES)


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_truncated_array_is_noticed(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])
    assert map_array(file) is None


def test_checksum_of_a_large_array_is_that_of_all_its_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_array(tmp_path / "a.npy", VALUES)
    monkeypatch.setattr(array_file, "_CHUNK", 7)
    assert map_array(tmp_path / "a.npy") is not None


def test_checksum_on_a_full_disk_is_a_storage_error(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(StorageError, match="the disk is full"):
        append_checksum(file)
