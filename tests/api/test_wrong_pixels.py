"""Pixels of a wrong range, type or shape are refused at every entry that takes arrays."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vpt
from vpt import TunedModel
from vpt.data.dataset import Split
from vpt.errors import VptError
from vpt.serving.bank import Bank

PIXELS = np.random.default_rng(0).integers(0, 255, (8, 48, 48, 3), dtype=np.uint8)
LABELS = np.arange(8) % 2
WRONG: dict[str, Any] = {
    "floats to 255": PIXELS.astype(np.float32),
    "normalized": PIXELS.astype(np.float32) / 127.5 - 1,
    "nan": np.full(PIXELS.shape, np.nan, np.float32),
    "int64": PIXELS.astype(np.int64),
    "bool": PIXELS > 9,
    "complex": PIXELS.astype(np.complex64),
    "text": PIXELS.astype(str),
    "two channels": PIXELS[..., :2],
    "no height": PIXELS[:, :0],
    "five dimensions": PIXELS[:, None, None],
}


@pytest.fixture(scope="module")
def model() -> TunedModel:
    return vpt.attach(vpt.load_backbone(), "vpt(length=2)", 2, classes=("dark", "light")).eval()


@pytest.mark.parametrize("name", WRONG)
def test_wrong_pixels_are_refused_at_every_entry(name: str, model: TunedModel, tmp_path: Path) -> None:
    images, options = WRONG[name], {"epochs": 1, "val_fraction": 0, "progress": False}
    file = vpt.save(model, tmp_path / "a.safetensors")
    bank = Bank([file], backbone=model.backbone)
    entries: dict[str, Callable[[], object]] = {
        "predict": lambda: vpt.predict(model, images[0]),
        "predict of several": lambda: vpt.predict(model, list(images)),
        "explain": lambda: vpt.explain(model, images[0]),
        "occlude": lambda: vpt.occlude(model, images[0]),
        "Bank": lambda: bank.predict([bank.make_request("a", images[0])]),
        "Split": lambda: Split(images, LABELS),
        "evaluate": lambda: vpt.evaluate(model, (images, LABELS)),
        "embed": lambda: vpt.embed(model, (images, LABELS)),
        "embed_to_file": lambda: vpt.embed_to_file(model, (images, LABELS), tmp_path / "a.csv"),
        "tune": lambda: vpt.tune(
            {"train": (images, LABELS), "test": (PIXELS, LABELS)},
            tmp_path / "b.safetensors",
            method="linear",
            **options,
        ),
    }
    for entry, call in entries.items():
        try:
            call()
        except VptError as error:
            assert re.search("give|only 48 x 0 px|only 0", str(error)), entry
        else:
            pytest.fail(f"{entry} takes {name}")
    assert not (tmp_path / "b.safetensors").exists()
