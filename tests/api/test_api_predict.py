"""`vpt.predict` and `vpt.evaluate` on files and on images in memory."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vpt
from helpers.brightness import CLASSES, FAST, PairDataset, draw, draw_numbers, draw_tags, encoded


def test_predict_every_form_of_an_image_gives_the_same(result: vpt.RunResult, data: Any, tmp_path: Path) -> None:
    pixels = data[0][1]
    path = tmp_path / "new.png"
    path.write_bytes(encoded(pixels))
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    content = path.read_bytes()
    forms = [path, str(path), content, Image.fromarray(pixels), pixels, pixels / 255, tensor, tensor / 255]
    forms += [bytearray(content), memoryview(content), io.BytesIO(content)]
    model = vpt.load(result.file)
    found = [vpt.predict(model, form) for form in forms]
    assert {prediction.top for prediction in found} == {found[0].top}
    assert found[0].label == "light" and found[0].probability > 0.5 and found[0].mask is None
    assert [name for name, _ in found[0].top] == ["light", "dark"]
    assert [found[0].image, found[2].image] == [str(path), "image 0"]
    assert vpt.predict(result.file, path, top=1).top == found[0].top[:1]


def test_predict_several_images_gives_a_list(result: vpt.RunResult, data: Any, tmp_path: Path) -> None:
    pixels = data[0][:3]
    for index in (2, 0, 1):
        (tmp_path / f"{index}.png").write_bytes(encoded(pixels[index]))
    model = vpt.load(result.file)
    expected = [vpt.predict(model, image).label for image in pixels]
    assert expected == ["dark", "light", "dark"]
    for several in (
        tmp_path,
        pixels,
        list(pixels),
        torch.from_numpy(pixels),
        [tmp_path],
        tuple(tmp_path.glob("*.png")),
    ):
        found = vpt.predict(model, several)
        assert isinstance(found, list) and len(found) == 3
        assert sorted(prediction.label for prediction in found) == sorted(expected)
    assert [prediction.label for prediction in vpt.predict(model, tmp_path)] == expected
    assert vpt.predict(model, [pixels[0]])[0].label == "dark"
    with (tmp_path / "0.png").open("rb") as file:
        assert [found.label for found in vpt.predict(model, [file, tmp_path / "1.png"])] == expected[:2]


def test_predict_unusable_arguments_are_refused(result: vpt.RunResult, data: Any, tmp_path: Path) -> None:
    pixels = data[0][0]
    with pytest.raises(vpt.DataError, match=r"image 1: float32 pixels from .* outside 0..1"):
        vpt.predict(result.file, [pixels, pixels.astype(np.float32)])
    with pytest.raises(vpt.DataError, match="does not exist; give an image or a folder"):
        vpt.predict(result.file, tmp_path / "absent.jpg")
    with pytest.raises(vpt.SpecError, match="flip, out: for segmentation, and the model is for classification"):
        vpt.predict(result.file, pixels, flip=True, out=tmp_path)
    for other in (None, {"image": pixels}, 3):
        with pytest.raises(vpt.SpecError, match=r"the images are a value of type .*; give a path, the bytes of an"):
            vpt.predict(result.file, other)  # type: ignore[call-overload]
    with pytest.raises(vpt.SpecError, match=r"opened as text; open it with open\(path, \"rb\"\)"):
        vpt.predict(result.file, io.StringIO("x"))  # type: ignore[call-overload]
    for empty in ("", [""]):
        with pytest.raises(vpt.DataError, match="the path of an image is ''; give an image or a folder"):
            vpt.predict(result.file, empty)
    with pytest.raises(vpt.SpecError, match="top is 0"):
        vpt.predict(result.file, pixels, top=0)
    with pytest.raises(vpt.SpecError, match="backbone and weights belong to a tuned file"):
        vpt.predict(vpt.load(result.file), pixels, weights="a.pth")
    assert vpt.predict(result.file, [b"no image", pixels], skip_corrupt=True)[0].image == "image 1"


def test_evaluate_matches_classes_by_name(result: vpt.RunResult, data: Any) -> None:
    pixels, labels = data
    model = vpt.load(result.file)
    by_number = vpt.evaluate(model, {"test": (pixels, labels)})
    assert by_number.images == 40 and by_number.split == "test" and by_number.metrics["top1"] == 1
    assert by_number.per_class == {"dark": 1, "light": 1}
    for same in (PairDataset(pixels, labels), ([*pixels], [CLASSES[k] for k in labels])):
        assert vpt.evaluate(model, {"test": same}).metrics == by_number.metrics
    flipped = vpt.evaluate(result.file, (pixels, labels), classes=CLASSES[::-1])
    assert flipped.metrics["top1"] == 0
    with pytest.raises(vpt.DataError, match="the data have no split val; they have test"):
        vpt.evaluate(model, {"test": (pixels, labels)}, split="val")


@pytest.mark.parametrize("number_of_labels", [0, 1, 3])
def test_evaluate_of_training_data_in_memory_scores_their_test_split(number_of_labels: int, tmp_path: Path) -> None:
    pixels, labels = {0: draw_numbers, 1: draw, 3: draw_tags}[number_of_labels](40)
    given = (pixels, labels, [f"patient {index // 2}" for index in range(40)])
    found = vpt.tune(given, tmp_path / "a.safetensors", seed=3, test_fraction=0.3, **FAST)
    model = vpt.load(found.file)
    scores = vpt.evaluate(model, (list(pixels), labels.tolist(), given[2]))
    assert scores.images == found.images["test"] < 20
    assert {f"test_{name}": value for name, value in scores.metrics.items()} == pytest.approx(found.metrics)
    assert vpt.evaluate(model, given, split="train").images == found.images["train"]
    assert vpt.embed_to_file(model, given, tmp_path / "all.csv", split="all").images == 40
    for other in ({"test": given}, (pixels[:-1], labels[:-1]), (pixels[::-1], labels[::-1])):
        assert vpt.evaluate(model, other).images == len(other["test"][0] if isinstance(other, dict) else other[0])


def test_evaluate_folder_scores_the_split_of_training(data: Any, tmp_path: Path) -> None:
    for index, (pixels, label) in enumerate(zip(*data, strict=True)):
        folder = tmp_path / "photos" / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index}.png").write_bytes(encoded(pixels))
    found = vpt.tune(tmp_path / "photos", tmp_path / "a.safetensors", seed=3, test_fraction=0.3, **FAST)
    scores = vpt.evaluate(found.file, tmp_path / "photos")
    assert scores.images == found.images["test"] == 12
    assert {f"test_{name}": value for name, value in scores.metrics.items()} == found.metrics
