"""Exported graphs and files of tasks that strangers wrote are refused by the runtime without torch, or predict."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save

from hostile import generators
from hostile.entries import command, raw_errors
from vpt.errors import DataError, SpecError, TrainingError, TunedFileError
from vpt.runtime import ExportedModel, SharedModel
from vpt.runtime.metadata import read_metadata
from vpt.runtime.shared import Task

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
FLOAT = onnx.TensorProto.FLOAT
PREPROCESSING = {
    "size": 8, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bilinear", "resize": "squash",
    "crop_fraction": 0.875, "value_range": None,
}  # fmt: skip
BACKBONE = {"format": 1, "backbone": "vit", "fingerprint": "sha256:0", "preprocessing": PREPROCESSING}
MODEL = {**BACKBONE, "classes": ["ant", "bee"], "label_kind": {"name": "single_label", "temperature": 1.0}}
SHAPES: dict[str, list[int | str]] = {
    "images": ["batch", 3, 8, 8], "keys": ["batch", 2, 1, "prompts", 3], "values": ["batch", 2, 1, "prompts", 3],
    "bias": ["batch", 2, "prompts"], "weight": ["batch", "classes", 3], "head_bias": ["batch", "classes"],
}  # fmt: skip


def write_graph(path: Path, metadata: str, *, shared: bool = False) -> Path:
    """Write a graph whose feature is the mean color of an image."""
    helper = onnx.helper
    nodes = [helper.make_node("ReduceMean", ["images"], ["features"], axes=[2, 3], keepdims=0)]
    if shared:
        nodes += [
            helper.make_node("Einsum", ["weight", "features"], ["product"], equation="bcw,bw->bc"),
            helper.make_node("Add", ["product", "head_bias"], ["logits"]),
        ]
    else:
        nodes.append(helper.make_node("MatMul", ["features", "matrix"], ["logits"]))
    inputs = [helper.make_tensor_value_info(name, FLOAT, SHAPES[name]) for name in (SHAPES if shared else ["images"])]
    outputs = [helper.make_tensor_value_info("logits", FLOAT, ["batch", "classes" if shared else 2])]
    outputs += [helper.make_tensor_value_info("features", FLOAT, ["batch", 3])] * shared
    matrix = [] if shared else [helper.make_tensor("matrix", FLOAT, [3, 2], range(6))]
    graph = helper.make_graph(nodes, "test", inputs, outputs, matrix)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, {"vpt": metadata})
    path.write_bytes(model.SerializeToString())
    return path


def task_tensors(**changes: Any) -> dict[str, Any]:
    tensors: dict[str, Any] = {name: np.zeros((2, 1, 4, 3), np.float32) for name in ("keys", "values")}
    tensors |= {"bias": np.zeros((2, 4), np.float32), "head.0.weight": np.ones((2, 3), np.float32)}
    return {**tensors, "head.0.bias": np.zeros(2, np.float32), **changes}


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.new("RGB", (9, 9), "red").save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def metadata_texts() -> list[tuple[str, str]]:
    """Return metadata of strangers: those of any JSON, and forged kinds of labels and preprocessing."""
    texts = [(name, text.decode()) for name, text in generators.json_texts(MODEL)]
    kinds: list[Any] = [
        {}, [], {"name": 3}, {"name": []}, {"name": "ranking"}, {"name": "regression"}, {"name": "multi_label"},
        {"name": "regression", "mean": math.nan, "std": 1}, {"name": "regression", "mean": 0, "std": 0},
        {"name": "regression", "mean": "0", "std": True}, {"name": "multi_label", "thresholds": [0.5]},
        {"name": "multi_label", "thresholds": ["a", None]}, {"name": "single_label", "temperature": 0},
        {"name": "single_label", "temperature": 10**400}, {"name": "single_label", "surprise": 1},
        {"name": "single_label", "temperature": "hot"},
    ]  # fmt: skip
    texts += [(f"kind {kind}"[:40], json.dumps({**MODEL, "label_kind": kind})) for kind in kinds]
    for key, value in (
        ("size", 0), ("size", 10**9), ("size", "8"), ("size", True), ("resize", "none"), ("resize", []), ("mean", []),
        ("mean", [0.5, 0.5]), ("std", [0, 0, 0]), ("std", [1]), ("mean", [math.inf] * 3), ("interpolation", "magic"),
        ("interpolation", {}), ("crop_fraction", 0), ("crop_fraction", math.nan),
    ):  # fmt: skip
        texts.append((f"{key} {value}", json.dumps({**MODEL, "preprocessing": {**PREPROCESSING, key: value}})))
    classes: list[Any] = ["ant", [], ["ant"], ["ant", 2], {"ant": 1, "bee": 2}]
    return texts + [(f"classes {names}", json.dumps({**MODEL, "classes": names})) for names in classes]


def test_hostile_graphs_are_refused_at_every_entry(photo: Path, tmp_path: Path) -> None:
    whole = write_graph(tmp_path / "whole.onnx", json.dumps(MODEL))
    assert ExportedModel(whole).predict([photo])[0].top[0][0] == "ant"
    inputs: list[tuple[str, Any]] = [*generators.damaged(whole.read_bytes(), 0), *generators.no_files()]
    for name, text in metadata_texts():
        inputs.append((name, lambda path, text=text: write_graph(path, text)))
    found = []
    for number, (name, write) in enumerate(inputs):
        path = tmp_path / f"{number}.onnx"
        write(path)
        entries = {
            "ExportedModel": lambda path=path: ExportedModel(path).predict([photo]),
            "SharedModel": lambda path=path: SharedModel(path),
            "vpt predict": command("predict", path, photo),
        }
        found += raw_errors(name, entries, path, is_damaged=name.startswith("cut to "))
    assert not found, "\n".join(found)
    assert len(inputs) > 100


def test_hostile_tasks_are_refused(photo: Path, tmp_path: Path) -> None:
    engine = SharedModel(write_graph(tmp_path / "shared.onnx", json.dumps(BACKBONE), shared=True))
    whole = save(task_tensors(), {"vpt-task": json.dumps(MODEL)})
    inputs: list[tuple[str, Any]] = [*generators.damaged(whole), *generators.no_files()]
    for name, text in metadata_texts():
        inputs.append((name, generators.content(save(task_tensors(), {"vpt-task": text}))))
    zeros = np.zeros
    for key, array in (
        ("keys", zeros(3, np.float32)), ("keys", zeros((2, 1, 0, 3), np.float32)), ("keys", zeros((2, 1, 4, 3))),
        ("bias", np.full((2, 4), np.nan, np.float32)), ("bias", zeros((2, 5), np.float32)),
        ("head.0.bias", zeros(3, np.float32)), ("head.0.weight", zeros((2, 4), np.float32)),
        ("head.0.weight", zeros(6, np.float32)), ("head.7.weight", zeros((2, 2), np.float32)),
    ):  # fmt: skip
        content = save(task_tensors(**{key: array}), {"vpt-task": json.dumps(MODEL)})
        inputs.append((f"{key} {array.shape}", generators.content(content)))
    headless = {name: tensor for name, tensor in task_tensors().items() if not name.startswith("head")}
    inputs.append(("no head", generators.content(save(headless, {"vpt-task": json.dumps(MODEL)}))))
    other = task_tensors(keys=zeros((3, 1, 4, 3), np.float32), values=zeros((3, 1, 4, 3), np.float32))
    deep = save({**other, "bias": zeros((3, 4), np.float32)}, {"vpt-task": json.dumps(MODEL)})
    inputs.append(("another backbone", generators.content(deep)))
    found = []
    for number, (name, write) in enumerate(inputs):
        path = tmp_path / f"{number}.safetensors"
        write(path)
        entries = {"SharedModel": lambda path=path: engine.predict([photo], [engine.load(path)])}
        found += raw_errors(name, entries, path, is_damaged=name.startswith("cut to "))
    assert not found, "\n".join(found)
    with pytest.raises(TunedFileError, match=r"has keys of shape \(3, 1, 4, 3\)"):
        engine.load(path)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ({"name": "ranking"}, r"label_kind\.name is 'ranking'; it must be one of single_label, multi_label"),
        ({"name": "regression", "mean": 0, "std": 0}, r"label_kind\.name is 'regression'; it must be a kind of 2"),
        ({"name": "multi_label", "thresholds": [0.5]}, r"thresholds is \[0\.5\]; it must be 2 numbers"),
        ({"name": "single_label", "temperature": -1}, r"temperature is -1; it must be a number above 0"),
        ({"name": "multi_label"}, "its metadata has no thresholds"),
    ],
)
def test_label_kind_that_cannot_be_used_is_named(kind: dict[str, Any], message: str) -> None:
    with pytest.raises(TunedFileError, match=message):
        read_metadata(json.dumps({**MODEL, "label_kind": kind}), "a.onnx", is_model=True, num_outputs=2)


def test_wrong_arguments_and_outputs_that_are_no_numbers_are_refused(photo: Path, tmp_path: Path) -> None:
    model = ExportedModel(write_graph(tmp_path / "model.onnx", json.dumps(MODEL)))
    for options in ({"top": 0}, {"batch_size": 0}, {"top": "3"}):
        with pytest.raises(SpecError, match="must be a whole number of at least 1"):
            model.predict([photo], **options)
    assert len(model.predict([photo], top=np.int64(1))[0].top) == 1
    for path, message in (
        (tmp_path, "cannot be used: a folder"),
        ("x" * 300, "cannot be used: File name too long"),
        (None, "is a NoneType"),
    ):
        with pytest.raises(DataError, match=message):
            model.predict([path])  # type: ignore[list-item]
    with pytest.raises(TunedFileError, match="cannot be opened"):
        ExportedModel("x" * 300)
    with pytest.raises(TunedFileError, match="cannot be opened"):
        Task("x" * 300)
    kind = {"name": "single_label", "temperature": 1e-320}
    cold = ExportedModel(write_graph(tmp_path / "cold.onnx", json.dumps({**MODEL, "label_kind": kind})))
    with pytest.raises(TrainingError, match="NaN or infinite"):
        cold.predict([photo])
    engine = SharedModel(write_graph(tmp_path / "shared.onnx", json.dumps(BACKBONE), shared=True))
    with pytest.raises(SpecError, match="1 images and 0 tasks"):
        engine.predict([photo], [])
