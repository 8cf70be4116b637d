"""Training that goes on from a tuned file: kept tensors, rows of the head by name, old classes before and after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vpt
from vpt.data.loading import load_dataset
from vpt.model.attach import attach
from vpt.tasks.classification.continuation import start_from

COLORS = {"blue": (40, 40, 200), "green": (40, 190, 40), "red": (200, 40, 40)}
FAST: dict[str, Any] = {"epochs": 2, "batch_size": 8, "progress": False}


def draw(root: Path, *names: str, images: int = 10) -> Path:
    rng = np.random.default_rng(0)
    for name in names:
        (root / name).mkdir(parents=True)
        for number in range(images):
            pixels = (np.array(COLORS[name]) + rng.normal(0, 25, (48, 48, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file tuned on two classes, with prompts and another crop than the backbone's."""
    root = tmp_path_factory.mktemp("first")
    data, out = draw(root / "data", "green", "red"), root / "a.safetensors"
    vpt.tune(data, out, method="vpt(length=2)", resize="crop", learning_rate=0.5, **FAST)
    return out


@pytest.mark.parametrize("head", [None, "multi_block(blocks=last2)"])
def test_start_from_keeps_tensors_and_rows_by_name(head: str | None, tmp_path: Path) -> None:
    backbone = vpt.load_backbone("vit_nano_patch12_48")
    old = attach(backbone, "vpt(length=2) + bias", 2, classes=("red", "green"), head=head)
    path = vpt.save(old, tmp_path / "old.safetensors")
    classes = ("blue", "green", "red")
    new = attach(backbone, "vpt(length=2) + bias", 3, classes=classes, head=head)
    blue = {name: tensor[0].clone() for name, tensor in new.head.named_parameters() if len(tensor) == 3}
    start_from(new, path)
    before, after = old.trainable_state_dict(), new.trainable_state_dict()
    rows = {name for name in before if before[name].shape != after[name].shape}
    assert len(rows) == 2 and all(torch.equal(after[name], before[name]) for name in before.keys() - rows)
    for name in rows:
        assert torch.equal(after[name][1], before[name][1]) and torch.equal(after[name][2], before[name][0])
    for name, tensor in new.head.named_parameters():
        assert name not in blue or torch.equal(tensor[0], blue[name])
    images = torch.rand(2, 3, 48, 48)
    with torch.inference_mode():
        torch.testing.assert_close(new.eval()(images)[:, [2, 1]], old.eval()(images))


def test_tune_from_a_file_keeps_its_classes_and_measures_them(first: Path, tmp_path: Path) -> None:
    data, out = draw(tmp_path / "data", "blue", "green", images=15), tmp_path / "b.safetensors"
    result = vpt.tune(data, out, init=first, **FAST)
    header, old = vpt.inspect(out), vpt.inspect(first)
    assert header.classes == ("green", "red", "blue")  # red has no image any more
    assert (header.method, header.backbone, header.preprocessing) == (old.method, old.backbone, old.preprocessing)
    assert result.init is not None and result.init["classes"] == ["green", "red"] and result.init["images"] == 3
    green = [path for path in load_dataset(data).test.paths if path.parent.name == "green"]
    for file, key in ((first, "before"), (out, "after")):
        assert vpt.evaluate(file, (green, ["green"] * 3)).metrics["top1"] == result.init[key]
    saved = json.loads((tmp_path / "b.run" / "result.json").read_text())
    assert saved["init"] == result.init and saved["job"]["init"] == str(first)


def test_tune_from_a_file_without_a_step_predicts_as_the_file(first: Path, tmp_path: Path) -> None:
    """With a rate of nearly nothing, the model is still that of the file."""
    data = draw(tmp_path / "data", "green", "red")
    vpt.tune(data, tmp_path / "b.safetensors", init=first, learning_rate=1e-12, weight_decay=0, **FAST)
    old, new = (vpt.predict(file, data) for file in (first, tmp_path / "b.safetensors"))
    assert [found.label for found in new] == [found.label for found in old]
    assert [found.probability for found in new] == pytest.approx([found.probability for found in old], abs=1e-5)


def test_options_that_the_file_decides_are_refused(first: Path, tmp_path: Path) -> None:
    data, out = draw(tmp_path / "data", "green", "red"), tmp_path / "b.safetensors"
    with pytest.raises(vpt.SpecError, match=r"interpolation, normalization: .* decides on the images"):
        vpt.tune(data, out, init=first, normalization="imagenet", interpolation="bicubic", **FAST)
    with pytest.raises(vpt.SpecError, match=r"has the method vpt\(length=2\).* leave --method and --head out"):
        vpt.tune(data, out, init=first, method="bias", **FAST)
    with pytest.raises(vpt.TunedFileError, match=r"no.safetensors does not exist"):
        vpt.tune(data, out, init=tmp_path / "no.safetensors", **FAST)
