"""Arrays and tensors that are no images are refused at every entry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vpt
from helpers.families import backbone_of
from vpt.data.images.value_range import parse_value_range
from vpt.errors import DataError

GOOD = np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8)
FOREIGN: dict[str, Any] = {
    "normalized": GOOD / 128.0 - 1,
    "floats to 255": GOOD.astype(np.float32),
    "nan": np.full((48, 48, 3), np.nan),
    "infinite": np.full((48, 48, 3), np.inf),
    "int64": GOOD.astype(np.int64),
    "bool": GOOD > 99,
    "complex": GOOD.astype(np.complex64),
    "text": np.full((48, 48, 3), "a"),
    "objects": np.full((48, 48, 3), None),
    "dates": np.zeros((48, 48, 3), "datetime64[s]"),
    "records": np.zeros((48, 48), [("r", "u1")]),
    "five channels": np.zeros((48, 48, 5), np.uint8),
    "one dimension": np.zeros(48, np.uint8),
    "five dimensions": np.zeros((1, 1, 48, 48, 3), np.uint8),
    "no pixels": np.zeros((0, 48, 3), np.uint8),
    "normalized tensor": torch.randn(3, 48, 48),
    "complex tensor": torch.zeros(3, 48, 48, dtype=torch.complex64),
    "sparse tensor": torch.zeros(3, 48, 48).to_sparse(),
    "tensor without data": torch.zeros(3, 48, 48, device="meta"),
    "number": 3,
}


@pytest.fixture(scope="module")
def model() -> vpt.TunedModel:
    return vpt.attach(vpt.load_backbone(), "linear", 2, classes=("a", "b"))


@pytest.mark.parametrize("name", FOREIGN)
def test_array_that_is_no_image_is_refused_by_every_call(name: str, model: vpt.TunedModel, tmp_path: Path) -> None:
    image, options = FOREIGN[name], {"method": "linear", "epochs": 1, "progress": False}
    calls: dict[str, Any] = {
        "predict": lambda: vpt.predict(model, [GOOD, image]),
        "evaluate": lambda: vpt.evaluate(model, ([GOOD, image], [0, 1])),
        "embed": lambda: vpt.embed(model, [GOOD, image]),
        "explain": lambda: vpt.explain(model, image),
        "tune": lambda: vpt.tune(([GOOD, image] * 5, [0, 1] * 5), tmp_path / "a.safetensors", **options),
    }
    for call in calls.values():
        with pytest.raises(DataError):
            call()


def test_value_range_reads_no_booleans_or_texts() -> None:
    from vpt.data.images.files import UnreadableImageError
    from vpt.data.images.inputs import read_image

    for name in ("text", "objects", "complex", "dates"):
        with pytest.raises(UnreadableImageError, match=r"an array of .*; give uint8 in 0..255 or float in 0..1"):
            read_image(FOREIGN[name], parse_value_range("0,255"))


@pytest.mark.parametrize("head", [None, "linear", "multi_block(blocks=all)"])
@pytest.mark.parametrize("images", [torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.zeros(3, 32, 32)])
def test_forward_of_pixels_that_are_not_normalized_floats_is_refused(head: str | None, images: torch.Tensor) -> None:
    tuned = vpt.attach(backbone_of("vit"), "linear", 2, head=head)
    with pytest.raises(DataError, match=r"images are torch\..*; give normalized floats \(batch, channels, height"):
        tuned(images)
