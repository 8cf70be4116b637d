"""Tuned files: saving and loading restore the model, and faulty files are refused."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from safetensors.torch import save as serialize

import vpt
from helpers.families import backbone_of, images, model_of, resized
from vpt import VPT, Backbone, TunedModel, attach, inspect, load, save
from vpt.backbones import embedded
from vpt.backbones.weights import load_weights
from vpt.errors import TunedFileError
from vpt.model.header import seal

SCORES = {"test": {"top1": 0.75, "per_class": [0.5, 1.0, None]}}
NAMES = ("a dog", "Kätzchen", "犬")


@pytest.fixture
def backbone() -> Backbone:
    return backbone_of("vit")


@pytest.fixture
def model(backbone: Backbone) -> TunedModel:
    torch.manual_seed(0)
    return attach(backbone, "vpt(length=3, dropout=0.25)", 3, classes=NAMES).eval()


@pytest.fixture
def path(model: TunedModel, tmp_path: Path) -> Path:
    return save(model, tmp_path / "dogs.safetensors", scores=SCORES)


def refusal(path: Path, backbone: Any = None) -> str:
    with pytest.raises(TunedFileError) as caught:
        load(path, backbone if backbone is not None else backbone_of("vit"))
    assert str(path) in str(caught.value)
    return str(caught.value)


def rewrite(path: Path, **changes: Any) -> None:
    """The same tensors under another header, with the checksum of both."""
    header = {**json.loads(inspect(path).to_json()), **changes, "checksum": 64 * "0"}
    path.write_bytes(seal(serialize(load_file(path), {"vpt": json.dumps(header)})))


def test_load_after_save_restores_the_model(model, path, backbone):
    again = load(path, backbone)
    assert again.method == model.method
    assert again.classes == NAMES
    assert not again.training
    assert again.backbone.module is backbone.module
    for name, tensor in model.trainable_state_dict().items():
        assert torch.equal(again.trainable_state_dict()[name], tensor)
    with torch.no_grad():
        assert torch.equal(again(images()), model(images()))


def test_inspect_of_tuned_file_returns_its_header(path, backbone):
    header = inspect(path)
    assert header.method == VPT(length=3, dropout=0.25).spec(full=True)
    assert header.fingerprint == backbone.fingerprint()
    assert header.preprocessing == backbone.preprocessing
    assert (header.num_classes, header.classes, header.save_dtype) == (3, NAMES, "fp32")
    assert header.scores == SCORES
    assert {"vpt", "torch", "timm"} <= header.versions.keys()
    assert vpt.Header.from_json(header.to_json(), path) == header


def test_save_of_a_model_writes_only_trainable_tensors(path):
    tensors = load_file(path)
    assert sorted(tensors) == ["head.bias", "head.weight", *(f"prompts.{i}.tokens" for i in range(3))]
    assert path.stat().st_size < 4 * sum(tensor.numel() for tensor in tensors.values()) + 4000


def test_inspect_of_lost_tensors_reads_the_header(path):
    whole = inspect(path)
    content = bytearray(path.read_bytes())
    length = int.from_bytes(content[:8], "little")
    content[8 + length :] = bytes(len(content) - 8 - length)  # every tensor is lost
    path.write_bytes(content)
    assert inspect(path) == whole
    assert "altered" in refusal(path)


def test_load_without_class_names_returns_none(backbone, tmp_path):
    path = save(attach(backbone, "linear", 3), tmp_path / "t.safetensors")
    assert inspect(path).classes is None
    assert load(path, backbone).classes is None


def test_save_in_fp16_restores_fp32_tensors(model, tmp_path, backbone):
    path = save(model, tmp_path / "half.safetensors", save_dtype="fp16")
    assert inspect(path).save_dtype == "fp16"
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16}
    again = load(path, backbone)
    for name, tensor in model.trainable_state_dict().items():
        assert again.trainable_state_dict()[name].dtype == torch.float32
        assert torch.equal(again.trainable_state_dict()[name], tensor.detach().half().float())
    with pytest.raises(vpt.VptError, match="save_dtype is 'int8'"):
        save(model, tmp_path / "t.safetensors", save_dtype="int8")


def test_save_of_batch_norm_keeps_its_statistics(tmp_path):
    backbone = backbone_of("resnet")
    model = attach(backbone, "full", 3).train()
    model(images())
    again = load(save(model.eval(), tmp_path / "t.safetensors"), backbone)
    assert torch.equal(again.trainable_state_dict()["backbone.bn1.num_batches_tracked"], torch.tensor(1))
    with torch.no_grad():
        assert torch.equal(again(images()), model(images()))


def test_save_of_wrapped_model_writes_the_tuned_model(model, path, tmp_path):
    compiled = torch.compile(model, backend="eager")
    assert load_file(save(compiled, tmp_path / "c.safetensors")).keys() == load_file(path).keys()
    inside = torch.nn.ModuleDict({"model": torch.compile(model, backend="eager"), "metric": torch.nn.Identity()})
    assert load_file(save(inside, tmp_path / "i.safetensors")).keys() == load_file(path).keys()
    with pytest.raises(vpt.VptError, match="one tuned model can be saved, and Linear contains 0"):
        save(torch.nn.Linear(2, 2), tmp_path / "t.safetensors")


def test_load_of_several_files_shares_one_backbone(path, backbone):
    first, second = load(path, backbone), load(path, backbone)
    (one, *_), (two, *_) = first.trunk.blocks[0].mlp.parameters(), second.trunk.blocks[0].mlp.parameters()
    assert one.data_ptr() == two.data_ptr() == backbone.module.blocks[0].mlp.fc1.weight.data_ptr()


@pytest.mark.parametrize("fraction", [0.0, 0.0001, 0.2, 0.9, 0.999])
def test_load_of_truncated_tuned_file_is_refused(path, fraction):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])
    assert "damaged" in refusal(path)


@pytest.mark.parametrize("position", [-1, -100, -1000])
def test_load_with_a_changed_tensor_bit_is_refused(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    assert "checksum differs" in refusal(path)


def test_load_with_a_changed_header_byte_is_refused_or_equal(path):
    """Whatever happens to the header, loading raises a TunedFileError or gives the same tensors."""
    content = path.read_bytes()
    expected = load(path, backbone_of("vit")).trainable_state_dict()
    for position in np.random.default_rng(0).integers(0, 2000, 40):
        damaged = bytearray(content)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        try:
            actual = load(path, backbone_of("vit")).trainable_state_dict()
        except TunedFileError:
            continue
        assert all(torch.equal(actual[name], tensor) for name, tensor in expected.items())


def test_load_with_swapped_tensors_is_refused(path):
    tensors = load_file(path)
    tensors["prompts.0.tokens"], tensors["prompts.1.tokens"] = tensors["prompts.1.tokens"], tensors["prompts.0.tokens"]
    save_file(tensors, path, {"vpt": inspect(path).to_json()})
    assert "checksum differs" in refusal(path)


def test_load_of_another_format_version_is_refused(path):
    rewrite(path, format=3, versions={"vpt": "9.1"})
    message = refusal(path)
    assert "format version 3" in message and "reads versions 1 and 2" in message and "9.1" in message


@pytest.mark.parametrize(
    "changes",
    [
        {"preprocessing": {"size": -1}},
        {"preprocessing": 3},
        {"classes": 5},
        {"surprise": 1},
        {"versions": None, "format": 7},
    ],
)
def test_load_with_invalid_header_fields_is_refused(path, changes):
    rewrite(path, **changes)
    refusal(path)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "3", "{'a': 1}", "[1]"])
def test_load_with_invalid_metadata_is_refused(path, text):
    save_file(load_file(path), path, {"vpt": text})
    assert "damaged header" in refusal(path)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"method": "vpt(length=4)"}, "do not fit"),
        ({"method": "linear"}, "do not fit"),
        ({"method": "vqt(length=3)"}, "'vqt'"),
        ({"num_classes": 4, "classes": None}, "do not fit"),
    ],
)
def test_load_with_header_that_contradicts_its_tensors_is_refused(path, changes, part):
    rewrite(path, **changes)
    assert part in refusal(path)


@pytest.mark.parametrize("source", ["hf-hub:someone/model", "local-dir:/somewhere"])
def test_load_with_foreign_backbone_source_is_refused(path, source):
    """What timm would load from such a source could be a pickle."""
    rewrite(path, backbone=source)
    with pytest.raises(TunedFileError, match="not in timm's own list; if you trust that place"):
        load(path)


def test_load_on_another_backbone_is_refused(path):
    other = model_of("vit")
    with torch.no_grad():
        other.blocks[2].mlp.fc2.bias[3] += 1e-3
    assert "was made for vit_base_patch16_224" in refusal(path, other)
    assert "load the same weights" in refusal(path, model_of("vit").half())


def test_load_of_foreign_file_is_refused(tmp_path):
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(3)}, foreign)
    assert "not one of vpt's" in refusal(foreign)
    (tmp_path / "text.txt").write_text("hello, this is text and no safetensors file at all")
    assert "damaged or no safetensors file" in refusal(tmp_path / "text.txt")
    assert "does not exist" in refusal(tmp_path / "absent.safetensors")
    assert "is a folder, not a tuned file" in refusal(tmp_path)


def test_save_of_the_same_model_is_byte_identical(model, path, tmp_path):
    assert save(model, tmp_path / "again.safetensors", scores=SCORES).read_bytes() == path.read_bytes()


def test_load_on_backbone_of_another_image_size_is_refused(tmp_path):
    path = save(attach(resized("swin", 64), "linear", 2), tmp_path / "large.safetensors")
    with pytest.raises(TunedFileError, match=r"images of 64 px, which this swin does not take .*image_size=64"):
        load(path, resized("swin", 32))


def test_load_without_backbone_finds_the_embedded_one(tmp_path):
    backbone = vpt.load_backbone()
    model = attach(backbone, "vpt(length=2)", 3).eval()
    again = load(save(model, tmp_path / "t.safetensors"))
    pixels = torch.randn(2, 3, embedded.IMAGE_SIZE, embedded.IMAGE_SIZE)
    with torch.no_grad():
        assert torch.equal(again(pixels), model(pixels))


def test_inspect_of_scores_returns_plain_values(path):
    assert asdict(inspect(path))["scores"] == SCORES


def test_load_at_another_size_reads_the_weights_once(tmp_path, monkeypatch):
    """Reading them at the usual size first would double the time that a large backbone takes."""
    path = save(attach(vpt.load_backbone(image_size=60), "linear", 2), tmp_path / "t.safetensors")
    usual, read = load_weights, []
    monkeypatch.setattr("vpt.backbones.loading.load_weights", lambda *args: read.append(args) or usual(*args))
    assert load(path).backbone.preprocessing.size == 60
    assert len(read) == 1
