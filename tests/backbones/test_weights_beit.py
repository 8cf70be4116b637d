"""Layouts of BEiT and DeiT-3."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from helpers.published import (
    WIDTH,
    State,
    assert_same,
    mae,
    rename_keys,
    resize_positions,
    trained,
    vit,
    write_and_load,
)
from vpt import load_backbone
from vpt.errors import BackboneError


def beit(source: Any) -> State:
    """beit_base_patch16_224_pt22k_ft22k.pth: a table and its index in every block, `fc_norm`, 21,841 classes."""
    index = {f"blocks.{n}.attn.relative_position_index": torch.zeros(17, 17) for n in range(3)}
    return {**source.state_dict(), **index, "head.weight": torch.ones(21_841, WIDTH), "head.bias": torch.ones(21_841)}


def test_load_backbone_with_finetuned_beit_weights_restores_the_model(tmp_path):
    """beit_base_patch16_224_pt22k_ft22k.pth."""
    source = vit("beit_base_patch16_224", make=trained)
    backbone = write_and_load(vit("beit_base_patch16_224"), {"model": beit(source)}, tmp_path / "beit.pth")
    assert_same(backbone, source)
    assert backbone.notes == ()


@pytest.mark.parametrize("pool", ["avg", "token"])
def test_load_backbone_with_pretrained_beit_weights_restores_the_model(tmp_path, pool):
    """beit_base_patch16_224_pt22k.pth: one table for all blocks, mask token, lm_head, a norm that saw no pooling."""
    source = vit("beit_base_patch16_224", make=trained, global_pool=pool)
    table = source.blocks[0].attn.relative_position_bias_table.detach().clone()
    for block in source.blocks:
        block.attn.relative_position_bias_table.data.copy_(table)
    state = {name: tensor for name, tensor in mae(source).items() if "relative_position" not in name}
    state |= {
        "rel_pos_bias.relative_position_bias_table": table,
        "rel_pos_bias.relative_position_index": torch.zeros(17, 17),
        "mask_token": torch.ones(1, 1, WIDTH),
        "lm_head.weight": torch.ones(8192, WIDTH),
        "lm_head.bias": torch.ones(8192),
    }
    path = tmp_path / "beit.pth"
    backbone = write_and_load(vit("beit_base_patch16_224", global_pool=pool), {"model": state}, path)
    assert_same(backbone, source)
    assert "3 keys outside the backbone" in backbone.notes[-1] and "lm_head" in backbone.notes[-1]
    assert len(backbone.notes) == (2 if pool == "avg" else 1)
    shared = vit("beit_base_patch16_224", use_rel_pos_bias=False, use_shared_rel_pos_bias=True)
    load_backbone(shared, weights=path)
    assert torch.equal(shared.rel_pos_bias.relative_position_bias_table, table)
    larger = vit("beit_base_patch16_224", img_size=48)
    load_backbone(larger, weights=path)
    tables = [block.attn.relative_position_bias_table for block in larger.blocks]
    assert tables[0].shape == (11 * 11 + 3, 2)
    assert all(torch.equal(tables[0], other) for other in tables)
    assert torch.equal(tables[0][-3:], table[-3:])  # CLS to patches, back, and to itself: no distance to resize
    middle, whole = tables[0][60], torch.cat((tables[0][:1], tables[0][120:121]))
    assert torch.allclose(middle, table[24], atol=1e-5)  # a patch to itself
    assert torch.allclose(whole, torch.cat((table[:1], table[48:49])), atol=1e-5)  # from corner to corner, and back
    with pytest.raises(BackboneError, match="missing in the file: pos_embed"):
        load_backbone(vit(), weights=path)


def test_load_backbone_with_deit3_weights_restores_the_model(tmp_path):
    """deit_3_base_224_21k.pth: key `model`, layer scales as gamma_1 and gamma_2, CLS has no position."""
    source = vit("deit3_base_patch16_224.fb_in22k_ft_in1k", make=trained)
    state = rename_keys(source.state_dict(), ("ls1.gamma", "gamma_1"), ("ls2.gamma", "gamma_2"))
    assert state["pos_embed"].shape == (1, 16, WIDTH) and "blocks.0.gamma_1" in state
    state |= {"head.weight": torch.ones(21_841, WIDTH), "head.bias": torch.ones(21_841)}
    name = "deit3_base_patch16_224.fb_in22k_ft_in1k"
    backbone = write_and_load(vit(name), {"model": state}, tmp_path / "deit3.pth")
    assert_same(backbone, source)
    assert backbone.notes == ()
    larger = vit(name, img_size=48)
    write_and_load(larger, {"model": state}, tmp_path / "deit3.pth")
    expected = resize_positions(source.pos_embed, 6, mode="bicubic", antialias=True)
    assert torch.allclose(larger.pos_embed, expected, atol=1e-5)
