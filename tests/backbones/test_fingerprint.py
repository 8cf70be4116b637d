"""The fingerprint of a backbone: the weights of a name, whatever the file, the image size and the dtype."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

import vpt
from helpers.families import model_of, randomize
from helpers.google_weights import google
from vpt import load_backbone
from vpt.errors import TunedFileError

NAME = "test_vit"  # the smallest ViT that timm knows by name
EMBEDDED = "sha256:3714eddb58a94735269c2f6fc646fc0869b2ef887f905f93b520aff3df5402cf"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same weights as safetensors, as .pth with a head and a prefix, in half the precision they need, and .npz."""
    folder = tmp_path_factory.mktemp("weights")
    model = timm.create_model(NAME, num_classes=10)
    randomize(model)
    state = {name: tensor.bfloat16().float() for name, tensor in model.state_dict().items()}
    model.load_state_dict(state)
    save_file(state, folder / "w.safetensors")
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, folder / "w.pth")
    save_file({name: tensor.bfloat16() for name, tensor in state.items()}, folder / "half.safetensors")
    np.savez(folder / "w.npz", **google(model))
    return sorted(folder.iterdir())


def test_fingerprint_depends_on_neither_file_nor_size_nor_dtype(files: list[Path]) -> None:
    found = {
        load_backbone(NAME, weights=file, image_size=size, dtype=dtype).fingerprint()
        for file in files
        for size in (None, 64, 192)
        for dtype in (torch.float32, torch.bfloat16)
    }
    assert len(files) == 4 and len(found) == 1
    own = load_backbone(NAME, weights=files[0])
    assert found == {own.fingerprint()} == {load_backbone(own.module).fingerprint()}
    resized = load_backbone(NAME, weights=files[0], image_size=64)
    assert resized.weights_digest() != own.weights_digest() == own.fingerprint()


def test_fingerprint_of_a_resized_model_at_hand_is_its_own(files: list[Path]) -> None:
    resized = load_backbone(NAME, weights=files[0], image_size=64)
    at_hand = load_backbone(resized.module)
    assert at_hand.fingerprint() == resized.weights_digest() != resized.fingerprint()


def test_fingerprint_of_the_embedded_backbone_is_the_same_at_every_size() -> None:
    assert {load_backbone(image_size=size).fingerprint() for size in (None, 36, 48, 96)} == {EMBEDDED}


@pytest.mark.parametrize("size", [None, 64])
def test_load_with_one_other_bit_of_the_weights_is_refused(files: list[Path], tmp_path: Path, size: int | None) -> None:
    backbone = load_backbone(NAME, weights=files[0], image_size=size)
    path = vpt.save(vpt.attach(backbone, "linear", 2), tmp_path / "a.safetensors")
    state = load_backbone(NAME, weights=files[0]).module.state_dict()
    vpt.load(path, load_backbone(NAME, weights=files[1], image_size=size))
    for name in ("pos_embed", "blocks.0.norm1.bias", "norm.weight"):
        changed = {key: tensor.clone() for key, tensor in state.items()}
        changed[name].view(torch.uint8).flatten()[0] ^= 1
        save_file(changed, tmp_path / "other.safetensors")
        other = load_backbone(NAME, weights=tmp_path / "other.safetensors", image_size=size)
        with pytest.raises(TunedFileError, match="load the same weights"):
            vpt.load(path, other)


def test_load_at_another_image_size_than_the_file_is_refused(tmp_path: Path) -> None:
    path = vpt.save(vpt.attach(load_backbone(image_size=60), "linear", 2), tmp_path / "a.safetensors")
    with pytest.raises(TunedFileError, match=r"images of 60 px, which this .* load the backbone with image_size=60"):
        vpt.load(path, load_backbone())


def test_load_of_a_file_on_the_backbone_in_bf16_gives_close_logits(tmp_path: Path) -> None:
    model = vpt.attach(load_backbone(), "vpt(length=2)", 2).eval()
    path = vpt.save(model, tmp_path / "a.safetensors")
    again = vpt.load(path, load_backbone(dtype=torch.bfloat16))
    pixels = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(again(pixels), model(pixels), rtol=0.1, atol=0.1)


def test_save_of_trained_bf16_weights_writes_fp32(tmp_path: Path) -> None:
    model = vpt.attach(load_backbone(dtype=torch.bfloat16), "bias", 2).eval()
    path = vpt.save(model, tmp_path / "a.safetensors")
    again = vpt.load(path, load_backbone(dtype=torch.bfloat16)).trainable_state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in model.trainable_state_dict().items())


def test_fingerprint_of_a_model_in_half_precision_at_hand_differs() -> None:
    assert load_backbone(model_of("vit").half()).fingerprint() != load_backbone(model_of("vit")).fingerprint()
