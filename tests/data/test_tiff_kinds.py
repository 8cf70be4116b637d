"""TIFF files that Pillow misreads or cannot open: exchanged black and white, 32 bits, alpha, turned pages, several."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vpt.data.dataset import Split
from vpt.data.decoding.arrays import decode
from vpt.data.decoding.value_checks import value_range_notes
from vpt.data.images.files import UnreadableImageError, open_rgb
from vpt.data.images.inputs import read_image, read_size
from vpt.data.masks.dataset import load_segmentation_dataset
from vpt.data.masks.files import load_pair
from vpt.data.preprocessing import Preprocessing

tifffile = pytest.importorskip("tifffile", reason="the extra deep is not installed")

RAMP = np.linspace(0, 65535, 10 * 12).round().astype(np.uint16).reshape(10, 12)
SHARES = np.linspace(0, 1, 10 * 12 * 3).reshape(10, 12, 3)  # of white
OPAQUE = np.linspace(0.1, 1, 12)[None].repeat(10, 0)


def write(path: Path, values: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, values, **options)
    return path


def gray_of(path: Path) -> np.ndarray:
    pixels = np.asarray(open_rgb(path)[0])
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


def eight_bits(shares: np.ndarray) -> np.ndarray:
    return np.rint(255 * shares).astype(np.uint8)


@pytest.mark.parametrize(
    ("values", "options"),
    [
        ((RAMP >> 8).astype(np.uint8), {}),  # which Pillow exchanges
        (RAMP, {}),
        (RAMP, {"compression": "lzw"}),
        (RAMP, {"byteorder": ">"}),  # which Pillow cannot open
        ((RAMP / 65535).astype(np.float32), {}),
        (RAMP / 65535, {}),
    ],
)
def test_tiff_whose_zero_is_white_is_not_inverted(tmp_path, values, options):
    path = write(tmp_path / "a.tif", values, photometric="miniswhite", **options)
    expected = eight_bits(1 - RAMP.astype(np.float64) / 65535)
    assert np.abs(gray_of(path).astype(int) - expected).max() <= (1 if values.dtype == np.uint8 else 0)
    if options.get("byteorder") is None and values.dtype != np.float64:
        with Image.open(path) as opened:
            assert np.array_equal(np.asarray(read_image(opened)[0])[..., 0], gray_of(path))


def test_turned_tiff_whose_zero_is_white_is_upright(tmp_path):
    path = write(tmp_path / "a.tif", RAMP, photometric="miniswhite", extratags=[(274, "H", 1, 6, True)])
    assert np.array_equal(gray_of(path), np.rot90(eight_bits(1 - RAMP.astype(np.float64) / 65535), -1))


def test_range_of_a_tiff_whose_zero_is_white_is_that_of_its_brightness(tmp_path):
    path = write(tmp_path / "a.tif", RAMP // 16, photometric="miniswhite")
    (note,) = value_range_notes([path])
    assert "values from 61440 to 65535" in note and "--value-range 61440,65535 reads" in note


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_unsigned_tiff_with_32_bits_has_no_negative_values(tmp_path, byteorder):
    assert np.array_equal(
        gray_of(write(tmp_path / "a.tif", RAMP.astype(np.uint32), byteorder=byteorder)), eight_bits(RAMP / 65535)
    )
    path = write(tmp_path / "b.tif", RAMP.astype(np.uint32) * 65537, byteorder=byteorder)
    with pytest.raises(UnreadableImageError, match=r"pixels from 0 to 4\.29497e\+09, outside 0\.\.65535"):
        open_rgb(path)
    assert np.array_equal(np.asarray(open_rgb(path, (0, 2**32 - 1))[0])[..., 0], eight_bits(RAMP / 65535))
    signed = write(tmp_path / "c.tif", RAMP.astype(np.int32) - 32768, byteorder=byteorder)
    assert np.array_equal(np.asarray(open_rgb(signed, (-32768, 32767))[0])[..., 0], eight_bits(RAMP / 65535))


@pytest.mark.parametrize("dtype", ["float64", "float16", "uint64"])
def test_gray_tiff_that_pillow_cannot_open_is_read(tmp_path, dtype):
    values = RAMP.astype(dtype) if dtype == "uint64" else (RAMP / 65535).astype(dtype)
    found = gray_of(write(tmp_path / "a.tif", values))
    assert np.abs(found.astype(int) - eight_bits(RAMP / 65535)).max() <= (dtype == "float16")


def test_gray_tiff_with_alpha_is_blended_with_white(tmp_path):
    values = np.stack([RAMP, np.where(np.arange(12) < 6, 0, 65535)[None].repeat(10, 0)], axis=2).astype(np.uint16)
    path = write(
        tmp_path / "a.tif", values, photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"]
    )
    assert (gray_of(path)[:, :6] == 255).all()
    assert np.array_equal(gray_of(path)[:, 6:], eight_bits(RAMP / 65535)[:, 6:])


@pytest.mark.parametrize("kind", ["palette", "complex"])
def test_tiff_of_values_that_are_no_brightness_is_refused(tmp_path, kind):
    if kind == "palette":
        colors = np.zeros((3, 65536), np.uint16)
        path = write(tmp_path / "a.tif", RAMP, photometric="palette", colormap=colors)
    else:
        path = write(tmp_path / "a.tif", (RAMP / 65535).astype(np.complex64))
    with pytest.raises(UnreadableImageError, match="a TIFF file of 10 x 12 values whose channels are not red, green"):
        open_rgb(path)


@pytest.mark.parametrize("dtype", ["uint16", "float32", "float64"])
@pytest.mark.parametrize("extra", ["assocalpha", "unassalpha"])
def test_alpha_of_a_deep_tiff_is_blended_as_it_is_stored(tmp_path, dtype, extra):
    white = 65535 if dtype == "uint16" else 1
    stored = SHARES * OPAQUE[..., None] if extra == "assocalpha" else SHARES
    values = np.concatenate([stored, OPAQUE[..., None]], axis=2) * white
    values = (np.rint(values) if dtype == "uint16" else values).astype(dtype)
    path = write(tmp_path / "a.tif", values, photometric="rgb", extrasamples=[extra])
    expected = eight_bits(SHARES * OPAQUE[..., None] + 1 - OPAQUE[..., None])
    image, notes = open_rgb(path)
    assert np.abs(np.asarray(image).astype(int) - expected).max() <= 2 and notes == []


def test_colors_of_a_float_tiff_with_alpha_are_read_by_a_range(tmp_path):
    values = np.concatenate([4095 * SHARES / 2, np.full((10, 12, 1), 0.5)], axis=2).astype(np.float32)
    path = write(tmp_path / "a.tif", values, photometric="rgb", extrasamples=["assocalpha"])
    assert np.abs(np.asarray(open_rgb(path, (0, 4095))[0]) - (SHARES + 1) * 127.5).max() <= 2


def test_alpha_outside_of_its_range_is_refused(tmp_path):
    values = np.concatenate([SHARES, np.full((10, 12, 1), -1.0)], axis=2).astype(np.float32)
    path = write(tmp_path / "a.tif", values, photometric="rgb", extrasamples=["unassalpha"])
    with pytest.raises(UnreadableImageError, match="opacity is from -1 to -1, outside"):
        open_rgb(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_that_pillow_cannot_open_is_upright(tmp_path, orientation):
    tags = [(274, "H", 1, orientation, True)]
    small = write(tmp_path / "a.tif", eight_bits(SHARES), photometric="rgb", extratags=tags)
    with Image.open(small) as opened:
        assert opened.mode == "RGB"
    path = write(tmp_path / "b.tif", SHARES.astype(np.float32), photometric="rgb", extratags=tags)
    assert np.array_equal(np.asarray(open_rgb(path)[0]), np.asarray(open_rgb(small)[0]))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_pages_beyond_the_first_have_one_note(tmp_path, dtype):
    values = SHARES if dtype == "float32" else SHARES * np.iinfo(dtype).max
    path = write(tmp_path / "a.tif", np.stack([values, values]).astype(dtype), photometric="rgb")
    assert open_rgb(path)[1] == ["several frames or pages, of which the first is used"]


def test_tiff_that_pillow_cannot_open_keeps_its_shape(tmp_path):
    floats = write(tmp_path / "a.tif", SHARES.astype(np.float32), photometric="rgb")
    signed = write(tmp_path / "b.tif", SHARES.astype(np.float32) - 1, photometric="rgb")
    assert read_size(floats) == read_size(signed, (-1, 0)) == (12, 10)
    split = Split((floats, signed), np.array([0, 1]))
    whole = decode(split, Preprocessing(size=8, resize="crop", value_range=(-1, 1)), whole_side=10).whole
    assert whole is not None and whole.shapes.tolist() == [[10, 12]] * 2


@pytest.mark.parametrize("orientation", [1, 6])
def test_masks_of_float_tiffs_follow_their_orientation(tmp_path, orientation):
    mask = (np.indices((24, 40))[1] < 12).astype(np.uint8)
    for i in range(3):
        values = (mask[..., None] * [1.0, 0.5, 0.25] * (1 - i / 10)).astype(np.float32)
        write(tmp_path / f"images/{i}.tif", values, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(tmp_path / f"masks/{i}.png")
    dataset = load_segmentation_dataset(tmp_path, val_fraction=0)
    pixels, classes = load_pair(dataset.splits["train"], 0, dataset.lookup_table, dataset.mask_format)
    assert np.array_equal(pixels[0] > 0, classes == 1) and classes.shape == ((40, 24) if orientation == 6 else (24, 40))
