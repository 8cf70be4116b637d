"""Files that are mapped into memory are closed before they are renamed or removed, as Windows demands."""

from __future__ import annotations

import errno
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vpt.data.dataset import Split
from vpt.data.decoding.arrays import decode
from vpt.data.decoding.cache import decode_cached
from vpt.data.preprocessing import Preprocessing
from vpt.errors import DataError
from vpt.training import feature_cache

SMALL = Preprocessing(size=8)


@pytest.fixture(autouse=True)
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse to rename, replace and remove a file that is mapped."""
    maps: list[tuple[Path, weakref.ref[Any]]] = []
    open_memmap = np.lib.format.open_memmap

    def open_map(path: Path, **options: Any) -> Any:
        array = open_memmap(path, **options)
        maps.append((Path(path), weakref.ref(array._mmap)))
        return array

    def refusing(call: Callable[..., Any]) -> Callable[..., Any]:
        def checked(*args: Any, **options: Any) -> Any:
            for path, memory in maps:
                if path.name in [arg.name for arg in args if isinstance(arg, Path)] and memory() is not None:
                    raise PermissionError(errno.EACCES, "is used by another process", str(path))
            return call(*args, **options)

        return checked

    monkeypatch.setattr(np.lib.format, "open_memmap", open_map)
    for name in ("unlink", "replace"):
        monkeypatch.setattr(Path, name, refusing(getattr(Path, name)))


@pytest.fixture
def split(tmp_path: Path) -> Split:
    paths = tuple(tmp_path / f"{i}.png" for i in range(3))
    for i, path in enumerate(paths):
        Image.new("RGB", (16, 12), (80 * i, 0, 0)).save(path)
    return Split(paths, np.arange(3))


@pytest.mark.parametrize("whole_side", [None, 10])
def test_decode_of_corrupt_images_names_them_and_leaves_no_file(
    split: Split, tmp_path: Path, whole_side: int | None
) -> None:
    split.paths[1].write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1 of 3 images cannot be used:\s+.*1\.png"):
        decode(split, SMALL, whole_side=whole_side, memory_limit=0, spill_dir=tmp_path / "spill")
    assert not list((tmp_path / "spill").iterdir())


def test_decode_whose_file_cannot_be_removed_names_the_corrupt_images(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(errno.EACCES, "is scanned", str(path))

    split.paths[1].write_bytes(b"no image")
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(DataError, match="1 of 3 images cannot be used"):
        decode(split, SMALL, memory_limit=0, spill_dir=tmp_path)


@pytest.mark.parametrize("whole_side", [None, 10])
def test_decode_cached_moves_a_closed_file(split: Split, tmp_path: Path, whole_side: int | None) -> None:
    found = decode_cached(split, SMALL, cache_dir=tmp_path / "kept", spill_dir=tmp_path, whole_side=whole_side)
    assert len(found) == 3 and len(list((tmp_path / "kept").iterdir())) == 2


def outputs() -> Iterator[tuple[Any, torch.Tensor]]:
    for start in (0, 2):
        yield np.arange(start, start + 2), torch.full((2, 5), float(start))


def broken() -> Iterator[tuple[Any, torch.Tensor]]:
    yield np.arange(2), torch.zeros(2, 5)
    raise RuntimeError("the device is gone")


def test_features_in_a_file_are_moved_when_it_is_closed(tmp_path: Path) -> None:
    path, images = tmp_path / "features.npy", range(4)
    assert feature_cache._map_outputs([outputs], images, path)[0, :, 0].tolist() == [0, 0, 2, 2]  # type: ignore[arg-type]
    found = feature_cache._map_outputs([outputs, outputs], images, path)  # type: ignore[arg-type]
    assert found.shape == (2, 4, 5) and [file.name for file in tmp_path.iterdir()] == ["features.npy"]


def test_features_that_cannot_be_computed_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="the device is gone"):
        feature_cache._map_outputs([broken], range(4), tmp_path / "features.npy")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
