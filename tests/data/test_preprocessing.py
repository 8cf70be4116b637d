"""Options of the conversion of images to the input of a backbone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vpt import inspect
from vpt.data.preprocessing import Preprocessing
from vpt.errors import SpecError
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
