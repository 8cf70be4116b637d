"""Every kind of image file, sound or not, to uint8 pixels."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vpt.data.dataset import Split
from vpt.data.decoding.arrays import decode
from vpt.data.preprocessing import Preprocessing
from vpt.errors import DataError, StorageError

SMALL = Preprocessing(size=8, interpolation="nearest")


def split_of(*paths: Path) -> Split:
    return Split(paths, np.arange(len(paths)) % 2, tuple(path.name for path in paths))


def color_of(path: Path) -> list[int]:
    """The color of the first pixel, which must be the color of all."""
    (image,) = decode(split_of(path), SMALL).images
    assert (image == image[:, :1, :1]).all()
    return image[:, 0, 0].tolist()


def solid_image(mode: str, color: object, size: tuple[int, int] = (16, 16)) -> Image.Image:
    return Image.new(mode, size, color)


def gray(value: float, dtype: str) -> Image.Image:
    return Image.fromarray(np.full((16, 16), value, dtype=dtype))


KINDS = {
    "rgb.png": (solid_image("RGB", (10, 20, 30)), [10, 20, 30]),
    "gray.bmp": (solid_image("L", 77), [77] * 3),
    "bit.png": (solid_image("1", 1), [255] * 3),
    "cmyk.jpg": (solid_image("CMYK", (0, 0, 0, 255)), [0] * 3),
    "cmyk.tif": (solid_image("CMYK", (0, 255, 255, 0)), [255, 0, 0]),
    "half.png": (solid_image("RGBA", (255, 0, 0, 128)), [255, 127, 127]),
    "clear.webp": (solid_image("RGBA", (0, 0, 0, 0)), [255] * 3),
    "gray-clear.png": (solid_image("LA", (0, 0)), [255] * 3),
    "16bit.png": (gray(65535, "uint16"), [255] * 3),
    "16bit-dark.png": (gray(257 * 40, "uint16"), [40] * 3),
    "16bit.tif": (gray(257 * 200, "uint16"), [200] * 3),
    "16bit-big.tif": (gray(257 * 200, ">u2"), [200] * 3),
    "32bit.tif": (gray(257 * 9, "int32"), [9] * 3),
    "float-one.tif": (gray(0.4, "float32"), [102] * 3),
    "float-255.tif": (gray(200.4, "float32"), [200] * 3),
    "palette.gif": (solid_image("RGB", (0, 255, 0)).convert("P"), [0, 255, 0]),
    "plain.ppm": (solid_image("RGB", (1, 2, 3)), [1, 2, 3]),
}


@pytest.mark.parametrize("name", KINDS)
def test_decode_of_each_image_mode_gives_rgb(name, tmp_path):
    image, color = KINDS[name]
    image.save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    assert color_of(tmp_path / name) == color


def test_decode_of_transparent_color_blends_with_white(tmp_path):
    solid_image("RGB", (9, 9, 9)).save(tmp_path / "rgb.png", transparency=(9, 9, 9))
    solid_image("L", 9).save(tmp_path / "gray.png", transparency=9)
    palette = solid_image("P", 0)
    palette.putpalette([9, 9, 9, 200, 0, 0])
    palette.save(tmp_path / "one.png", transparency=0)
    palette.save(tmp_path / "each.png", transparency=bytes([0, 255]))
    for name in ("rgb.png", "gray.png", "one.png", "each.png"):
        assert color_of(tmp_path / name) == [255] * 3, name


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_decode_with_exif_orientation_is_upright(orientation, suffix, tmp_path):
    upright = np.zeros((16, 16), dtype=np.uint8)
    upright[:8, :8], upright[:8, 8:], upright[8:, :8] = 250, 170, 90  # each corner differs
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    quality = {"quality": 100} if suffix in ("jpg", "webp") else {}
    Image.fromarray(np.ascontiguousarray(stored)).convert("RGB").save(path, exif=exif, **quality)
    corners = decode(split_of(path), SMALL).images[0, 0][np.ix_([1, 6], [1, 6])]
    assert np.abs(corners.astype(int) - [[250, 170], [90, 0]]).max() <= 3


def test_decode_of_several_frames_uses_the_first_with_a_note(tmp_path):
    frames = [solid_image("RGB", (255, 0, 0)), solid_image("RGB", (0, 0, 255))]
    for name in ("a.gif", "b.webp", "c.png", "d.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    pixels = decode(split_of(*sorted(tmp_path.iterdir())), SMALL)
    assert (pixels.images[:, 0] > 240).all() and (pixels.images[:, 2] < 15).all()
    assert pixels.notes == (
        "4 images: several frames or pages, of which the first is used (a.gif, b.webp, c.png, d.tif)",
    )


def test_decode_with_pillow_warnings_adds_a_note(tmp_path):
    paths = [tmp_path / f"{i}.jpg" for i in range(8)]
    for path in paths:
        solid_image("RGB", (5, 5, 5)).save(path, exif=b"Exif\0\0II*\0\x08\0\0\0\x02\0\x12\x01\x03\0")
    before = list(warnings.filters), warnings.showwarning
    pixels = decode(split_of(*paths), SMALL, threads=4)
    assert (list(warnings.filters), warnings.showwarning) == before
    assert len(pixels) == 8
    (note,) = pixels.notes
    assert note.startswith("8 images: Corrupt EXIF data") and "0.jpg" in note


def test_decode_with_other_warnings_passes_them_on(draw):
    split = split_of(draw("a.png") / "a.png")
    with pytest.warns(UserWarning, match="mine"):
        decode(split, SMALL, progress=lambda done, total: warnings.warn("mine", stacklevel=1))


def write_faulty_files(root: Path) -> list[Path]:
    """One file of every kind that cannot be used."""
    good = root / "good.jpg"
    Image.effect_noise((64, 64), 90).convert("RGB").save(good)
    (root / "empty.jpg").touch()
    (root / "text.png").write_text("no image at all")
    (root / "cut.jpg").write_bytes(good.read_bytes()[:-400])
    (root / "folder.jpg").mkdir()
    (root / "dangling.jpg").symlink_to(root / "nowhere")
    (root / "loop.jpg").symlink_to(root / "loop.jpg")
    (root / "program.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 90 90\n%%EndComments\n")
    solid_image("RGB", 0, size=(7, 300)).save(root / "sliver.png")
    gray(float("nan"), "float32").save(root / "nan.tif")
    gray(-3, "float32").save(root / "negative.tif")
    gray(70000, "int32").save(root / "deep.tif")
    damaged = bytearray((root / "sliver.png").read_bytes().replace(b"\0\0\0\x07", b"\0\0\0\x09"))
    (root / "checksum.png").write_bytes(damaged)
    if hasattr(os, "mkfifo"):
        os.mkfifo(root / "pipe.jpg")
    return sorted(root.iterdir())


REASONS = {
    "empty.jpg": "empty (0 bytes)",
    "text.png": "not an image of a known format",
    "cut.jpg": "damaged: image file is truncated",
    "folder.jpg": "a folder",
    "dangling.jpg": "a link to a missing file",
    "loop.jpg": "Too many levels of symbolic links",
    "program.png": "not an image of a known format",
    "sliver.png": "only 7 x 300 px; each side needs 8",
    "nan.tif": "NaN or infinite",
    "negative.tif": "pixels from -3 to -3, outside 0..1 or 0..255",
    "deep.tif": "pixels from 70000 to 70000, outside 0..65535",
    "checksum.png": "",
}


def test_decode_of_faulty_files_names_each_reason(tmp_path):
    paths = write_faulty_files(tmp_path)
    with pytest.raises(DataError) as caught:
        decode(split_of(*paths), SMALL)
    text = str(caught.value)
    assert f"{len(paths) - 1} of {len(paths)} images cannot be used:" in text
    for name, reason in REASONS.items():
        assert f"\n  {name}: {reason}" in text or (name in text and reason in text)
    assert "good.jpg" not in text and "leave them out with --skip-corrupt" in text


def test_decode_of_many_faulty_files_names_all(tmp_path):
    paths = [tmp_path / f"{i}.jpg" for i in range(30)]
    with pytest.raises(DataError, match=r"^30 of 30 images cannot be used:") as caught:
        decode(split_of(*paths), SMALL)
    named = [line.strip() for line in str(caught.value).splitlines()[1:31]]
    assert named == [f"{i}.jpg: no such file" for i in range(30)]


def test_decode_of_unreadable_file_is_refused(draw, make_unreadable):
    path = draw("a.png") / "a.png"
    make_unreadable(path)
    with pytest.raises(DataError, match="Permission denied"):
        decode(split_of(path), SMALL)


def test_decode_with_permission_error_is_refused(draw, monkeypatch):
    path = draw("a.png") / "a.png"

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"a\.png: Permission denied"):
        decode(split_of(path), SMALL)


@pytest.mark.parametrize("side", [12, 30])  # above the limit, and above twice the limit
def test_decode_of_decompression_bomb_is_refused(side, tmp_path, monkeypatch):
    solid_image("RGB", 0, size=(side, side)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=r"bomb\.png: more than 100 pixels, which may exhaust memory"):
        decode(split_of(tmp_path / "bomb.png"), SMALL)


@pytest.mark.parametrize("limit", [2**30, 0])
def test_decode_with_skip_corrupt_keeps_labels_aligned(limit, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    paths = []
    for i in range(12):
        paths.append(data / f"{i}.png")
        if i % 3:
            solid_image("RGB", (i, i, i)).save(paths[-1])
        else:
            paths[-1].touch()
    split = Split(tuple(paths), np.arange(12))
    pixels = decode(split, SMALL, skip_corrupt=True, memory_limit=limit, spill_dir=tmp_path / "spill")
    assert pixels.labels.tolist() == pixels.images[:, 0, 0, 0].tolist() == [1, 2, 4, 5, 7, 8, 10, 11]
    assert [name.split(": ")[1] for name in pixels.dropped] == ["empty (0 bytes)"] * 4
    assert pixels.names[0] == str(paths[1])
    assert "4 classes without any image left" in pixels.notes[0]


def test_decode_with_skip_corrupt_and_no_image_left_is_refused(tmp_path):
    with pytest.raises(DataError, match="1 of 1 image cannot be used"):
        decode(split_of(tmp_path / "none.png"), SMALL, skip_corrupt=True)


def test_decode_of_arrays_returns_their_pixels():
    images = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
    pixels = decode(Split(images, np.array([1, 0])), SMALL)
    assert (pixels.images == images.transpose(0, 3, 1, 2)).all()
    assert pixels.labels.tolist() == [1, 0]
    assert decode(Split(), SMALL).images.shape == (0, 3, 8, 8)
    with pytest.raises(DataError, match="only 8 x 4 px"):
        decode(Split(images[:, :4], np.array([1, 0])), SMALL)


def test_decode_with_threads_reports_progress_and_equals_one_thread(draw):
    names = [f"{i}.png" for i in range(20)]
    root = draw(*names)
    seen = []
    many = decode(
        split_of(*(root / name for name in names)), SMALL, threads=3, progress=lambda *step: seen.append(step)
    )
    assert seen == [(i + 1, 20) for i in range(20)]
    one = decode(split_of(*(root / name for name in names)), SMALL, threads=1)
    assert (many.images == one.images).all()


def test_decode_beyond_the_memory_limit_spills_equal_pixels(draw, tmp_path):
    root = draw("a.png", "b.png")
    split = split_of(root / "a.png", root / "b.png")
    inside = decode(split, SMALL)
    outside = decode(split, SMALL, memory_limit=100, spill_dir=tmp_path / "new" / "spill")
    assert isinstance(outside.images, np.memmap) and Path(outside.images.filename).parent.name == "spill"
    assert (outside.images == inside.images).all()
    with pytest.raises(DataError, match="more than the memory limit"):
        decode(split, SMALL, memory_limit=100)


def test_decode_with_full_disk_is_refused(draw, tmp_path, monkeypatch):
    path = draw("a.png") / "a.png"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(StorageError, match=r"it needs 0\.0 MB.*0\.0 MB are free"):
        decode(split_of(path), SMALL, memory_limit=0, spill_dir=tmp_path / "spill")
    assert not list((tmp_path / "spill").iterdir())


def test_decode_with_invalid_spill_dir_is_refused(draw):
    path = draw("a.png") / "a.png"
    with pytest.raises(StorageError, match="could not be written"):
        decode(split_of(path), SMALL, memory_limit=0, spill_dir=path / "below-a-file")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_decode_that_fails_removes_its_spill_file(error, draw, tmp_path):
    path = draw("a.png") / "a.png"

    def stop(done: int, total: int) -> None:
        raise error

    with pytest.raises(error):
        decode(split_of(path), SMALL, memory_limit=0, spill_dir=tmp_path / "spill", progress=stop)
    with pytest.raises(DataError):
        decode(split_of(tmp_path / "none.png"), SMALL, memory_limit=0, spill_dir=tmp_path / "spill")
    assert not list((tmp_path / "spill").iterdir())
