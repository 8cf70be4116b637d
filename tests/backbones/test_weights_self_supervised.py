"""Layouts of self-supervised backbones: MAE, MoCo v3, DINOv2, DINOv3."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers.published import (
    RESNET,
    WIDTH,
    State,
    add_prefix,
    assert_same,
    fresh,
    mae,
    rename_keys,
    resize_positions,
    trained,
    vit,
    write_and_load,
)

# --- MAE


def mae_decoder() -> State:
    """What the full checkpoint (mae_visualize_vit_base.pth) has besides."""
    return {
        "mask_token": torch.ones(1, 1, 16),
        "decoder_pos_embed": torch.ones(1, 17, 16),
        "decoder_embed.weight": torch.ones(16, WIDTH),
        "decoder_blocks.0.norm1.weight": torch.ones(16),
        "decoder_norm.weight": torch.ones(16),
        "decoder_pred.weight": torch.ones(192, 16),
    }


def test_load_backbone_with_mae_weights_restores_the_model(tmp_path):
    """mae_pretrain_vit_base.pth, read by CLS as in the paper."""
    source = vit("vit_base_patch16_224.mae", make=trained)
    backbone = write_and_load(vit("vit_base_patch16_224.mae"), {"model": mae(source)}, tmp_path / "mae.pth")
    assert_same(backbone, source)
    assert backbone.notes == ()
    module: Any = backbone.module
    assert module.global_pool == "token"


def test_load_backbone_with_mae_decoder_omits_it_with_a_note(tmp_path):
    """mae_visualize_vit_base.pth: the encoder alone is taken, and the rest told."""
    source = vit(make=trained)
    backbone = write_and_load(vit(), {"model": mae_decoder() | mae(source)}, tmp_path / "mae.pth")
    assert_same(backbone, source)
    (note,) = backbone.notes
    assert "5 keys outside the backbone" in note and "decoder_blocks" in note  # timm itself drops mask_token


def test_load_backbone_with_mae_weights_for_mean_pooling_moves_the_norm(tmp_path):
    """Features averaged over the patches, the other way to read MAE: its norm comes after pooling."""
    source = vit(make=trained, global_pool="avg")
    backbone = write_and_load(vit(global_pool="avg"), {"model": mae(source)}, tmp_path / "mae.pth")
    assert_same(backbone, source)
    (note,) = backbone.notes
    assert "its final norm is used as fc_norm, after pooling" in note
    # The other way round: a tuned, averaging model read by CLS.
    back = write_and_load(vit(), {"model": source.state_dict()}, tmp_path / "tuned.pth")
    module: Any = back.module
    assert torch.equal(module.norm.weight, source.fc_norm.weight)
    assert "its final fc_norm is used as norm, before pooling" in back.notes[0]


def test_load_backbone_with_mae_weights_at_another_size_resizes_positions(tmp_path):
    source, model = vit(make=trained), vit(img_size=48)
    write_and_load(model, {"model": mae(source)}, tmp_path / "mae.pth")
    expected = resize_positions(source.pos_embed[:, 1:], 6, mode="bicubic", antialias=True)
    assert torch.equal(model.pos_embed[:, :1], source.pos_embed[:, :1])
    assert torch.allclose(model.pos_embed[:, 1:], expected, atol=1e-5)


# --- MoCo


def moco(source: nn.Module, encoder: str, head: str) -> State:
    """A pretraining checkpoint: the encoder with an MLP for a head, its slow copy with other values, and more."""
    weights = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    other = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    mlp = {f"{head}.0.weight": torch.ones(16, 32), f"{head}.1.running_mean": torch.ones(16)}
    return add_prefix(f"module.{encoder}.", weights | mlp) | add_prefix("module.momentum_encoder.", other | mlp)


def test_load_backbone_with_moco_v3_weights_restores_the_base_encoder(tmp_path):
    """vit-b-300ep.pth.tar: the base encoder, not the momentum encoder; fixed positions are stored as weights."""
    source = vit(make=trained)
    state = {"module.predictor.0.weight": torch.ones(4, 4)} | moco(source, "base_encoder", "head")
    optimizer = {"state": {0: {"step": 3, "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    content = {"epoch": 300, "arch": "vit_base", "state_dict": state, "optimizer": optimizer, "scaler": {"scale": 1.0}}
    backbone = write_and_load(vit(), content, tmp_path / "vit-b-300ep.pth.tar")
    assert_same(backbone, source)
    (note,) = backbone.notes
    assert "parts: predictor, momentum_encoder" in note


def test_load_backbone_with_moco_v3_linear_probe_restores_the_model(tmp_path):
    """linear-vit-b-300ep.pth.tar, the file of the paper: `module.` before every name, a linear head."""
    source = vit(make=trained)
    state = add_prefix(
        "module.", source.state_dict() | {"head.weight": torch.ones(10, WIDTH), "head.bias": torch.ones(10)}
    )
    backbone = write_and_load(
        vit(), {"epoch": 90, "state_dict": state, "best_acc1": torch.tensor(76.5)}, tmp_path / "l.pth.tar"
    )
    assert_same(backbone, source)
    assert backbone.notes == ()


@pytest.mark.parametrize("encoder", ["base_encoder", "encoder_q", "encoder"])
def test_load_backbone_with_moco_resnet_weights_restores_the_model(tmp_path, encoder):
    """r-50-300ep.pth.tar (MoCo v3), moco_v2_800ep_pretrain.pth.tar with its queue, and SimSiam's checkpoint."""
    source = trained("resnet50", **RESNET)
    state = moco(source, encoder, "fc") | {"module.queue": torch.ones(8, 8), "module.queue_ptr": torch.zeros(1)}
    backbone = write_and_load(fresh("resnet50", **RESNET), {"state_dict": state}, tmp_path / "r-50.pth.tar")
    assert_same(backbone, source)
    (note,) = backbone.notes
    assert "momentum_encoder" in note and "queue" in note


