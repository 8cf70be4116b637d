"""Random crops reach every part of the whole image, and equal those of torchvision; so do the crops of tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torchvision.transforms import CenterCrop, Resize
from torchvision.transforms.v2 import functional as tv

from vpt.data.dataset import Split
from vpt.data.decoding.arrays import decode
from vpt.data.decoding.cache import decode_cached
from vpt.data.preprocessing import Preprocessing
from vpt.training import DeviceDataset, Examples
from vpt.training.batches import _PixelStore

FGVC = Preprocessing(mean=(0, 0, 0), std=(1, 1, 1), resize="crop")  # 224 px of 256, bilinear


@pytest.fixture
def split(tmp_path: Path) -> Split:
    """Noise of 600 x 300, 300 x 600 and 333 x 250 px, the second turned by its EXIF orientation."""
    rng = np.random.default_rng(0)
    paths = []
    for index, (height, width) in enumerate([(300, 600), (300, 600), (250, 333)]):
        image, exif = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)), Image.Exif()
        exif[0x0112] = 6 if index == 1 else 1
        paths.append(tmp_path / f"{index}.png")
        image.save(paths[-1], exif=exif)
    return Split(tuple(paths), np.arange(3))


def dataset_of(split: Split, preprocessing: Preprocessing = FGVC, side: int = 256) -> DeviceDataset:
    whole = decode(split, preprocessing, whole_side=side).whole
    inputs = decode(split, preprocessing).images
    return DeviceDataset(Examples(inputs, split.labels, whole), preprocessing, torch.device("cpu"))


def crops_of(dataset: DeviceDataset, index: int, augment: str, count: int) -> NDArray[np.uint8]:
    pixels = dataset.inputs(np.full(count, index), augment, np.random.default_rng(0))
    return np.asarray((255 * pixels).round().to(torch.uint8))


def torchvision_resize(split: Split, index: int, side: int = 256) -> NDArray[np.uint8]:
    """Torchvision's `Resize` of an image, uint8 (3, height, width)."""
    image = ImageOps.exif_transpose(Image.open(str(split.images[index])))
    return np.array(Resize(side)(image)).transpose(2, 0, 1)


@pytest.mark.parametrize(("index", "axis", "long"), [(0, 2, 512), (1, 1, 512), (2, 2, 340)])
def test_random_crop_equals_windows_of_torchvisions_resize_and_reaches_both_ends(
    split: Split, index: int, axis: int, long: int
) -> None:
    resized, starts, flipped = torchvision_resize(split, index), [], 0
    assert resized.shape[axis] == long
    for crop in crops_of(dataset_of(split), index, "random_crop", 100):
        corners = []
        for view in (crop, crop[:, :, ::-1]):
            same = (resized == view[:, :1, :1]).all(0)  # in noise a pixel tells its place
            corners += [
                (y, x, view is not crop)
                for y, x in np.argwhere(same)
                if np.array_equal(resized[:, y : y + 224, x : x + 224], view)
            ]
        ((y, x, mirrored),) = corners
        starts.append((0, y, x)[axis])
        flipped += mirrored
    assert min(starts) <= 0.05 * (long - 224) and max(starts) >= 0.95 * (long - 224)
    assert 30 < flipped < 70


@pytest.mark.parametrize(("index", "axis"), [(0, 1), (1, 0)])
def test_random_resized_crop_equals_torchvisions_resized_crop_and_reaches_both_ends(
    split: Split, index: int, axis: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes, cut = [], _PixelStore.crop

    def crop(self: _PixelStore, i: int, corner: Any, sides: Any) -> torch.Tensor:
        boxes.append((*map(int, corner), *map(int, sides)))
        return cut(self, i, corner, sides)

    monkeypatch.setattr(_PixelStore, "crop", crop)
    whole = torch.from_numpy(torchvision_resize(split, index, 317)).float()
    crops = crops_of(dataset_of(split, side=317), index, "random_resized_crop", 100)
    for found, box in zip(crops, boxes, strict=True):
        expected = tv.resized_crop(whole, *box, [224, 224], antialias=True).numpy()
        assert (
            min(np.abs(view - expected).max() for view in (found, found[:, :, ::-1])) < 0.502
        )  # of 255: it is rounded
    starts, ends = np.array(boxes)[:, axis], np.array(boxes)[:, axis] + np.array(boxes)[:, axis + 2]
    assert starts.min() < 20 and ends.max() > 634 - 20
    areas, aspects = np.array(boxes)[:, 2:].prod(1) / 317**2, np.array(boxes)[:, 3] / np.array(boxes)[:, 2]
    assert 0.49 < areas.min() < 0.55 and 0.95 < areas.max() < 1.01
    assert 0.84 < aspects.min() < 0.9 and 1.1 < aspects.max() < 1.19


@pytest.mark.parametrize("size", [(600, 300), (300, 600), (500, 375), (213, 341), (224, 224), (256, 301)])
@pytest.mark.parametrize("side", [224, 448])
def test_resize_image_of_fgvc_equals_torchvisions_resize_and_center_crop(size: tuple[int, int], side: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    expected = CenterCrop(side)(Resize(256 * side // 224)(image))
    found = Preprocessing(size=side, resize="crop", crop_fraction=0.875).resize_image(image)
    assert np.array_equal(found, np.asarray(expected).transpose(2, 0, 1))


def test_resize_whole_of_a_strip_uses_its_middle() -> None:
    strip = np.zeros((8, 4000, 3), np.uint8)
    strip[:, 2000:] = 255
    whole = FGVC.resize_whole(Image.fromarray(strip), 256)
    assert whole.shape == (3, 256, 16 * 256)
    assert whole[..., : 8 * 256 - 40].max() == 0 and whole[..., 8 * 256 + 40 :].min() == 255


@pytest.mark.parametrize("cached", [False, True])
def test_decode_of_whole_images_without_the_corrupt_ones_keeps_the_others(
    split: Split, tmp_path: Path, cached: bool
) -> None:
    path = Path(str(split.images[0]))
    path.write_bytes(path.read_bytes()[:2000])  # the header is sound
    for _ in range(2):  # with a cache, the second time is from it
        found = decode_cached(
            split, FGVC, whole_side=256, cache_dir=tmp_path / "kept" if cached else None, spill_dir=tmp_path,
            skip_corrupt=True,
        )  # fmt: skip
        assert found.whole is not None and len(found.whole) == 2 and found.labels.tolist() == [1, 2]
        assert all(np.array_equal(found.whole[i], torchvision_resize(split, i + 1)) for i in range(2))


def test_random_crop_of_squashed_images_is_taken_from_the_square(split: Split) -> None:
    squash = Preprocessing(mean=(0, 0, 0), std=(1, 1, 1))
    resized = np.asarray(Image.open(str(split.images[0])).resize((256, 256), Image.Resampling.BILINEAR))
    whole = decode(split, squash, whole_side=256).whole
    assert whole is not None and np.array_equal(whole[0], resized.transpose(2, 0, 1))
    crops = crops_of(dataset_of(split, squash), 0, "random_crop", 4)
    assert crops.shape == (4, 3, 224, 224) and len(np.unique(crops[:, 0, :8, :8].reshape(4, -1), axis=0)) == 4
