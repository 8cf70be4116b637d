"""`vpt.tune` on arrays, datasets and lists of images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import vpt
from helpers.brightness import CLASSES, FAST, ColumnDataset, PairDataset, draw, encoded


def test_tune_arrays_gives_metrics_and_a_file_with_class_names(result: vpt.RunResult) -> None:
    assert result.metric == "test_top1" and result.score > 0.9
    assert result.images == {"train": 24, "val": 8, "test": 8}
    assert vpt.inspect(result.file).classes == CLASSES
    assert result.environment["threads"] == torch.get_num_threads()


def test_tune_same_arrays_reads_the_finished_run_and_others_are_refused(result: vpt.RunResult, data: Any) -> None:
    pixels, labels = data
    assert vpt.tune((pixels.copy(), labels.tolist()), result.file, classes=CLASSES, **FAST) == result
    changed = pixels.copy()
    changed[0, 0, 0, 0] ^= 1
    for other in ((changed, labels), (pixels, 1 - labels)):
        with pytest.raises(vpt.SpecError, match=r"other settings \(data: images \(sha256 \w+\) then"):
            vpt.tune(other, result.file, classes=CLASSES, **FAST)


def test_tune_interrupted_on_arrays_resumes_to_the_same_file(result: vpt.RunResult, data: Any, tmp_path: Path) -> None:
    class Interrupt(vpt.Callback):
        def on_epoch(self, record: Any) -> None:
            raise KeyboardInterrupt

    out = tmp_path / "a.safetensors"
    with pytest.raises(KeyboardInterrupt):
        vpt.tune(data, out, classes=CLASSES, callback=Interrupt(), **FAST)
    assert not out.exists()
    resumed = vpt.tune(data, out, classes=CLASSES, **FAST)
    assert out.read_bytes() == Path(result.file).read_bytes()
    assert resumed.metrics == result.metrics


def test_tune_torch_dataset_takes_its_classes_and_given_splits(data: Any, tmp_path: Path) -> None:
    train, val, test = (PairDataset(*draw(n, seed)) for seed, n in enumerate((24, 6, 10)))
    found = vpt.tune(train, tmp_path / "a.safetensors", val=val, test=test, **FAST)
    assert found.images == {"train": 24, "val": 6, "test": 10}
    assert (found.data, vpt.inspect(found.file).classes) == ("PairDataset", ("light", "dark"))
    assert vpt.predict(found.file, data[0][1]).label == "light"


@pytest.mark.parametrize(("names", "expected"), [(CLASSES, CLASSES), (None, ("0", "1"))])
def test_tune_hugging_face_dataset_takes_names_of_its_label(
    names: tuple[str, ...] | None, expected: tuple[str, ...], tmp_path: Path
) -> None:
    splits = {"train": ColumnDataset(*draw(16), names), "validation": ColumnDataset(*draw(6, 1), names)}
    found = vpt.tune(splits, tmp_path / "a.safetensors", **{**FAST, "epochs": 1})
    assert found.data == "brightness" and vpt.inspect(found.file).classes == expected
    assert found.images["val"] == 6


def test_tune_lists_of_any_images_with_names_as_labels(data: Any, tmp_path: Path) -> None:
    pixels, labels = data
    Image.fromarray(pixels[0]).save(tmp_path / "0.png")
    images = [
        tmp_path / "0.png",
        encoded(pixels[1]),
        Image.fromarray(pixels[2]).resize((60, 50)),
        torch.from_numpy(pixels[3]).permute(2, 0, 1) / 255,
        *pixels[4:12],
    ]
    names = [CLASSES[label] for label in labels[:12]]
    found = vpt.tune((images, names), tmp_path / "a.safetensors", **{**FAST, "epochs": 1})
    assert found.images == {"train": 8, "val": 2, "test": 2}
    assert vpt.inspect(found.file).classes == CLASSES


def refused_data() -> dict[str, tuple[Any, str]]:
    """Return data that cannot be used, and the message."""
    pixels, labels = draw(8)
    return {
        "float pixels above 1": ((pixels.astype(np.float32), labels), "float32 pixels from .* outside 0..1"),
        "normalized pixels": ((torch.randn(8, 3, 48, 48), labels), "outside 0..1; give uint8 in 0..255 or float"),
        "another number of labels": ((pixels, labels[:-1]), "8 images and 7 labels; give one label per image"),
        "negative label": ((pixels, labels - 1), "a label is -1; labels are integers from 0"),
        "fraction and name as labels": ((pixels, [0.5] * 7 + ["cat"]), "labels are no numbers, or not as many"),
        "one class": ((pixels, np.zeros(8, int)), "train has one class only, '0'"),
        "no images": (([], []), "train has no image"),
        "items that are no pairs": ([{"image": pixels[0]}], r"item 0 .* type dict; each item is \(image, label\)"),
        "unknown split": ({"train": (pixels, labels), "dev": (pixels, labels)}, "have a split 'dev'"),
        "a number": (3, "train is a value of type int; give .*; a folder or a built-in task is given alone"),
    }


@pytest.mark.parametrize("name", refused_data())
def test_tune_unusable_data_is_refused(name: str, tmp_path: Path) -> None:
    given, message = refused_data()[name]
    with pytest.raises(vpt.DataError, match=message):
        vpt.tune(given, tmp_path / "a.safetensors", **FAST)
    assert not (tmp_path / "a.safetensors").exists()


def test_tune_label_without_a_class_is_refused(data: Any, tmp_path: Path) -> None:
    with pytest.raises(vpt.DataError, match="train has the labels '1', which are no classes"):
        vpt.tune(data, tmp_path / "a.safetensors", classes=["dark"], **FAST)
    with pytest.raises(vpt.DataError, match="val has the labels 'gray', which are no classes"):
        vpt.tune(data, tmp_path / "a.safetensors", val=(data[0][:1], ["gray"]), **FAST)


@pytest.mark.parametrize(("method", "last"), [("linear", "head"), ("mlp(layers=2)", "head.4")])
def test_tune_with_kaiming_init_begins_as_the_official_code(data: Any, tmp_path: Path, method: str, last: str) -> None:
    out = tmp_path / "a.safetensors"
    options = {**FAST, "method": method, "epochs": 1, "learning_rate": 1e-9, "weight_decay": 0}
    run = vpt.tune(data, out, head="linear(init=kaiming)", **options)
    tensors = load_file(out)
    assert run.head == 'linear(init="kaiming")'
    assert vpt.inspect(out).head is None  # how a trained head began matters no more
    assert tensors[f"{last}.bias"] == pytest.approx([-4.59512, -4.59512], abs=1e-4)
    assert float(tensors[f"{last}.weight"].std()) == pytest.approx(1, rel=0.2)  # sqrt(2 / outputs)
    if method != "linear":
        hidden = tensors["head.0.weight"]
        assert float(hidden.std()) == pytest.approx((2 / len(hidden)) ** 0.5, rel=0.02)


def test_tune_arguments_that_contradict_are_refused(data: Any, tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    with pytest.raises(vpt.SpecError, match="the data are in memory, so the tuned file has no name"):
        vpt.tune(data, **FAST)
    with pytest.raises(vpt.SpecError, match="val is given twice"):
        vpt.tune({"train": data, "val": data}, out, val=data, **FAST)
    with pytest.raises(vpt.SpecError, match="the data have the splits test, but no train"):
        vpt.tune({"test": data}, out, **FAST)
    with pytest.raises(vpt.SpecError, match="'digits' is a folder or a built-in task"):
        vpt.tune("digits", out, val=data, **FAST)
    with pytest.raises(vpt.SpecError, match="in memory, and segmentation reads folders"):
        vpt.tune(data, out, task="segmentation", method="linear")
    with pytest.raises(vpt.SpecError, match="'fpn' is no head of classification; known: linear, multi_block"):
        vpt.tune(data, out, head="fpn", **FAST)
    with pytest.raises(vpt.SpecError, match="iterations: for segmentation"):
        vpt.tune(data, out, iterations=3, **FAST)


@pytest.mark.parametrize(("option", "hint"), [("lr", "learning_rate, "), ("num_epochs", "did you mean 'epochs'?")])
def test_tune_unknown_option_names_those_of_training(data: Any, tmp_path: Path, option: str, hint: str) -> None:
    with pytest.raises(vpt.SpecError, match=rf"^{option} is no option of classification; .*{re.escape(hint)}"):
        vpt.tune(data, tmp_path / "a.safetensors", **{option: 1})
