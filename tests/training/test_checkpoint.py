"""Checkpoints have a checksum, and those of earlier versions are read without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

import vpt
from vpt.errors import TunedFileError
from vpt.training.checkpoint import load_checkpoint, save_checkpoint

PROGRESS: dict[str, Any] = {"config": {"seed": 0}, "crop_version": 2, "history": [{"epoch": 1, "loss": float("nan")}]}


@pytest.fixture
def model() -> vpt.TunedModel:
    return vpt.attach(vpt.load_backbone(), "linear", 2)


@pytest.fixture
def optimizer(model: vpt.TunedModel) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.trainable_parameters(), lr=0.1)


@pytest.fixture
def file(model: vpt.TunedModel, optimizer: torch.optim.Optimizer, tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "a.safetensors", model, optimizer, PROGRESS)
    return tmp_path / "a.safetensors"


def test_checkpoint_with_a_flipped_bit_is_refused(model, optimizer, file: Path) -> None:
    whole = file.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    for position in (whole.index(b"seed") + 8, start, start + 101, len(whole) - 1):
        changed = bytearray(whole)
        changed[position] ^= 1
        file.write_bytes(changed)
        with pytest.raises(TunedFileError, match=r"a\.safetensors is damaged .*; delete it to begin anew"):
            load_checkpoint(file, model, optimizer)


def test_checkpoint_of_earlier_versions_is_read(model, optimizer, file: Path) -> None:
    new = load_checkpoint(file, model, optimizer)[0]
    file.write_bytes(save(load(file.read_bytes()), {"progress": json.dumps(PROGRESS)}))
    old = load_checkpoint(file, model, optimizer)[0]
    assert str(old) == str(new) == str(PROGRESS)
