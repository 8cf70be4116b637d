"""Files that differ in their values alone are read into one model, and each task keeps its own values."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

import vpt
from vpt.errors import TunedFileError
from vpt.model.header import KEY, NO_CHECKSUM, seal
from vpt.serving import adapter_reader
from vpt.serving.bank import Bank

METHODS = ("linear", "mlp(layers=2)", "vpt(length=3)", "vpt(length=3, attention=zero_init)", "prefix(length=2)")
BLOCKS = "multi_block(blocks=last2, features=cls+mean)"


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that a model was made for."""
    seen, whole = [], adapter_reader.load
    monkeypatch.setattr(
        adapter_reader, "load", lambda path, *args, **options: seen.append(path) or whole(path, *args, **options)
    )
    return seen


def write(folder: Path, method: str, names: str, backbone, head: str | None = None) -> None:
    for seed, name in enumerate(names):
        model = vpt.attach(backbone, method, 2, classes=(f"{name}0", f"{name}1"), head=head)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in model.trainable_parameters():
                weight.normal_(std=0.5, generator=generator)
        vpt.save(model, folder / f"{name}.safetensors")


@pytest.mark.parametrize(("method", "head"), [*((method, None) for method in METHODS), ("vpt(length=2)", BLOCKS)])
def test_files_of_one_method_are_read_into_one_model(method, head, tmp_path: Path, pictures, loads) -> None:
    backbone = vpt.load_backbone()
    write(tmp_path, method, "abc", backbone, head)
    bank = Bank([tmp_path], backbone=backbone)
    bank.preload()
    assert [path.stem for path in loads] == ["a"]
    predictions = bank.predict([bank.make_request(name, pictures[0]) for name in "cabcba"])
    for name, prediction in zip("cabcba", predictions, strict=True):
        model = vpt.load(tmp_path / f"{name}.safetensors", backbone)
        pixels = torch.from_numpy(model.backbone.preprocessing.resize_image(pictures[0]))[None]
        with torch.no_grad():
            expected = model(model.backbone.preprocessing.normalize(pixels)).softmax(1)[0]
        found = [dict(prediction.top)[f"{name}{index}"] for index in range(2)]
        assert found == pytest.approx(expected.tolist(), abs=1e-4)


def test_other_classes_or_methods_get_a_model_of_their_own(tmp_path: Path, loads: list[Path]) -> None:
    backbone = vpt.load_backbone()
    for name, (method, classes) in {"a": ("linear", 2), "b": ("linear", 3), "c": ("bias", 2), "d": ("bias", 2)}.items():
        vpt.save(vpt.attach(backbone, method, classes), tmp_path / f"{name}.safetensors")
    Bank([tmp_path], backbone=backbone).preload()
    assert [path.stem for path in loads] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("fault", ["nan", "shape", "name", "dtype"])
def test_damaged_file_is_refused_and_the_others_predict(fault: str, tmp_path: Path, pictures) -> None:
    backbone = vpt.load_backbone()
    write(tmp_path, "vpt(length=3)", "abc", backbone)
    path = tmp_path / "b.safetensors"
    tensors = load(path.read_bytes())
    if fault == "nan":
        tensors["head.bias"][0] = float("nan")
    elif fault == "dtype":
        tensors["head.bias"] = tensors["head.bias"].double()
    else:
        tensors |= {"head.bias": torch.zeros(3)} if fault == "shape" else {"other": tensors.pop("head.bias")}
    values = json.loads(vpt.inspect(path).to_json()) | {"checksum": NO_CHECKSUM}
    path.write_bytes(seal(save(tensors, {KEY: json.dumps(values)})))
    bank = Bank([tmp_path], backbone=backbone)
    before = bank.predict([bank.make_request("a", pictures[0])])
    with pytest.raises(TunedFileError, match=r"b\.safetensors (holds NaN|does not fit|has fp32)"):
        bank.predict([bank.make_request("b", pictures[0])])
    bank.predict([bank.make_request("c", pictures[0])])
    assert bank.predict([bank.make_request("a", pictures[0])]) == before
