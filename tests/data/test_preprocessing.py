"""Options of the conversion of images to the input of a backbone."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vpt import evaluate, inspect, load, predict
from vpt.data.preprocessing import Preprocessing, read_normalization
from vpt.errors import SpecError
from vpt.serving.bank import Bank
from vpt.tuning import make_job, run_job


@pytest.mark.parametrize(("name", "lowest", "highest"), [("imagenet", -2.1179, 2.2489), ("inception", -1, 1)])
def test_with_normalization_maps_0_and_255_to_the_ends(name: str, lowest: float, highest: float) -> None:
    preprocessing = Preprocessing(size=1, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)).with_normalization(name)
    red = preprocessing.normalize(torch.tensor([0, 255]).view(2, 1, 1, 1).expand(2, 3, 1, 1))[:, 0].flatten()
    assert red.tolist() == pytest.approx([lowest, highest], abs=1e-4)


def test_with_normalization_of_the_backbone_changes_nothing() -> None:
    preprocessing = Preprocessing(mean=(0.1, 0.2, 0.3))
    assert preprocessing.with_normalization("backbone") == preprocessing
    with pytest.raises(SpecError, match="normalization 'imagnet' is unknown; did you mean 'imagenet'"):
        preprocessing.with_normalization("imagnet")


def test_with_normalization_of_numbers_has_these() -> None:
    preprocessing = Preprocessing(size=1).with_normalization("0.5, 0.25,0.1/0.2,0.5,1")
    assert (preprocessing.mean, preprocessing.std) == ((0.5, 0.25, 0.1), (0.2, 0.5, 1.0))
    white = preprocessing.normalize(torch.full((1, 3, 1, 1), 255)).flatten()
    assert white.tolist() == pytest.approx([2.5, 1.5, 0.9])
    gray = Preprocessing(size=1, mean=(0.1,), std=(0.2,))
    assert gray.with_normalization("0.5/0.25").std == (0.25,)
    with pytest.raises(SpecError, match="has 3 means, and the backbone reads 1 channels"):
        gray.with_normalization("0.5,0.25,0.1/0.2,0.5,1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.5,0.5,0.5", "is unknown; .* or write MEANS/DEVIATIONS: 0.48"),
        ("0.5,0.5,x/1,1,1", "is not numbers, a slash and numbers"),
        ("0.5/1/1", "is not numbers, a slash and numbers"),
        ("0.5,0.5,0.5/1,1", "has 3 means and 2 standard deviations"),
        ("0.5,0.5,0.5/1,1,0", "as many standard deviations above 0"),
        ("0.5,0.5,nan/1,1,1", "give finite means"),
    ],
)
def test_read_normalization_of_unusable_numbers_raises(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        read_normalization(text)
    with pytest.raises(SpecError, match=message):
        make_job("digits", "x.safetensors", normalization=text)


def test_job_with_normalization_of_numbers_is_used_by_each_reader(tmp_path: Path) -> None:
    numbers = {"normalization": "0.3,0.5,0.7/0.1,0.2,0.4", "epochs": 1, "method": "linear"}
    job = make_job("digits", tmp_path / "digits.safetensors", **numbers)
    result = run_job(job, draw=False)
    assert inspect(job.out).preprocessing.mean == (0.3, 0.5, 0.7)
    model = load(job.out).eval()
    assert model.backbone.preprocessing.std == (0.1, 0.2, 0.4)
    pixels = torch.randint(0, 256, (1, 3, 48, 48), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    image = Image.fromarray(pixels[0].permute(1, 2, 0).numpy())
    by_hand = (pixels / 255 - torch.tensor([0.3, 0.5, 0.7]).view(3, 1, 1)) / torch.tensor([0.1, 0.2, 0.4]).view(3, 1, 1)
    assert torch.allclose(model.backbone.transform(train=False)(image), by_hand[0], atol=1e-6)
    with torch.no_grad():
        top = dict(zip(model.classes, model(by_hand).softmax(1)[0].tolist(), strict=True))
    (predicted,) = predict(job.out, [image], top=len(top))
    bank = Bank([job.out])
    (served,) = bank.predict([bank.make_request("digits", image)])
    assert dict(predicted.top) == pytest.approx(top, abs=1e-5)
    assert dict(served.top) == pytest.approx(top, abs=1e-5)
    assert evaluate(job.out, "digits", split="test").metrics == pytest.approx(result.eval_metrics)


@pytest.mark.parametrize(("size", "fraction"), [(224, 1e-300), (224, 0.027), (8192, 0.875)])
def test_crop_fraction_that_enlarges_images_beyond_the_largest_size_raises(size: int, fraction: float) -> None:
    least = re.escape(f"it must be at least {size / 8192}")
    with pytest.raises(SpecError, match=rf"more than 8,192 px for a size of {size} px; {least}"):
        Preprocessing(size=size, resize="crop", crop_fraction=fraction)
    Preprocessing(size=size, resize="squash", crop_fraction=fraction)  # which does not use it
    Preprocessing(size=size, resize="crop", crop_fraction=size / 8192)


def test_run_job_with_normalization_and_crop_fraction_writes_them_to_the_tuned_file(tmp_path: Path) -> None:
    for name, value in (("a", 40), ("b", 200)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(6):
            pixels = np.full((50, 100, 3), value + index, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{index}.png")
    options = {"resize": "crop", "crop_fraction": 0.75, "normalization": "inception", "epochs": 1, "method": "linear"}
    job = make_job(tmp_path / "data", tmp_path / "x.safetensors", image_size=48, **options)
    assert job.to_dict()["normalization"] == "inception" and job.to_dict()["crop_fraction"] == 0.75
    run_job(job, draw=False)
    preprocessing = inspect(job.out).preprocessing
    assert (preprocessing.crop_fraction, preprocessing.mean, preprocessing.std) == (0.75, (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(SpecError, match=r"crop_fraction is 1\.5; it must be above 0 and at most 1"):
        run_job(make_job(tmp_path / "data", tmp_path / "y.safetensors", **{**options, "crop_fraction": 1.5}))
