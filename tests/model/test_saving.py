"""Writing tuned files: full disks, absent folders, and files in the way."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from helpers.families import backbone_of
from vpt import TunedModel, attach, save
from vpt.errors import StorageError


@pytest.fixture
def model() -> TunedModel:
    return attach(backbone_of("vit"), "vpt(length=3)", 3).eval()


@pytest.fixture
def path(model: TunedModel, tmp_path: Path) -> Path:
    return save(model, tmp_path / "dogs.safetensors")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_save_on_a_full_disk_keeps_the_old_file(model, path, monkeypatch, code):
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    with torch.no_grad():
        model.head.bias.add_(1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            StorageError,
            match=r"dogs.*\(it needs 0\.0 MB\) could not be written: the disk is full, .* MB are free; free some space",
        ):
            save(model, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    save(model, path)
    assert path.read_bytes() != before


def test_save_below_a_file_is_refused(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not be written"):
        save(model, tmp_path / "file" / "t.safetensors")


def test_save_into_absent_folders_creates_them(model, tmp_path):
    assert save(model, tmp_path / "a" / "b" / "t.safetensors").is_file()
