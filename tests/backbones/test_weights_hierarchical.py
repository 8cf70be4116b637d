"""Layouts of Swin, ConvNeXt and ResNet."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch

from helpers.published import (
    CONVNEXT,
    RESNET,
    SWIN,
    State,
    add_prefix,
    assert_same,
    fresh,
    trained,
    write_and_load,
)
from vpt import load_backbone
from vpt.errors import BackboneError


def swin(source: Any) -> State:
    """swin_base_patch4_window7_224_22k.pth: patches merge at the end of a stage; buffers are stored."""
    state = {}
    for name, tensor in source.state_dict().items():
        stage = int(name.split(".")[1]) if ".downsample." in name else 0
        state[name.replace(f"layers.{stage}.down", f"layers.{stage - 1}.down")] = tensor.clone()
    for stage in range(3):
        state[f"layers.{stage}.blocks.0.attn.relative_position_index"] = torch.zeros(16, 16, dtype=torch.long)
        state[f"layers.{stage}.blocks.1.attn.relative_position_index"] = torch.zeros(16, 16, dtype=torch.long)
    state["layers.0.blocks.1.attn_mask"] = torch.zeros(4, 16, 16)
    return state | {"head.weight": torch.ones(21_841, 64), "head.bias": torch.ones(21_841)}


def test_load_backbone_with_swin_weights_restores_the_model(tmp_path):
    """swin_base_patch4_window7_224_22k.pth."""
    source = trained("swin_base_patch4_window7_224.ms_in22k", **SWIN)
    model = fresh("swin_base_patch4_window7_224.ms_in22k", **SWIN)
    state = swin(source)
    assert "layers.0.downsample.reduction.weight" in state and "layers.2.downsample.reduction.weight" not in state
    backbone = write_and_load(model, {"model": state}, tmp_path / "swin.pth")
    assert_same(backbone, source)
    assert backbone.notes == ()
    assert torch.equal(model.layers[1].downsample.reduction.weight, state["layers.0.downsample.reduction.weight"])


def test_load_backbone_with_swin_weights_of_another_depth_is_refused(tmp_path):
    """timm's filter looks for the tables of blocks that are not there."""
    state = swin(trained("swin_base_patch4_window7_224", **SWIN))
    model = fresh("swin_base_patch4_window7_224", **{**SWIN, "depths": (2, 2), "num_heads": (2, 2)})
    with pytest.raises(BackboneError, match="does not fit SwinTransformer"):
        write_and_load(model, {"model": state}, tmp_path / "swin.pth")


def convnext(source: Any) -> State:
    """convnext_base_22k_224.pth: Facebook's names."""
    out = {}
    for name, tensor in source.state_dict().items():
        name = name.replace(".blocks.", ".").replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")
        if name.startswith("stem."):
            name = name.replace("stem.", "downsample_layers.0.")
        elif ".downsample." in name:
            _, stage, _, layer, part = name.split(".")
            name = f"downsample_layers.{stage}.{layer}.{part}"
        out[name.replace("head.norm.", "norm.")] = tensor.clone()
    return out | {"head.weight": torch.ones(21_841, 32), "head.bias": torch.ones(21_841)}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_load_backbone_with_convnext_weights_restores_the_model(tmp_path, prefix):
    """convnext_base_22k_224.pth, also as DDP would store it."""
    source = trained("convnext_base.fb_in22k", **CONVNEXT)
    state = convnext(source)
    assert state["downsample_layers.3.1.weight"].shape == (32, 16, 2, 2)
    assert state["stages.2.1.pwconv1.weight"].shape == (64, 16) and state["norm.weight"].shape == (32,)
    model = fresh("convnext_base.fb_in22k", **CONVNEXT)
    backbone = write_and_load(model, {"model": add_prefix(prefix, state)}, tmp_path / "convnext.pth")
    assert_same(backbone, source)
    assert backbone.notes == ()


def test_load_backbone_with_convnext_weights_of_another_depth_is_refused(tmp_path):
    state = convnext(trained("convnext_base", **{**CONVNEXT, "depths": (1, 1, 3, 1)}))
    with pytest.raises(BackboneError, match="does not fit ConvNeXt"):
        write_and_load(fresh("convnext_base", **CONVNEXT), {"model": state}, tmp_path / "convnext.pth")


@pytest.mark.parametrize("first", [True, False])
def test_load_backbone_with_resnet_weights_restores_the_model(tmp_path, first):
    """resnet50-0676ba61.pth, and resnet50-19c8e357.pth: the first in the old format, before BatchNorm had counters."""
    source = trained("resnet50.tv_in1k", **RESNET)
    state = source.state_dict() | {"fc.weight": torch.ones(10, 128), "fc.bias": torch.ones(10)}
    if first:
        state = {name: tensor for name, tensor in state.items() if "num_batches" not in name}
    path = tmp_path / "resnet50.pth"
    torch.save(OrderedDict(state), path, _use_new_zipfile_serialization=not first)
    backbone = load_backbone(fresh("resnet50.tv_in1k", **RESNET), weights=path)
    assert_same(backbone, source)
    assert backbone.notes == ()
