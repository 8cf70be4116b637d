"""The calls of `import vpt`: tune, predict, evaluate, explain and embed on files and on images in memory."""

from __future__ import annotations

import inspect
import io
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file

import vpt
from vpt.tasks.registry import TASKS
from vpt.training.job import Job

FAST: dict[str, Any] = {"method": "linear", "epochs": 2, "batch_size": 8, "progress": False}
CLASSES = ("dark", "light")


class PairDataset(torch.utils.data.Dataset[Any]):
    """A torch dataset whose classes are in another order than the labels of `data`."""

    classes = ("light", "dark")

    def __init__(self, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
        self.pixels, self.labels = pixels, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.pixels[index]), 1 - int(self.labels[index])


class ColumnDataset:
    """The part of a Hugging Face dataset that is read."""

    column_names = ("image", "label")
    info = SimpleNamespace(dataset_name="brightness")

    def __init__(self, pixels: NDArray[np.uint8], labels: NDArray[np.int64], names: tuple[str, ...] | None) -> None:
        self.features = {"label": SimpleNamespace(names=names)} if names else {"label": SimpleNamespace()}
        self.pixels, self.labels = pixels, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: int | str) -> Any:
        if key == "label":
            return self.labels.tolist()
        if not isinstance(key, int):
            raise KeyError(key)
        if key >= len(self):
            raise IndexError(key)
        return {"image": Image.fromarray(self.pixels[key]), "label": int(self.labels[key])}


