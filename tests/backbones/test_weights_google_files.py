"""ViT-B/16, L/16 and H/14 on ImageNet-21k, in Google's .npz, and patches of another size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from helpers.google_weights import google
from helpers.published import (
    PAPER,
    assert_same,
    fresh,
    resize_positions,
    trained,
    vit,
)
from vpt import load_backbone
from vpt.errors import BackboneError


@pytest.mark.parametrize(("name", "options"), PAPER)
def test_load_backbone_with_imagenet21k_npz_restores_the_model(tmp_path, name, options):
    """imagenet21k/ViT-B_16.npz, ViT-L_16.npz, ViT-H_14.npz: all blocks and heads; pre_logits, a head of 21,843."""
    source, path = trained(name, **options), tmp_path / "ViT.npz"
    weights = google(source)
    weights["head/kernel"] = np.ones((options["embed_dim"], 21_843), np.float32)
    weights["head/bias"] = np.ones(21_843, np.float32)
    np.savez(path, **weights)
    backbone = load_backbone(fresh(name, **options), weights=path)
    assert_same(backbone, source)
    assert backbone.notes == ()


def test_load_backbone_with_finetuned_npz_resizes_positions(tmp_path):
    """imagenet21k+imagenet2012/ViT-B_16.npz: no pre_logits, 1,000 classes, positions of 384 pixels."""
    source, path = vit(make=trained, img_size=48), tmp_path / "ViT.npz"
    np.savez(path, **{name: array for name, array in google(source).items() if "pre_logits" not in name})
    model = vit()
    assert load_backbone(model, weights=path).notes == ()
    assert torch.equal(model.pos_embed[:, :1], source.pos_embed[:, :1])
    assert torch.allclose(
        model.pos_embed[:, 1:], resize_positions(source.pos_embed[:, 1:], 4, mode="bilinear"), atol=1e-6
    )
    assert torch.equal(model.blocks[2].mlp.fc2.weight, source.blocks[2].mlp.fc2.weight)


def test_load_backbone_by_name_with_npz_at_another_size_resizes_positions(tmp_path):
    """The whole way by name: 160 pixels in the file, 64 asked for."""
    source, path = trained("test_vit"), tmp_path / "ViT.npz"
    np.savez(path, **google(source))
    backbone = load_backbone("test_vit", weights=path, image_size=64)
    module: Any = backbone.module
    assert backbone.preprocessing.size == 64
    assert torch.allclose(
        module.pos_embed[:, 1:], resize_positions(source.pos_embed[:, 1:], 4, mode="bilinear"), atol=1e-6
    )
    assert_same(load_backbone("test_vit", weights=path), source)


def test_load_backbone_with_npz_that_lacks_weights_is_refused(tmp_path):
    """A model with weights that the layout does not know, here a norm after pooling and layer scales, is refused."""
    path = tmp_path / "ViT.npz"
    np.savez(path, **google(vit(make=trained)))
    with pytest.raises(BackboneError, match=r"missing in the file: fc_norm\.weight, fc_norm\.bias"):
        load_backbone(vit(global_pool="avg"), weights=path)
    with pytest.raises(BackboneError, match=r"missing in the file: blocks\.0\.ls1\.gamma"):
        load_backbone(vit(init_values=0.1), weights=path)


@pytest.mark.parametrize("suffix", [".npz", ".pth"])
def test_load_backbone_with_another_patch_size_adds_a_note(tmp_path, suffix):
    """ViT-B_32.npz under the name of a B/16: timm resamples, which is seldom what was meant."""
    source, path = vit(make=trained, patch_size=16), tmp_path / f"ViT{suffix}"
    np.savez(path, **google(source)) if suffix == ".npz" else torch.save(source.state_dict(), path)
    (note,) = load_backbone(vit(), weights=path).notes
    assert "patches of 16x16 px were resampled to 8x8; is the backbone's name" in note
