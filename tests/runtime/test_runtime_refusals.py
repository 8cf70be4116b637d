"""What the runtime and the export refuse, in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.families import backbone_of
from vpt import attach, save
from vpt.cli import main
from vpt.errors import DataError, ExitCode, UnsupportedError
from vpt.model.exporting import _half
from vpt.runtime.pixels import read_image


def test_deep_colors_are_refused(tmp_path: Path) -> None:
    import struct
    import zlib

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = b"".join(b"\0" + b"\x0f\xff" * 3 * 16 for _ in range(16))
    header = struct.pack(">IIBBBBB", 16, 16, 16, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    with pytest.raises(DataError, match="more than 8 bits per channel"):
        read_image(tmp_path / "deep.png")


def test_damaged_exif_leaves_the_pixels(tmp_path: Path) -> None:
    image = Image.fromarray(np.full((20, 30, 3), 120, np.uint8))
    image.save(tmp_path / "photo.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\xff\xff\xff\xff\0\0\0\0")
    assert read_image(tmp_path / "photo.jpg").size == (30, 20)


def test_half_rounds_as_python_does() -> None:
    assert [_half(number) for number in range(40)] == [round(number / 2) for number in range(40)]


def test_export_over_its_own_input_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(attach(backbone_of("vit"), "linear", 2).eval(), tmp_path / "photos.safetensors")
    before = path.read_bytes()
    for out, message in (
        (path, "photos.safetensors, which is read; choose another name"),
        (tmp_path / "other.safetensors", "ends in .task.safetensors"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["export", str(path), "--out", str(out)])
        assert ended.value.code == ExitCode.USAGE
        assert message in capsys.readouterr().err
    assert path.read_bytes() == before


def test_replica_of_data_parallel_is_refused() -> None:
    model = attach(backbone_of("vit"), "vpt(length=2)", 2).eval()
    model._is_replica = True
    with pytest.raises(UnsupportedError, match="use DistributedDataParallel"):
        model(torch.zeros(1, 3, 32, 32))


def test_formats_that_start_other_programs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.check_call", lambda *_: pytest.fail("a program was started"))
    path = tmp_path / "photo.png"
    Image.new("RGB", (20, 20)).save(path, format="EPS")
    with pytest.raises(DataError, match="is not an image that Pillow reads"):
        read_image(path)
