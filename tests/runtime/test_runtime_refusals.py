"""What the runtime and the export refuse, in words."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.families import backbone_of
from vpt import attach, save
from vpt.cli import main
from vpt.data.preprocessing import Preprocessing
from vpt.errors import DataError, ExitCode, TunedFileError, UnsupportedError
from vpt.model.exporting import _half
from vpt.runtime import ExportedModel, SharedModel
from vpt.runtime.metadata import read_metadata
from vpt.runtime.pixels import read_image
from vpt.runtime.shared import Task


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # as in a program that has no filters
def test_image_of_more_pixels_than_pillow_allows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (12, 12)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=r"bomb\.png cannot be used: more than 100 pixels"):
        read_image(tmp_path / "bomb.png")


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


@pytest.mark.parametrize("fraction", [1e-300, 0.027])
def test_crop_fraction_that_enlarges_images_beyond_the_largest_size_is_refused(fraction: float) -> None:
    preprocessing = Preprocessing(resize="crop").to_dict()
    values = {"format": 1, "backbone": "vit", "fingerprint": "sha256:0", "preprocessing": preprocessing}
    assert read_metadata(json.dumps(values), "a.onnx", is_model=False) == json.loads(json.dumps(values))
    preprocessing["crop_fraction"] = fraction
    message = rf"crop_fraction is {fraction}, which scales .* it must be at least 0\.02734375"
    with pytest.raises(TunedFileError, match=message):
        read_metadata(json.dumps(values), "a.onnx", is_model=False)
    preprocessing["resize"] = "squash"
    read_metadata(json.dumps(values), "a.onnx", is_model=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"value_range": [9, 3]}, r"value_range is \[9, 3\]; it must be two numbers, the smaller first"),
        ({"interpolation": ["bicubic"]}, "interpolation is .* it must be text"),
        ({"interpolation": "cubic"}, "interpolation 'cubic' is unknown"),
        ({"rotation": 90}, "preprocessing is .* it must be of the keys crop_fraction, interpolation, mean"),
        ({"size": 9000}, "size is 9000 px; it must be at least 1 and at most 8,192"),
    ],
)
def test_preprocessing_that_the_library_would_refuse_is_refused(changes: dict[str, Any], message: str) -> None:
    preprocessing = Preprocessing().to_dict() | changes
    values = {"format": 1, "backbone": "vit", "fingerprint": "sha256:0", "preprocessing": preprocessing}
    with pytest.raises(TunedFileError, match=message):
        read_metadata(json.dumps(values), "a.onnx", is_model=False)


def test_advice_for_files_that_are_missing_is_a_command_that_makes_them(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    path = save(attach(backbone_of("vit"), "linear", 2).eval(), tmp_path / "photos.safetensors")
    for missing in (tmp_path / "none.safetensors", path):
        with pytest.raises(TunedFileError, match=r"`vpt export FILE --out NAME\.task\.safetensors` makes one"):
            Task(missing)
    graph = tmp_path / "none.onnx"
    for engine, source in ((ExportedModel, "FILE"), (SharedModel, "BACKBONE --shared")):
        with pytest.raises(TunedFileError, match=re.escape(f"`vpt export {source} --out {graph}` makes one")):
            engine(graph)


def test_formats_that_start_other_programs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.check_call", lambda *_: pytest.fail("a program was started"))
    path = tmp_path / "photo.png"
    Image.new("RGB", (20, 20)).save(path, format="EPS")
    with pytest.raises(DataError, match="cannot be used: not an image of a known format"):
        read_image(path)