def draw(n: int, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return dark images (class 0) and light ones (class 1)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    pixels = rng.integers(0, 60, (n, 48, 48, 3)) + 120 * labels[:, None, None, None]
    return pixels.astype(np.uint8), labels.astype(np.int64)


@pytest.fixture(scope="module")
def data() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    return draw(40)


@pytest.fixture(scope="module")
def result(data: Any, tmp_path_factory: pytest.TempPathFactory) -> vpt.RunResult:
    return vpt.tune(data, tmp_path_factory.mktemp("tuned") / "a.safetensors", classes=CLASSES, **FAST)


def test_tune_arrays_gives_metrics_and_a_file_with_class_names(result: vpt.RunResult) -> None:
    assert result.metric == "test_top1" and result.score > 0.9
    assert result.images == {"train": 24, "val": 8, "test": 8}
    assert vpt.inspect(result.file).classes == CLASSES


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
        "fraction as label": ((pixels, labels / 2), "a label is 0.0; labels are integers from 0"),
        "one class": ((pixels, np.zeros(8, int)), "train has one class only, '0'"),
        "no images": (([], []), "train has no image"),
        "items that are no pairs": ([{"image": pixels[0]}], r"item 0 .* type dict; each item is \(image, label\)"),
        "unknown split": ({"train": (pixels, labels), "dev": (pixels, labels)}, "have a split 'dev'"),
        "a number": (3, "train is a value of type int; give a folder, a built-in task"),
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


def encoded(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_predict_every_form_of_an_image_gives_the_same(result: vpt.RunResult, data: Any, tmp_path: Path) -> None:
    pixels = data[0][1]
    path = tmp_path / "new.png"
    path.write_bytes(encoded(pixels))
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    forms = [path, str(path), path.read_bytes(), Image.fromarray(pixels), pixels, pixels / 255, tensor, tensor / 255]
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


def test_predict_unusable_arguments_are_refused(result: vpt.RunResult, data: Any, tmp_path: Path) -> None:
    pixels = data[0][0]
    with pytest.raises(vpt.DataError, match=r"image 1: float32 pixels from .* outside 0..1"):
        vpt.predict(result.file, [pixels, pixels.astype(np.float32)])
    with pytest.raises(vpt.DataError, match="does not exist; give an image or a folder"):
        vpt.predict(result.file, tmp_path / "absent.jpg")
    with pytest.raises(vpt.SpecError, match="flip, out: for segmentation, and the model is for classification"):
        vpt.predict(result.file, pixels, flip=True, out=tmp_path)
    with pytest.raises(vpt.SpecError, match="top is 0"):
        vpt.predict(result.file, pixels, top=0)
    with pytest.raises(vpt.SpecError, match="backbone and weights belong to a tuned file"):
        vpt.predict(vpt.load(result.file), pixels, weights="a.pth")
    assert vpt.predict(result.file, [b"no image", pixels], skip_corrupt=True)[0].image == "image 1"


def test_evaluate_matches_classes_by_name(result: vpt.RunResult, data: Any) -> None:
    pixels, labels = data
    model = vpt.load(result.file)
    by_number = vpt.evaluate(model, (pixels, labels))
    assert by_number.images == 40 and by_number.split == "test" and by_number.metrics["top1"] == 1
    assert by_number.per_class == {"dark": 1, "light": 1}
    for same in (PairDataset(pixels, labels), ([*pixels], [CLASSES[k] for k in labels]), {"test": (pixels, labels)}):
        assert vpt.evaluate(model, same).metrics == by_number.metrics
    flipped = vpt.evaluate(result.file, (pixels, labels), classes=CLASSES[::-1])
    assert flipped.metrics["top1"] == 0
    with pytest.raises(vpt.DataError, match="the data have no split val; they have test"):
        vpt.evaluate(model, {"test": (pixels, labels)}, split="val")


def test_evaluate_folder_scores_the_split_of_training(data: Any, tmp_path: Path) -> None:
    for index, (pixels, label) in enumerate(zip(*data, strict=True)):
        folder = tmp_path / "photos" / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index}.png").write_bytes(encoded(pixels))
    found = vpt.tune(tmp_path / "photos", tmp_path / "a.safetensors", seed=3, test_fraction=0.3, **FAST)
    scores = vpt.evaluate(found.file, tmp_path / "photos")
    assert scores.images == found.images["test"] == 12
    assert {f"test_{name}": value for name, value in scores.metrics.items()} == found.metrics


def test_explain_image_in_memory_draws_and_returns_maps(result: vpt.RunResult, data: Any, tmp_path: Path) -> None:
    found = vpt.explain(result.file, data[0][1], block=2, out=tmp_path / "maps.png")
    assert found.prediction[0] == "light" and found.block == 2
    assert found.tuned.attention.shape == (4, 4)
    assert (tmp_path / "maps.png").stat().st_size > 1000
    photo = tmp_path / "photo.png"
    photo.write_bytes(encoded(data[0][1]))
    with pytest.raises(vpt.SpecError, match="the image itself, which would be lost"):
        vpt.explain(result.file, photo, out=photo)
    assert photo.read_bytes() == encoded(data[0][1])


def test_embed_arrays_draws_and_returns_points(result: vpt.RunResult, data: Any, tmp_path: Path) -> None:
    found = vpt.embed(result.file, data, limit=12, out=tmp_path / "points.svg")
    assert found.after.points.shape == (12, 2) and found.classes == CLASSES
    assert {path.name for path in tmp_path.iterdir()} == {"points.svg", "points.csv"}


def test_tune_options_are_those_of_jobs_and_tasks() -> None:
    explicit = set(inspect.signature(vpt.tune).parameters) - {"options"}
    expected = {field.name for field in fields(Job)} - {"config", "options", "test"}
    for task in TASKS.values():
        expected |= task.config_class.option_names() | {field.name for field in fields(task.config_class.options_class)}
    own = {"task", "val", "test", "classes", "device", "progress", "callback", "overwrite"}
    assert explicit.isdisjoint(vpt.TuneOptions.__annotations__)
    assert explicit | set(vpt.TuneOptions.__annotations__) == expected | own


def test_import_gives_names_and_submodules_without_torch() -> None:
    code = (
        "import sys, vpt\n"
        "assert set(vpt.__all__) < set(dir(vpt))\n"
        "assert not {'torch', 'numpy', 'PIL', 'rich'} & set(sys.modules), 'import vpt'\n"
        "assert issubclass(vpt.errors.DataError, vpt.VptError)\n"
        "assert not {'torch', 'numpy'} & set(sys.modules), 'vpt.errors'\n"
        "vpt.testing.check_method, vpt.training.Examples\n"
        "for name in dir(vpt): getattr(vpt, name)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'vpt' has no attribute 'tunes'"):
        vpt.tunes  # type: ignore[attr-defined]  # noqa: B018
