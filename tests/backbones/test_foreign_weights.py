"""Weights files that are something else, and names with the prefixes of other programs."""

from __future__ import annotations

import pickle

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from vpt.backbones.loading import load_backbone
from vpt.core.foreign_files import describe_foreign_file
from vpt.data.images.files import UnreadableImageError, open_rgb
from vpt.errors import BackboneError

CONTENTS = {
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "a web page": b"\n<!DOCTYPE html><html><body>Sign in</body></html>",
    "a web page instead": b"<HTML><head><title>404</title></head>",
    "a gzip archive": b"\x1f\x8b\x08\x00" + bytes(20),
    "a RAR archive": b"Rar!\x1a\x07" + bytes(20),
    "a pointer of git-annex": b"/annex/objects/SHA256E-s1--0.pth\n",
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin"])
@pytest.mark.parametrize("kind", CONTENTS)
def test_load_backbone_of_another_kind_of_file_names_it(tmp_path, kind, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(CONTENTS[kind])
    with pytest.raises(BackboneError, match=kind) as caught:
        load_backbone("resnet10t", weights=path)
    assert "weights_only" not in str(caught.value) and "trust" not in str(caught.value)


@pytest.mark.parametrize("kind", CONTENTS)
def test_open_rgb_of_another_kind_of_file_names_it(tmp_path, kind):
    (tmp_path / "photo.jpg").write_bytes(CONTENTS[kind])
    with pytest.raises(UnreadableImageError, match=f"not an image but {kind}"):
        open_rgb(tmp_path / "photo.jpg")


def test_describe_foreign_file_of_weights_and_images_is_none(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    assert describe_foreign_file((tmp_path / "a.png").read_bytes()) is None
    assert describe_foreign_file(pickle.dumps({"a": 1})) is None and describe_foreign_file(b"") is None


def test_load_backbone_of_pickled_objects_gives_no_unsafe_advice(tmp_path):
    torch.save({"weights": Image.Image}, tmp_path / "a.pth")
    with pytest.raises(BackboneError, match="could run code") as caught:
        load_backbone("resnet10t", weights=tmp_path / "a.pth")
    assert "weights_only=False" not in str(caught.value) and ".safetensors" in str(caught.value)


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_load_backbone_of_weights_for_other_channels_names_the_way(tmp_path, channels):
    model = timm.create_model("resnet10t", in_chans=channels, num_classes=0)
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(BackboneError, match=f"reads {channels} channels; give .* made with in_chans={channels}"):
        load_backbone("resnet10t", weights=tmp_path / "a.safetensors")
    assert load_backbone(model).preprocessing.channels == channels


@pytest.mark.parametrize(
    "prefix",
    ["module.", "backbone.", "model.", "encoder.", "module.model.backbone.", "net.", "_orig_mod.", "student.trunk.0."],
)
def test_load_backbone_of_names_with_a_foreign_prefix_strips_it(tmp_path, prefix):
    state = timm.create_model("resnet10t", num_classes=0).state_dict()
    other = {"head.weight": torch.zeros(3), "projector.0.weight": torch.zeros(3)}
    save_file({**{prefix + key: value for key, value in state.items()}, **other}, tmp_path / "a.safetensors")
    backbone = load_backbone("resnet10t", weights=tmp_path / "a.safetensors")
    assert all(torch.equal(value, state[key]) for key, value in backbone.module.state_dict().items())
