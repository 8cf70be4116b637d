"""The runtime without torch predicts as the library does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vpt
from helpers.families import backbone_of
from vpt import TunedModel, attach, predict
from vpt.cli import main
from vpt.data.images.files import open_rgb
from vpt.data.preprocessing import Preprocessing
from vpt.errors import DataError, ExitCode, SpecError, TunedFileError
from vpt.export import export_backbone, export_task
from vpt.model.label_kinds import MultiLabel, Regression, SingleLabel
from vpt.runtime import ExportedModel, SharedModel
from vpt.runtime.pixels import read_input
from vpt.runtime.predictions import to_prediction

CLASSES = ("ant", "bee", "cat")


def trained(num_classes: int = 3) -> TunedModel:
    torch.manual_seed(0)
    names = CLASSES if num_classes == 3 else None
    model = attach(backbone_of("vit"), "vpt(length=3)", num_classes, classes=names).eval()
    with torch.no_grad():
        for weight in model.trainable_parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return model


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = []
    for index, (mode, size) in enumerate([("RGB", (60, 40)), ("L", (33, 90)), ("RGBA", (40, 40)), ("P", (200, 9))]):
        small = Image.fromarray(rng.integers(0, 256, (5, 7, 4), dtype=np.uint8), "RGBA").resize(size)
        paths.append(tmp_path / f"{index}.png")
        small.convert(mode).save(paths[-1])
    exif = Image.Exif()
    exif[0x0112] = 6
    paths.append(tmp_path / "turned.jpg")
    Image.fromarray(rng.integers(0, 256, (30, 50, 3), dtype=np.uint8)).save(paths[-1], exif=exif)
    return paths


@pytest.mark.parametrize("options", [{}, {"resize": "crop"}, {"mean": (0.5,), "std": (0.2,)}])
def test_input_is_that_of_the_library(photos: list[Path], options: dict[str, Any]) -> None:
    preprocessing = Preprocessing(size=32, **options)
    for path in photos:
        resized = torch.from_numpy(preprocessing.resize_image(open_rgb(path)[0]))
        expected = preprocessing.normalize(resized[None])[0].numpy()
        np.testing.assert_allclose(read_input(path, preprocessing), expected, rtol=0, atol=1e-5)


def test_deep_images_are_scaled_as_in_training(tmp_path: Path) -> None:
    deep = tmp_path / "deep.png"
    Image.fromarray(np.arange(900, dtype=np.uint16).reshape(30, 30)).save(deep)
    for limits in (None, (0.0, 1000.0)):
        backbone = backbone_of("vit")
        images = replace(backbone.preprocessing, value_range=limits)
        model = attach(replace(backbone, preprocessing=images), "linear", 2).eval()
        (found,) = ExportedModel(model.export(tmp_path / "model.onnx")).predict([deep])
        assert found.top[0][1] == pytest.approx(predict(model, deep).probability, abs=1e-4)


@pytest.mark.parametrize(
    ("kind", "num_classes"),
    [
        (SingleLabel(), 3),
        (SingleLabel(temperature=1.7), 3),
        (MultiLabel((0.3, 0.6, 0.5)), 3),
        (MultiLabel(), 3),
        (Regression(3.0, 2.0), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_predictions_equal_those_of_the_library(
    tmp_path: Path, photos: list[Path], kind: object, num_classes: int
) -> None:
    model = trained(num_classes)
    model.label_kind = kind
    found = ExportedModel(model.export(tmp_path / "model.onnx")).predict(photos, top=2, batch_size=2)
    for prediction, expected in zip(found, predict(model, photos, top=2), strict=True):
        if expected.value is not None:
            assert prediction.value == pytest.approx(expected.value, abs=1e-3)
            continue
        assert [name for name, _ in prediction.top] == [name for name, _ in expected.top]
        np.testing.assert_allclose([p for _, p in prediction.top], [p for _, p in expected.top], atol=1e-4)
        assert (prediction.labels is None) == (expected.labels is None)
        assert [name for name, _ in prediction.labels or ()] == [name for name, _ in expected.labels or ()]


def test_prediction_of_a_large_number_is_described_as_by_the_library() -> None:
    found = to_prediction("a.png", np.array([0.5]), None, {"name": "regression", "std": 2, "mean": 1_700_000_122}, 3)
    assert found.describe() == "a.png: 1700000123"


def test_prediction_is_the_class_of_the_library_and_names_its_image(tmp_path: Path, photos: list[Path]) -> None:
    assert vpt.runtime.Prediction is vpt.Prediction
    images = [photos[0], open_rgb(photos[1])[0]]
    model = trained()
    found = ExportedModel(model.export(tmp_path / "model.onnx")).predict(images, batch_size=1)
    for prediction, expected in zip(found, predict(model, images), strict=True):
        assert (prediction.image, prediction.label) == (expected.image, expected.label)
        assert prediction.to_dict().keys() == expected.to_dict().keys()


def test_shared_graph_predicts_images_of_two_tasks(tmp_path: Path, photos: list[Path]) -> None:
    export_backbone(backbone_of("vit"), tmp_path / "backbone.onnx")
    engine, model = SharedModel(tmp_path / "backbone.onnx"), trained()
    other = attach(replace(backbone_of("vit")), "linear", 2, classes=("x", "y")).eval()
    for name, one in (("first", model), ("second", other)):
        export_task(one, tmp_path / f"{name}.safetensors")
    tasks = [engine.load(tmp_path / f"{name}.safetensors") for name in ("first", "second")]
    predictions = engine.predict([photos[0], photos[0]], tasks)
    for prediction, one in zip(predictions, (model, other), strict=True):
        assert prediction.top[0][0] == predict(one, photos[0]).label


def test_runtime_predicts_without_torch(tmp_path: Path, photos: list[Path]) -> None:
    trained().export(tmp_path / "model.onnx")
    code = (
        "import sys\n"
        "from vpt.runtime import ExportedModel\n"
        f"print(ExportedModel({str(tmp_path / 'model.onnx')!r}).predict([{str(photos[0])!r}])[0].describe())\n"
        "assert not {'torch', 'timm', 'torchvision', 'scipy', 'sklearn'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert predict(trained(), photos[0]).label in done.stdout


def test_predict_command_predicts_from_a_graph_without_torch(tmp_path: Path, photos: list[Path]) -> None:
    trained().export(tmp_path / "model.onnx")
    for name in ("one.png", "two.png"):
        (tmp_path / "inbox").mkdir(exist_ok=True)
        (tmp_path / "inbox" / name).write_bytes(photos[0].read_bytes())
    (tmp_path / "inbox" / "list.csv").write_text("image\none.png\ntwo.png\n")
    code = (
        "import sys\n"
        "from vpt.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as exit: assert not exit.code, exit.code\n"
        "assert not {'torch', 'timm', 'torchvision', 'scipy', 'sklearn'} & set(sys.modules)"
    )
    sources = [str(tmp_path / "inbox"), str(tmp_path / "inbox" / "list.csv")]
    arguments = ["predict", str(tmp_path / "model.onnx"), *sources, "--json", "--top", "2"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True)
    expected = predict(trained(), tmp_path / "inbox" / "one.png", top=2).to_dict()
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["image"] for line in lines] == 2 * [str(tmp_path / "inbox" / name) for name in ("one.png", "two.png")]
    assert [each["class"] for each in lines[0]["top"]] == [each["class"] for each in expected["top"]]


def test_predict_command_keeps_predictions_before_a_corrupt_image(tmp_path: Path, photos: list[Path], capsys) -> None:
    graph, inbox = trained().export(tmp_path / "model.onnx"), tmp_path / "inbox"
    inbox.mkdir()
    for index in range(34):  # more than a batch
        (inbox / f"{index:02}.png").write_bytes(photos[0].read_bytes())
    (inbox / "33.png").write_bytes(b"no image")
    given = ["predict", str(graph), str(inbox), "--json"]
    with pytest.raises(SystemExit) as ended:
        main(given)
    out, err = capsys.readouterr()
    *predictions, last = map(json.loads, out.splitlines())
    assert ended.value.code == ExitCode.DATA and len(predictions) == 32 and last.keys() == {"error"}
    assert "33.png cannot be used: " in err and "or leave it out with --skip-corrupt" in err
    main([*given, "--skip-corrupt"])
    out, err = capsys.readouterr()
    assert [Path(json.loads(line)["image"]).stem for line in out.splitlines()] == [f"{k:02}" for k in range(33)]
    assert f"note: left out: {inbox / '33.png'} cannot be used: " in err
    with pytest.raises(SystemExit) as ended:
        main(["predict", str(graph), str(inbox / "33.png"), "--skip-corrupt"])
    assert ended.value.code == ExitCode.DATA and "1 of 1 image cannot be used" in capsys.readouterr().err


def test_stream_reads_images_when_their_batch_is_due(tmp_path: Path, photos: list[Path]) -> None:
    model, read, left_out = ExportedModel(trained().export(tmp_path / "model.onnx")), [], []
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")

    def given() -> Iterator[Path]:
        for path in (bad, *photos):
            read.append(path)
            yield path

    predictions = model.stream(given(), batch_size=2, on_corrupt=left_out.append)
    assert next(predictions)[0] == photos[0] and read == [bad, *photos[:2]]
    assert [path for path, _ in predictions] == photos[1:] and len(left_out) == 1
    assert [prediction for _, prediction in model.stream(photos)] == model.predict(photos)
    with pytest.raises(DataError, match=r"bad\.png cannot be used: "):
        list(model.stream([bad]))


def test_predict_command_refuses_options_that_a_graph_has_not(tmp_path: Path, photos: list[Path], capsys) -> None:
    trained().export(tmp_path / "model.onnx")
    with pytest.raises(SystemExit) as ended:
        main(["predict", str(tmp_path / "model.onnx"), str(photos[0]), "--min-confidence", "0.5"])
    assert ended.value.code == 2
    assert "--min-confidence has no effect on a graph" in capsys.readouterr().err


def test_files_of_other_kinds_are_refused(tmp_path: Path, photos: list[Path]) -> None:
    model = trained()
    graph = model.export(tmp_path / "model.onnx")
    export_task(model, tmp_path / "task.safetensors")
    (tmp_path / "bad.onnx").write_bytes(graph.read_bytes()[:1000])
    for path, message in (
        (tmp_path / "none.onnx", "does not exist"),
        (tmp_path / "bad.onnx", "cannot be read as a graph"),
        (tmp_path / "task.safetensors", "cannot be read as a graph"),
    ):
        with pytest.raises(TunedFileError, match=message):
            ExportedModel(path)
    with pytest.raises(TunedFileError, match="graph of one task"):
        SharedModel(graph)
    with pytest.raises(DataError, match="cannot be used: not an image of a known format"):
        ExportedModel(graph).predict([tmp_path / "task.safetensors"])
    Image.new("RGB", (4, 4)).save(tmp_path / "tiny.png")
    with pytest.raises(DataError, match=r"tiny\.png cannot be used: only 4 x 4 px; each side needs 8; replace it"):
        ExportedModel(graph).predict([tmp_path / "tiny.png"])
    for single in (str(photos[0]), photos[0]):
        with pytest.raises(SpecError, match="images is one image; give a list of them"):
            ExportedModel(graph).predict(single)


def test_shared_model_takes_any_iterables_and_refuses_single_ones(tmp_path: Path, photos: list[Path]) -> None:
    export_backbone(backbone_of("vit"), tmp_path / "backbone.onnx")
    export_task(trained(), tmp_path / "one.task.safetensors")
    engine = SharedModel(tmp_path / "backbone.onnx")
    task = engine.load(tmp_path / "one.task.safetensors")
    expected = engine.predict(photos, [task] * len(photos))
    assert engine.predict(iter(photos), (task for _ in photos), batch_size=2) == expected
    for single in (str(photos[0]), photos[0], open_rgb(photos[0])[0]):
        with pytest.raises(SpecError, match="images is one image; give a list of them"):
            engine.predict(single, [task])
    with pytest.raises(SpecError, match="tasks is one task; give a list with the task of each image"):
        engine.predict(photos[:1], task)
