"""`Backbone.transform`: an ordinary ImageFolder and DataLoader give the tensors that vpt computes itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from helpers.families import backbone_of
from vpt import load_backbone
from vpt.data.decoding.arrays import decode
from vpt.data.folders.class_folders import read_image_folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Images of several shapes, one with an EXIF orientation."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("a", "b"):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for index, shape in enumerate([(50, 70, 3), (90, 40, 3), (32, 32, 3)]):
                image = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
                exif = Image.Exif()
                exif[0x0112] = 6 if index == 0 else 1
                image.save(folder / f"{index}.jpg", exif=exif)
    return tmp_path


@pytest.mark.parametrize("resize", ["squash", "crop"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_transform_in_a_data_loader_equals_decode_and_normalize(photos: Path, resize: str, interpolation: str) -> None:
    backbone = backbone_of("vit")
    preprocessing = replace(backbone.preprocessing, resize=resize, interpolation=interpolation)
    backbone = replace(backbone, preprocessing=preprocessing)
    folder = ImageFolder(str(photos / "train"), backbone.transform())
    inputs = torch.cat([batch for batch, _ in DataLoader(folder, batch_size=4)])
    own = decode(read_image_folder(photos).splits["train"], preprocessing)
    assert torch.equal(inputs, preprocessing.normalize(torch.from_numpy(own.images)))
    assert inputs.dtype == torch.float32 and inputs.shape == (6, 3, 32, 32)


def test_transform_in_training_flips_half_of_the_images(photos: Path) -> None:
    backbone = backbone_of("vit")
    image = Image.open(photos / "train" / "a" / "2.jpg")
    plain, transform = backbone.transform()(image), backbone.transform(train=True)
    torch.manual_seed(0)
    views = [transform(image) for _ in range(64)]
    flipped = sum(torch.equal(view, plain.flip(-1)) for view in views)
    assert 16 < flipped < 48
    assert flipped + sum(torch.equal(view, plain) for view in views) == 64


@pytest.mark.parametrize(
    "name", ["vit_small_patch14_reg4_dinov2", "vit_base_patch16_clip_224.openai", "resnet50.a1_in1k"]
)
def test_preprocessing_of_timm_model_equals_its_data_config(name: str) -> None:
    model = timm.create_model(name, pretrained=False, num_classes=0)
    config, preprocessing = timm.data.resolve_model_data_config(model), load_backbone(model).preprocessing
    assert (preprocessing.mean, preprocessing.std) == (config["mean"], config["std"])
    assert preprocessing.size == config["input_size"][-1]
    assert preprocessing.interpolation == config["interpolation"]
    assert preprocessing.crop_fraction == config["crop_pct"]
