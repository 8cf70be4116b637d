"""Exported graphs answer as the model does, in onnxruntime and as programs of torch.export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from helpers.families import backbone_of, images
from vpt import METHODS, TunedModel, attach, load_backbone
from vpt.errors import SpecError, UnsupportedError
from vpt.model.load import load
from vpt.model.tuned_file import save

DEEP = "vpt(length=3)"
METHOD_SPECS = {
    "vpt": DEEP,
    "sidetune": "sidetune(network=test_convnext)",
    "gated": "gated(length=3)",
    "adaptive": "adaptive(length=2)",
    "cross": "cross(length=3)",
    "prefix": "prefix(length=3)",
}
FAMILIES = [
    "vit-avg", "vit-qknorm", "vit-distilled", "deit3", "clip", "siglip", "naflex", "dinov2-reg", "dinov3", "eva02",
    "beit", "swin",
]  # fmt: skip
CASES = [
    *((METHOD_SPECS.get(name, name), "vit", None) for name in METHODS),
    *((DEEP, family, None) for family in FAMILIES),
    ("vpt(length=3, depth=shallow)", "vit", None),
    ("vpt(length=3, depth=shallow)", "swin", None),
    *(
        (spec, "vit", None)
        for spec in (
            "vpt(length=3, attention=zero_init)",
            "vpt(length=4, rank=2)",
            "vpt(length=4, fourier=0.5)",
            "vpt(length=3, init=tokens)",
            "vpt(length=3, init=vipamin, expansion=0.1)",
            "prefix(length=4, prune=0.5)",
            "cross(length=3, gate=true)",
            "cross(length=3) + bias",
            "adapter(reduction=4, position=post, init=houlsby, scale=channel, drop_path=0.1)",
            "lora(rank=8, rank_dropout=0.2)",
        )
    ),
    ("vpt(length=3) + bias", "vit", None),
    ("linear", "convnext", None),
    ("linear", "resnet", None),
    (DEEP, "vit", "multi_block(blocks=last2, features=cls+mean+std)"),
    (DEEP, "vit", "multi_block(blocks=last2, pooled=true)"),
    (DEEP, "vit", "setr_pup(channels=8)"),
    ("bias", "swin", "fpn(channels=8)"),
]


def trained(method: str, family: str, head: str | None = None) -> TunedModel:
    torch.manual_seed(0)
    model = attach(backbone_of(family), method, 3, classes=("ant", "bee", "cat"), head=head).eval()
    with torch.no_grad():
        for weight in model.trainable_parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    model(images(2)).sum().backward()
    model.before_step(1.0)  # for methods that act during training
    model.zero_grad()
    return model


def run_graph(path: Path, batch: Any) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: np.asarray(batch)})
    return found


@pytest.mark.parametrize(("method", "family", "head"), CASES)
def test_graph_in_onnxruntime_equals_the_model(tmp_path: Path, method: str, family: str, head: str | None) -> None:
    model = trained(method, family, head)
    path = model.export(tmp_path / "model.onnx")
    for batch in (images(1), images(5, seed=2)):
        with torch.no_grad():
            expected = model(batch).numpy()
        scale = max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(run_graph(path, batch), expected, rtol=0, atol=1e-4 * scale)


def test_export_cases_cover_every_method() -> None:
    assert {name for name in METHODS} <= {spec.partition("(")[0] for spec, family, _ in CASES if family == "vit"}


@pytest.mark.parametrize(("method", "family"), [(DEEP, "vit"), ("vpt(length=3, depth=shallow)", "vit"), (DEEP, "swin")])
def test_program_of_torch_equals_the_model(tmp_path: Path, method: str, family: str) -> None:
    model = trained(method, family)
    path = model.export(tmp_path / "model.pt2")
    extra = {"vpt.json": ""}
    program = torch.export.load(path, extra_files=extra).module()
    batch = images(5, seed=2)
    torch.testing.assert_close(program(batch), model(batch), rtol=1e-4, atol=1e-4)
    assert json.loads(extra["vpt.json"])["classes"] == ["ant", "bee", "cat"]


def test_graph_describes_itself(tmp_path: Path) -> None:
    model = trained(DEEP, "vit")
    session = onnxruntime.InferenceSession(model.export(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    found = json.loads(session.get_modelmeta().custom_metadata_map["vpt"])
    assert found["classes"] == ["ant", "bee", "cat"] and found["input"] == "images"
    assert found["preprocessing"] == model.backbone.preprocessing.to_dict() | {
        name: list(getattr(model.backbone.preprocessing, name)) for name in ("mean", "std")
    }
    assert found["label_kind"]["name"] == "single_label" and found["fingerprint"] == model.backbone.fingerprint()


@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_graph_with_preprocessing_reads_pixels_of_any_size(tmp_path: Path, resize: str) -> None:
    from dataclasses import replace

    model = trained(DEEP, "vit")
    preprocessing = replace(model.layout.preprocessing, resize=resize)
    model.layout = replace(model.layout, preprocessing=preprocessing)
    path = model.export(tmp_path / "model.onnx", pixels=True)
    rng = np.random.default_rng(0)
    for height, width in ((48, 80), (33, 20), (200, 100)):
        small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        pixels = np.asarray(image).transpose(2, 0, 1)[None]
        own = preprocessing.normalize(torch.from_numpy(preprocessing.resize_image(image))[None])
        with torch.no_grad():
            expected = model(own).numpy()
        np.testing.assert_allclose(run_graph(path, pixels), expected, rtol=0, atol=0.05 * np.abs(expected).max())


def test_half_graph_is_close_and_half_the_size(tmp_path: Path) -> None:
    model = attach(load_backbone("vit_nano_patch12_48"), DEEP, 3).eval()
    single, half = model.export(tmp_path / "single.onnx"), model.export(tmp_path / "half.onnx", half=True)
    batch = torch.randn(5, 3, 48, 48, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        np.testing.assert_allclose(run_graph(half, batch), model(batch).numpy(), rtol=0, atol=5e-2)
    assert half.stat().st_size < 0.6 * single.stat().st_size
    assert next(model.parameters()).dtype == torch.float32


def test_export_of_a_loaded_file_leaves_the_model_as_it_is(tmp_path: Path) -> None:
    model = trained(DEEP, "vit")
    again = load(save(model, tmp_path / "model.safetensors"), backbone_of("vit"))
    before = again(images()).detach()
    again.export(tmp_path / "model.onnx")
    assert torch.equal(again(images()), before)
    np.testing.assert_allclose(run_graph(tmp_path / "model.onnx", images()), before.numpy(), rtol=0, atol=1e-4)


def test_export_to_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"model\.txt has the suffix '\.txt'; write \.onnx or \.pt2"):
        trained(DEEP, "vit").export(tmp_path / "model.txt")


def test_graph_that_answers_otherwise_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vpt.model import exporting

    original = exporting._trace
    monkeypatch.setattr(exporting, "_trace", lambda network, *rest: original(trained("linear", "vit").plain(), *rest))
    with pytest.raises(UnsupportedError, match="gives other logits, by up to"):
        trained(DEEP, "vit").export(tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
