"""Folders of tuned files."""

from __future__ import annotations

from pathlib import Path

from vpt import attach, load_backbone, save
from vpt.core.io import temporary_path
from vpt.serving.tuned_files import read_headers


def test_read_headers_of_a_folder_passes_over_what_a_kill_left(tmp_path: Path) -> None:
    save(attach(load_backbone(), "linear", 2), tmp_path / "pets.safetensors")
    whole = (tmp_path / "pets.safetensors").read_bytes()
    temporary_path(tmp_path / "pets.safetensors").write_bytes(whole[:100])
    (tmp_path / ".pets.x8f2a1b3.safetensors").write_bytes(whole[:100])  # as earlier versions named them
    assert list(read_headers([tmp_path])) == ["pets"]
