"""Images as paths, bytes, Pillow images, arrays and tensors."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vpt.data.dataset import Split
from vpt.data.images.files import UnreadableImageError
from vpt.data.images.inputs import read_image
from vpt.errors import DataError
from vpt.training.batches import Examples

PIXELS = np.random.default_rng(0).integers(0, 256, (10, 12, 3), dtype=np.uint8)
CHW = PIXELS.transpose(2, 0, 1)


def encode(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "image",
    [
        PIXELS,
        CHW,
        torch.from_numpy(PIXELS),
        torch.from_numpy(CHW.copy()),
        (PIXELS / 255).astype(np.float32),
        torch.from_numpy(CHW / 255),
        torch.from_numpy(CHW / 255).requires_grad_(),
        Image.fromarray(PIXELS),
        encode(Image.fromarray(PIXELS)),
        np.dstack([PIXELS, np.full((10, 12), 255, np.uint8)]),
    ],
)
def test_read_image_of_each_form_returns_the_same_pixels(image):
    converted, _ = read_image(image)
    assert converted.mode == "RGB" and np.array_equal(np.asarray(converted), PIXELS)


def test_read_image_of_paths_reads_the_files(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path)
    assert all(np.array_equal(np.asarray(read_image(given)[0]), PIXELS) for given in (path, str(path)))


@pytest.mark.parametrize("gray", [PIXELS[..., 0], PIXELS[..., :1], PIXELS[None, ..., 0], PIXELS[..., 0] / 255])
def test_read_image_of_gray_pixels_repeats_the_channel(gray):
    converted, _ = read_image(gray)
    assert np.array_equal(np.asarray(converted), np.repeat(PIXELS[..., :1], 3, axis=2))


def test_read_image_of_a_rotated_image_is_upright_and_leaves_it_unchanged():
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.open(io.BytesIO(encode(Image.fromarray(np.rot90(PIXELS).copy()), exif=exif)))
    for _ in range(2):
        assert np.array_equal(np.asarray(read_image(turned)[0]), PIXELS)
    assert turned.size == (10, 12)


def test_read_image_of_transparent_pixels_blends_with_white():
    clear = np.zeros((10, 12, 4), np.uint8)
    assert (np.asarray(read_image(clear)[0]) == 255).all()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (PIXELS.astype(np.float32), r"float32 pixels from 0 to 255, outside 0\.\.1; give uint8 in 0\.\.255"),
        (torch.from_numpy(PIXELS / 127.5 - 1), r"float32 pixels from -1 to 1, outside 0\.\.1; .* before normalization"),
        (PIXELS.astype(np.int64), r"int64 pixels from 0 to 255; give uint8"),
        (PIXELS > 9, r"bool pixels from False to True; give uint8"),
        (np.full((10, 12, 3), np.nan), r"from nan to nan, outside 0\.\.1"),
        (np.zeros((10, 12, 2), np.uint8), r"shape \(10, 12, 2\); give \(height, width\)"),
        (np.zeros((9, 10, 12), np.uint8), r"shape \(9, 10, 12\)"),
        (np.zeros((5, 12, 3), np.uint8), r"only 12 x 5 px"),
        (np.zeros((0, 12, 3), np.uint8), r"only 12 x 0 px"),
        (b"no image", r"not an image of a known format"),
        (b"", r"empty"),
        (Path("missing.png"), r"no such file"),
        (3, r"a value of type int; give a path"),
    ],
)
def test_read_image_of_unusable_input_names_the_fault(image, message):
    with pytest.raises(UnreadableImageError, match=message):
        read_image(image)


def test_split_and_examples_of_float_pixels_are_refused():
    labels = np.zeros(1, np.int64)
    with pytest.raises(DataError, match=r"images are float64 \(1, 10, 12, 3\) from 0 to 1; give uint8 \(n, height"):
        Split((PIXELS / 255)[None], labels)
    with pytest.raises(DataError, match=r"images are float64 \(1, 3, 10, 12\) from 0 to 1; give uint8 \(n, 3, height"):
        Examples((CHW / 255)[None], labels)
    with pytest.raises(DataError, match="give uint8"):
        Examples(CHW[None], labels, oversized=(CHW / 255)[None])