# --- DINOv2, DINOv3


def test_load_backbone_with_dinov2_weights_restores_the_model(tmp_path):
    """dinov2_vitb14_pretrain.pth: a bare state dict with a mask token, positions of 518 pixels."""
    source = vit("vit_base_patch14_dinov2", make=trained)
    state = source.state_dict() | {"mask_token": torch.ones(1, WIDTH)}
    backbone = write_and_load(vit("vit_base_patch14_dinov2"), state, tmp_path / "dinov2.pth")
    assert_same(backbone, source)
    assert backbone.notes == ()
    smaller = vit("vit_base_patch14_dinov2", img_size=24)
    write_and_load(smaller, source.state_dict() | {"mask_token": torch.ones(1, WIDTH)}, tmp_path / "dinov2.pth")
    expected = resize_positions(source.pos_embed[:, 1:], 3, mode="bicubic", antialias=True)
    assert torch.allclose(smaller.pos_embed[:, 1:], expected, atol=1e-5)


def test_load_backbone_with_dinov2_register_weights_restores_the_model(tmp_path):
    """dinov2_vitb14_reg4_pretrain.pth: positions include CLS, which timm adds to the token itself."""
    source = vit("vit_base_patch14_reg4_dinov2", make=trained)
    own = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    cls_position = torch.full((1, 1, WIDTH), 0.25)
    cls, patches = own.pop("cls_token"), own.pop("pos_embed")
    own["cls_token"], own["pos_embed"] = cls - cls_position, torch.cat((cls_position, patches), 1)
    own["register_tokens"], own["mask_token"] = own.pop("reg_token"), torch.ones(1, WIDTH)
    backbone = write_and_load(vit("vit_base_patch14_reg4_dinov2"), own, tmp_path / "dinov2.pth")
    module: Any = backbone.module
    assert torch.allclose(module.cls_token, cls, atol=1e-6)
    module.cls_token.data.copy_(cls)  # apart from the rounding of that sum
    assert_same(backbone, source)
    assert backbone.notes == ()


def test_load_backbone_with_dinov2_giant_weights_restores_the_model(tmp_path):
    """dinov2_vitg14_pretrain.pth: the MLP is w12, w3: w3(silu(first half) * second half)."""
    source = vit("vit_giant_patch14_dinov2", make=trained)
    state = rename_keys(source.state_dict(), ("mlp.fc1", "mlp.w12"), ("mlp.fc2", "mlp.w3"))
    model = vit("vit_giant_patch14_dinov2")
    backbone = write_and_load(model, state | {"mask_token": torch.ones(1, WIDTH)}, tmp_path / "dinov2.pth")
    assert_same(backbone, source)
    x = torch.linspace(-1, 1, WIDTH)
    w12, w3 = ([state[f"blocks.1.mlp.{name}.{part}"] for part in ("weight", "bias")] for name in ("w12", "w3"))
    gate, value = F.linear(x, *w12).chunk(2)
    with torch.no_grad():
        assert torch.allclose(model.blocks[1].mlp(x), F.linear(F.silu(gate) * value, *w3), atol=1e-5)


def dinov3(source: Any, biases: bool) -> State:
    """dinov3_vitb16_pretrain_lvd1689m.pth: all biases of q, k, v in one, of which a stored mask hides the keys'."""
    own = source.state_dict()
    state = {}
    for name, tensor in own.items():
        if name.endswith("v_bias"):
            continue
        if name.endswith("q_bias"):
            hidden = torch.full((WIDTH,), 3.0)
            tensor = torch.cat((tensor, hidden, own[name.replace("q_bias", "v_bias")]))
        state[name.replace("q_bias", "qkv.bias")] = tensor.clone()
    for index in range(len(source.blocks)):
        bias = torch.cat((torch.zeros(WIDTH), torch.full((WIDTH,), 3.0), torch.zeros(WIDTH)))
        state.setdefault(f"blocks.{index}.attn.qkv.bias", bias + biases)
        state[f"blocks.{index}.attn.qkv.bias_mask"] = torch.ones(3 * WIDTH)
    state |= {"mask_token": torch.ones(1, WIDTH), "rope_embed.periods": torch.ones(4)}
    return rename_keys(state, ("gamma_1", "ls1.gamma"), ("gamma_2", "ls2.gamma"), ("reg_token", "storage_tokens"))


@pytest.mark.parametrize("name", ["vit_base_patch16_dinov3", "vit_base_patch16_dinov3_qkvb"])
def test_load_backbone_with_dinov3_weights_restores_the_model(tmp_path, capsys, name):
    """dinov3_vitb16_pretrain_lvd1689m.pth: a bare state dict; rotary periods and masks are stored."""
    source = vit(name, make=trained)
    backbone = write_and_load(vit(name), dinov3(source, biases=False), tmp_path / "dinov3.pth")
    assert_same(backbone, source)
    assert backbone.notes == ()
    assert capsys.readouterr().out == ""


def test_load_backbone_with_dinov3_biases_that_do_not_fit_adds_a_note(tmp_path):
    """timm drops the biases where the model of that name has none; that is right only where they are zero."""
    source = vit("vit_base_patch16_dinov3", make=trained)
    (note,) = write_and_load(vit("vit_base_patch16_dinov3"), dinov3(source, biases=True), tmp_path / "dinov3.pth").notes
    assert "3 keys fit nothing in the model; unused: blocks.0.attn.qkv.bias" in note
