"""The header of a tuned file: its schema, its checksum, and what of it is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save, save_file

import vpt
from helpers.families import backbone_of, images
from vpt.data.preprocessing import Preprocessing
from vpt.errors import SpecError, TrainingError, TunedFileError
from vpt.model.header import Header, inspect, seal

NAMES = ("cat", "dog", "犬")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = vpt.attach(backbone_of("vit"), "vpt(length=3)", 3, classes=NAMES)
    return vpt.save(model, tmp_path_factory.mktemp("original") / "a.safetensors", scores={"top1": 0.5})


@pytest.fixture
def path(original: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "a.safetensors"
    copy.write_bytes(original.read_bytes())
    return copy


def forge(path: Path, tensors: dict[str, torch.Tensor] | None = None, **changes: Any) -> str:
    """Write another header and other tensors with a checksum that fits them; return the message of `load`."""
    values = {**json.loads(inspect(path).to_json()), **changes, "checksum": 64 * "0"}
    path.write_bytes(seal(save(tensors or load_file(path), {"vpt": json.dumps(values)})))
    with pytest.raises(TunedFileError) as caught:
        vpt.load(path, backbone_of("vit"))
    assert str(path) in str(caught.value) and len(str(caught.value)) < 1000
    return str(caught.value)


def test_every_changed_bit_of_the_header_is_refused(path: Path) -> None:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    blanks = len(content[8 : 8 + length]) - len(content[8 : 8 + length].rstrip())  # safetensors aligns with spaces
    bits = np.random.default_rng(0).permutation(8 * (8 + length - blanks))
    backbone = backbone_of("vit")
    for bit in bits[:1500]:
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(damaged)
        with pytest.raises(TunedFileError):
            vpt.load(path, backbone)


def test_load_with_swapped_class_names_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'\\"cat\\",\\"dog\\"', b'\\"dog\\",\\"cat\\"'))
    assert inspect(path).classes == ("dog", "cat", "犬")
    with pytest.raises(TunedFileError, match="its checksum differs"):
        vpt.load(path, backbone_of("vit"))


def test_load_compares_shapes_before_it_allocates(path: Path) -> None:
    assert "head.bias (3,) for (1000000000,)" in forge(path, num_classes=10**9, classes=None)
    assert "for (1000000, 32)" in forge(path, num_classes=3, method="vpt(length=1000000)")
    assert "at most 1,000,000" in forge(path, num_classes=3, method="vpt(length=1000001)")
    assert "at most 1000" in forge(path, num_classes=3, method="mlp(layers=1000000)")
    assert "at most 8,192" in forge(path, preprocessing={"size": 10**6}, method="vpt(length=3)")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": True, "classes": None}, "num_classes: Input should be a valid integer"),
        ({"num_classes": 2}, "it has 3 names for 2 classes"),
        ({"classes": ["cat", "dog", 3]}, "classes.2: Input should be a valid string"),
        ({"classes": ["cat", "dog", "x" * 1001]}, "at most 1000 characters"),
        ({"method": "vpt(" + " " * 10_000 + ")"}, "at most 10000 characters"),
        ({"fingerprint": "sha256:0"}, "fingerprint: String should match pattern"),
        ({"save_dtype": "int4"}, "save_dtype: Input should be 'fp32' or 'fp16'"),
        ({"save_dtype": "fp16"}, "fp16 in its header, but prompts.0.tokens is torch.float32"),
        ({"label_kind": {"name": "regression", "mean": "a"}}, "regression.mean is 'a'"),
        ({"label_kind": {"name": "multi_label", "thresholds": [float("nan")] * 3}}, "finite number"),
        ({"label_kind": {"name": "multi_label", "thresholds": [0.5] * 2}}, "it has 2 thresholds for 3 classes"),
        ({"preprocessing": {"size": 32, "mean": [float("inf")] * 3}}, "preprocessing.mean.0: Input should be a finite"),
        ({"preprocessing": {"size": 32, "std": [0.0] * 3}}, "one std above 0"),
        ({"versions": {"vpt": 3}}, "versions.vpt: Input should be a valid string"),
        ({"surprise": 1}, "surprise: Unexpected keyword argument"),
        ({"format": 3, "versions": {"vpt": "9.1"}}, "format version 3, .* reads versions 1 and 2; .*: 9.1"),
        ({"method": "vpt(length=4)"}, "do not fit"),
    ],
)
def test_load_with_a_header_outside_the_schema_is_refused(path: Path, changes: dict[str, Any], message: str) -> None:
    assert re.search(message if ".*" in message else re.escape(message), forge(path, **changes))


def test_load_with_a_deeply_nested_header_is_refused(path: Path) -> None:
    text = inspect(path).to_json().replace('"top1":0.5', '"top1":' + 100_000 * "[" + 100_000 * "]")
    save_file(load_file(path), path, {"vpt": text})
    with pytest.raises(TunedFileError, match=r"damaged header .*recursion"):
        vpt.load(path, backbone_of("vit"))


def test_load_with_a_header_of_many_megabytes_is_refused(path: Path) -> None:
    save_file(load_file(path), path, {"vpt": inspect(path).to_json() + " " * 2**24})
    with pytest.raises(TunedFileError, match="more than 16,777,216"):
        inspect(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_file_with_a_value_that_is_no_number_is_neither_written_nor_read(path: Path, value: float) -> None:
    tensors = load_file(path)
    tensors["head.weight"][1, 2] = value
    assert "holds NaN or infinity in head.weight" in forge(path, tensors)
    model = vpt.attach(backbone_of("vit"), "linear", 2)
    with torch.no_grad():
        model.head.weight[0, 0] = value
    with pytest.raises(TrainingError, match=r"is not written: head.weight hold NaN or infinity as fp32"):
        vpt.save(model, path)


def test_save_in_fp16_of_a_larger_value_is_refused(tmp_path: Path) -> None:
    model = vpt.attach(backbone_of("vit"), "linear", 2)
    with torch.no_grad():
        model.head.bias[0] = 1e6
    with pytest.raises(TrainingError, match=r"head.bias hold NaN or infinity as fp16; .* or save as fp32"):
        vpt.save(model, tmp_path / "a.safetensors", save_dtype="fp16")


def test_message_about_a_hostile_header_is_short_and_shows_escapes(path: Path) -> None:
    message = forge(path, method=f"\x1b[2J\x07{'x' * 9000}")
    assert "\x1b" not in message and "\x07" not in message and r"\x1b[2J\x07" in message
    assert message.endswith("vpt(length=10)")


def test_attach_with_a_class_name_that_no_file_holds_is_refused() -> None:
    for classes in (["a", "b" * 1001], ["a", 3]):
        with pytest.raises(SpecError, match="give a text of at most 1,000 characters"):
            vpt.attach(backbone_of("vit"), "linear", 2, classes=classes)  # type: ignore[list-item]


def test_save_with_protocol_and_license_records_them(tmp_path: Path) -> None:
    model = vpt.attach(backbone_of("vit"), "linear", 2)
    header = inspect(vpt.save(model, tmp_path / "a.safetensors", protocol="vtab-1k", license="CC-BY-4.0"))
    assert (header.protocol, header.license, header.format) == ("vtab-1k", "CC-BY-4.0", 2)
    with pytest.raises(SpecError, match="license: String should have at most 1000 characters"):
        vpt.save(model, tmp_path / "b.safetensors", license="x" * 1001)
    assert not (tmp_path / "b.safetensors").exists()


def test_header_of_a_multi_block_head_keeps_its_text(tmp_path: Path) -> None:
    model = vpt.attach(backbone_of("vit"), "linear", 2, head="multi_block(blocks=all, features=cls)").eval()
    path = vpt.save(model, tmp_path / "a.safetensors")
    assert inspect(path).head == 'multi_block(blocks="all", features="cls")'
    with torch.no_grad():
        assert torch.equal(vpt.load(path, backbone_of("vit"))(images()), model(images()))


def test_header_round_trip_through_json_is_exact(path: Path) -> None:
    header = inspect(path)
    assert Header.from_json(header.to_json(), path) == header
    assert json.loads(header.to_json()).keys() >= {"label_kind", "head", "license", "protocol", "format"}


def test_inspect_imports_no_torch(path: Path) -> None:
    code = f"import sys, vpt; print(vpt.inspect({str(path)!r}).num_classes); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout == "3\n"


def test_page_of_the_format_names_every_key() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "tuned-file-format.md"
    text = page.read_text(encoding="utf-8")
    keys = {field.name for field in fields(Header)} | {field.name for field in fields(Preprocessing)}
    assert not [key for key in keys if f"`{key}`" not in text]


def test_message_of_any_error_is_cut_and_escaped() -> None:
    text = str(SpecError(f"{'x' * 10_000}\x1b]0;title\x07 is wrong; write y"))
    assert len(text) < 1000 and text.endswith(r"\x1b]0;title\x07 is wrong; write y") and " ... " in text
    lines = str(SpecError("\n".join(["line"] * 1000))).split("\n")
    assert len(lines) == 61 and lines[-1] == "..."
