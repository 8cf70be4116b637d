"""Colors with more than 8 bits, channels beyond the colors, HEIC and AVIF, and files that are named and refused."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vpt.core import optional
from vpt.data.dataset import Split
from vpt.data.decoding.arrays import decode
from vpt.data.decoding.value_checks import value_range_notes
from vpt.data.images import files as image_files
from vpt.data.images.files import UnreadableImageError, open_rgb, read_rgb, supported_formats
from vpt.data.loading import load_dataset
from vpt.data.preprocessing import Preprocessing
from vpt.errors import DataError, VptError

tifffile = pytest.importorskip("tifffile", reason="the extra deep is not installed")


def deep(channels: int, high: int = 65535, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, (10, 12, channels), endpoint=True).astype(np.uint16)


def png(values: np.ndarray, orientation: int | None = None) -> bytes:
    """Encode 16-bit values as PNG, which Pillow cannot write."""
    height, width, channels = values.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    color = {2: 4, 3: 2, 4: 6}[channels]
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    exif = Image.Exif()
    exif[0x0112] = orientation or 1
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, color, 0, 0, 0)), (b"IDAT", zlib.compress(lines))]
    parts += [] if orientation is None else [(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in (*parts, (b"IEND", b"")))


def write(path: Path, values: np.ndarray, **options: object) -> Path:
    tifffile.imwrite(path, values, **options)
    return path


def rounded(values: np.ndarray, white: int = 65535) -> np.ndarray:
    return np.rint(values.astype(np.float64).clip(0, white) * (255 / white)).astype(np.uint8)


@pytest.mark.parametrize("white", [65535, 4095])
@pytest.mark.parametrize("kind", ["png", "tif", "planar.tif", "lzw.tif", "big.tif"])
def test_deep_color_image_equals_rounded_values(tmp_path, kind, white):
    values, path = deep(3, white), tmp_path / f"a.{kind}"
    options = {
        "tif": {"photometric": "rgb"},
        "planar.tif": {"photometric": "rgb", "planarconfig": "separate"},
        "lzw.tif": {"photometric": "rgb", "compression": "lzw"},
        "big.tif": {"photometric": "rgb", "bigtiff": True},
    }
    if kind == "png":
        path.write_bytes(png(values))
    else:
        stored = values.transpose(2, 0, 1) if kind.startswith("planar") else values
        write(path, stored, **options[kind])
    image, notes = open_rgb(path, None if white == 65535 else (0, white))
    assert np.array_equal(np.asarray(image), rounded(values, white)) and notes == []
    assert np.array_equal(np.asarray(read_rgb(path.read_bytes(), (0, white))), rounded(values, white))


@pytest.mark.parametrize("channels", [2, 4])
def test_deep_png_with_alpha_is_blended_with_white(channels):
    values = deep(channels)
    values[..., -1] = np.where(np.arange(12) < 6, 0, 65535)
    pixels = np.asarray(read_rgb(png(values)))
    assert (pixels[:, :6] == 255).all()
    colors = values[:, 6:, :3] if channels == 4 else values[:, 6:, [0, 0, 0]]
    assert np.array_equal(pixels[:, 6:], rounded(colors))


def test_deep_color_image_is_upright(tmp_path):
    values = deep(3)
    assert np.array_equal(np.asarray(read_rgb(png(values, orientation=6))), np.rot90(rounded(values), -1))
    path = write(tmp_path / "a.tif", values, photometric="rgb", extratags=[(274, "H", 1, 3, True)])
    assert np.array_equal(np.asarray(open_rgb(path)[0]), np.rot90(rounded(values), 2))


def test_deep_color_images_of_few_values_are_noticed(tmp_path):
    paths = [tmp_path / "a.png", write(tmp_path / "b.tif", deep(3, 4095), photometric="rgb")]
    paths[0].write_bytes(png(deep(3, 4095)))
    for path in paths:
        assert "--value-range 0,4095 reads them" in value_range_notes([path])[0]


def test_float_color_tiff_equals_rounded_values(tmp_path):
    values = np.random.default_rng(0).random((10, 12, 3)).astype(np.float32)
    path = write(tmp_path / "a.tif", values, photometric="rgb")
    assert np.array_equal(np.asarray(open_rgb(path)[0]), np.rint(values.astype(np.float64) * 255).astype(np.uint8))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_tiff_with_channels_beyond_the_colors_has_a_note(tmp_path, dtype):
    values = deep(6, 255).astype(dtype) if dtype == "uint8" else deep(6)
    path = write(tmp_path / "a.tif", values, photometric="rgb", planarconfig="contig", extrasamples=[0, 0, 0])
    image, notes = open_rgb(path)
    expected = values[..., :3] if dtype == "uint8" else rounded(values[..., :3])
    assert np.array_equal(np.asarray(image), expected)
    assert notes == ["6 channels, of which the first 3 are used, as they are the colors of the file"]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_tiff_of_channels_that_are_no_colors_is_refused(tmp_path, dtype):
    path = write(tmp_path / "a.tif", deep(5, 255).astype(dtype), photometric="minisblack", planarconfig="contig")
    with pytest.raises(UnreadableImageError, match="10 x 12 x 5 values whose channels are not red, green and blue"):
        open_rgb(path)


def test_damaged_deep_color_images_are_refused(tmp_path):
    data = png(deep(3))
    with pytest.raises(UnreadableImageError):
        read_rgb(data[: len(data) // 2])
    path = write(tmp_path / "a.tif", deep(3), photometric="rgb")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UnreadableImageError):
        open_rgb(path)


@pytest.mark.parametrize(("suffix", "package"), [("tif", "tifffile"), ("png", "imagecodecs")])
def test_deep_color_image_without_the_extra_names_it(tmp_path, monkeypatch, suffix, package):
    path = write(tmp_path / "a.tif", deep(3), photometric="rgb")
    if suffix == "png":
        path = tmp_path / "a.png"
        path.write_bytes(png(deep(3)))
    _hide(monkeypatch, package)
    with pytest.raises(VptError, match=rf"needs {package}, which is not installed; .*\[deep\]"):
        decode(Split((path,), np.zeros(1, np.int64)), Preprocessing(size=8))


def _hide(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    def refuse(name: str) -> object:
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(name=package)
        return __import__(name)

    monkeypatch.setattr(optional.importlib, "import_module", refuse)


@pytest.mark.parametrize("suffix", ["heic", "avif"])
def test_image_of_a_phone_is_read(tmp_path, suffix):
    if suffix == "heic":
        pytest.importorskip("pillow_heif", reason="the extra heif is not installed")
    elif "AVIF" not in supported_formats():
        pytest.skip("this Pillow does not read AVIF")
    supported_formats()  # registers the plug-in
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (64, 48), (200, 40, 30)).save(path, quality=95)
    pixels = np.asarray(open_rgb(path)[0], np.int64)
    assert pixels.shape == (48, 64, 3) and np.abs(pixels - (200, 40, 30)).max() <= 4
    dataset = tmp_path / "data"
    for name in ("a", "b"):
        for i in range(3):
            (dataset / name).mkdir(parents=True, exist_ok=True)
            (dataset / name / f"{i}.{suffix.upper()}").write_bytes(path.read_bytes())
    assert len(load_dataset(dataset).train) == 2


def test_heic_image_without_the_extra_names_it(tmp_path, monkeypatch):
    path = tmp_path / "a.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    monkeypatch.setattr(image_files, "supported_formats", lambda: ("PNG", "JPEG"))
    with pytest.raises(UnreadableImageError, match=r"a HEIC image, which needs pillow-heif; .*\[heif\]"):
        open_rgb(path)
    path.write_bytes(b"\0\0\0\x18ftypavif" + bytes(100))
    with pytest.raises(UnreadableImageError, match="an AVIF image, which Pillow reads from version 11"):
        open_rgb(path)


FOREIGN = {
    "scan.png": (bytes(128) + b"DICM" + bytes(50), "a DICOM file; .* with pydicom"),
    "scan.tif": (bytes(344) + b"n+1\0" + bytes(50), "a NIfTI volume; .* with nibabel"),
    "cube.png": (b"\x89HDF\r\n\x1a\n" + bytes(50), "an HDF5 file .* with h5py"),
    "sky.tiff": (b"SIMPLE  =  T" + bytes(50), "a FITS file; .* with astropy"),
    "a.png": (b"\x93NUMPY\x01\0" + bytes(50), "a NumPy array; load it"),
    "a.jpg": (b"8BPS" + bytes(50), "a Photoshop document"),
    "b.png": (b"\x76\x2f\x31\x01" + bytes(50), "an OpenEXR image"),
    "c.png": (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50), "a JPEG XL image"),
    "d.jpg": (b"FUJIFILMCCD-RAW " + bytes(50), "a raw camera file; .* rawpy"),
    "photo.NEF": (b"II*\0" + bytes(50), "a raw camera file; .* rawpy"),
    "photo.dng": (b"MM\0*" + bytes(50), "a raw camera file"),
    "brain.nii.gz": (b"\x1f\x8b" + bytes(50), "a NIfTI volume"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_file_is_refused_with_what_reads_it(tmp_path, name):
    content, reason = FOREIGN[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=f"not an image .*but {reason}"):
        open_rgb(path)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])  # Pillow opens the first, tifffile alone the second
def test_deep_tiff_of_too_many_pixels_is_refused(tmp_path, monkeypatch, dtype):
    tifffile.imwrite(tmp_path / "bomb.tif", deep(3).astype(dtype), photometric="rgb")  # 12 x 10 px
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UnreadableImageError, match="more than 100 pixels, which may exhaust memory"):
        open_rgb(tmp_path / "bomb.tif")


def test_raw_camera_file_with_a_preview_is_refused(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "TIFF")
    path = tmp_path / "photo.nef"
    path.write_bytes(buffer.getvalue())
    with pytest.raises(UnreadableImageError, match="a raw camera file; develop it"):
        open_rgb(path)


def test_folder_of_foreign_files_names_what_reads_them(tmp_path):
    for name in ("a/1.dcm", "b/2.dcm"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(bytes(128) + b"DICM")
    with pytest.raises(DataError, match=r"a/1.dcm is a DICOM file; write its slices as 16-bit PNG, with pydicom"):
        load_dataset(tmp_path)
