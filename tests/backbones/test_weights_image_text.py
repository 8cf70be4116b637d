"""Layouts of backbones trained on images and text: CLIP and SigLIP; and of EVA-02."""

from __future__ import annotations

import zipfile
from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from helpers.families import SIZE, randomize
from helpers.google_weights import google
from helpers.published import (
    WIDTH,
    State,
    add_prefix,
    assert_same,
    rename_keys,
    trained,
    vit,
    write_and_load,
)
from vpt import load_backbone
from vpt.errors import BackboneError


class ClipBlock(nn.Module):
    """CLIP's block as published: torch's own attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(c_fc=nn.Linear(width, 4 * width), gelu=nn.GELU(), c_proj=nn.Linear(4 * width, width))
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out


class ClipTower(nn.Module):
    """CLIP's image tower under its published names, computed by torch alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTH, 8, stride=8, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(WIDTH))
        self.positional_embedding = nn.Parameter(torch.zeros(17, WIDTH))
        self.ln_pre, self.ln_post = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.Sequential(*(ClipBlock(WIDTH, 2) for _ in range(3)))
        self.proj = nn.Parameter(torch.zeros(WIDTH, 16))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        patches = self.conv1(images).flatten(2).transpose(1, 2)
        x = torch.cat((self.class_embedding.expand(len(images), 1, -1), patches), 1) + self.positional_embedding
        x = self.transformer.resblocks(self.ln_pre(x))
        out: Tensor = self.ln_post(x[:, 0])
        return out


def clip_text() -> State:
    """The rest of a CLIP model."""
    return {
        "positional_embedding": torch.ones(77, 8),
        "text_projection": torch.ones(8, 16),
        "logit_scale": torch.ones(()),
        "transformer.resblocks.0.ln_1.weight": torch.ones(8),
        "token_embedding.weight": torch.ones(9, 8),
        "ln_final.weight": torch.ones(8),
    }


@pytest.mark.parametrize("prefix", ["", "module."])
def test_load_backbone_with_clip_weights_equals_the_clip_tower(tmp_path, prefix):
    """OpenAI's ViT-B-16 and open_clip_pytorch_model.bin (bare), and open_clip's own checkpoints (DDP, nested)."""
    tower = ClipTower()
    randomize(tower)
    state = add_prefix(prefix, add_prefix("visual.", tower.state_dict()) | clip_text())
    model = vit("vit_base_patch16_clip_224")
    backbone = write_and_load(model, {"epoch": 32, "state_dict": state} if prefix else state, tmp_path / "clip.bin")
    images = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(model.eval()(images), tower(images), atol=1e-5)
    (note,) = backbone.notes
    assert "6 keys outside the backbone" in note and "token_embedding" in note


def test_load_backbone_with_half_precision_clip_weights_keeps_float32(tmp_path):
    """open_clip_model.safetensors of OpenAI's weights, which are half precision: the model stays what it is."""
    tower, path = ClipTower(), tmp_path / "open_clip_model.safetensors"
    randomize(tower)
    save_file(add_prefix("visual.", {name: tensor.half() for name, tensor in tower.state_dict().items()}), path)
    model = vit("vit_base_patch16_clip_224")
    load_backbone(model, weights=path)
    assert torch.equal(model.pos_embed[0], tower.positional_embedding.half().float())


def test_load_backbone_with_torchscript_archive_is_refused(tmp_path):
    """ViT-B-16.pt is a TorchScript archive: a program, so it is not run."""
    path = tmp_path / "ViT-B-16.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ViT-B-16/constants.pkl", b"")
        archive.writestr("ViT-B-16/code/__torch__.py", b"")
    with pytest.raises(BackboneError, match=r"a program besides its weights.*\.safetensors file"):
        load_backbone(vit("vit_base_patch16_clip_224"), weights=path)


def test_load_backbone_with_open_clip_siglip_weights_restores_the_model(tmp_path):
    """open_clip_pytorch_model.bin of timm/ViT-B-16-SigLIP: a timm tower; map pooling is part of it."""
    source = vit("vit_base_patch16_siglip_224", make=trained)
    text = {"text.transformer.resblocks.0.ln_1.weight": torch.ones(8), "logit_bias": torch.ones(())}
    state = add_prefix("visual.trunk.", source.state_dict()) | text | {"logit_scale": torch.ones(())}
    backbone = write_and_load(vit("vit_base_patch16_siglip_224"), state, tmp_path / "siglip.bin")
    assert_same(backbone, source)
    (note,) = backbone.notes
    assert "3 keys outside the backbone were left out; parts: text, logit_bias, logit_scale" in note


def big_vision(source: Any, stacked: bool) -> dict[str, np.ndarray]:
    """webli_en_b16_224_63724782.npz (SigLIP); stacked: siglip2_b16_224.npz, which has all blocks in one array."""
    heads = source.blocks[0].attn.num_heads
    own = {part: getattr(source, part) for part in ("blocks", "embed_dim", "norm", "patch_embed", "pos_embed")}
    out: dict[str, np.ndarray] = {}
    for name, array in google(SimpleNamespace(**own, cls_token=torch.zeros(1))).items():
        if name in ("cls", "pre_logits/kernel", "pre_logits/bias", "head/kernel", "head/bias"):
            continue
        for old, new in (
            ("Transformer/posembed_input/pos_embedding", "pos_embedding"),
            ("MultiHeadDotProductAttention_1", "MultiHeadDotProductAttention_0"),
            ("MlpBlock_3", "MlpBlock_0"),
            ("LayerNorm_2", "LayerNorm_1"),
        ):
            name = name.replace(old, new)
        out[name] = array
    if stacked:
        for name in [name for name in out if "encoderblock_0/" in name]:
            names = [name.replace("encoderblock_0/", f"encoderblock_{index}/") for index in range(len(source.blocks))]
            out[name.replace("encoderblock_0/", "encoderblock/")] = np.stack([out.pop(name) for name in names])
    pool = source.attn_pool
    key, value = zip(pool.kv.weight.chunk(2), pool.kv.bias.chunk(2), strict=True)
    parts = {"query": (pool.q.weight, pool.q.bias), "key": key, "value": value}
    tensors = {"probe": pool.latent, "LayerNorm_0/scale": pool.norm.weight, "LayerNorm_0/bias": pool.norm.bias}
    for part, (weight, bias) in parts.items():
        tensors[f"MultiHeadDotProductAttention_0/{part}/kernel"] = weight.T.reshape(WIDTH, heads, -1)
        tensors[f"MultiHeadDotProductAttention_0/{part}/bias"] = bias.reshape(heads, -1)
    tensors["MultiHeadDotProductAttention_0/out/kernel"] = pool.proj.weight.T.reshape(heads, -1, WIDTH)
    tensors["MultiHeadDotProductAttention_0/out/bias"] = pool.proj.bias
    for dense, layer in (("Dense_0", pool.mlp.fc1), ("Dense_1", pool.mlp.fc2)):
        tensors[f"MlpBlock_0/{dense}/kernel"], tensors[f"MlpBlock_0/{dense}/bias"] = layer.weight.T, layer.bias
    out |= {f"MAPHead_0/{name}": tensor.detach().numpy().copy() for name, tensor in tensors.items()}
    text = {"params/txt/Encoder_0/encoderblock_3/LayerNorm_0/scale": np.ones(8), "params/txt/head/kernel": np.ones(8)}
    return {f"params/img/{name}": array for name, array in out.items()} | text | {"params/t": np.ones(1)}


@pytest.mark.parametrize("stacked", [False, True])
def test_load_backbone_with_google_siglip_weights_restores_the_model(tmp_path, stacked):
    """webli_en_b16_224_63724782.npz and siglip2_b16_224.npz; the text tower may have more blocks than the image's."""
    source, path = vit("vit_base_patch16_siglip_224", make=trained), tmp_path / "siglip.npz"
    np.savez(path, **big_vision(source, stacked))
    backbone = load_backbone(vit("vit_base_patch16_siglip_224"), weights=path)
    assert_same(backbone, source)
    (note,) = backbone.notes
    assert "3 keys outside the backbone were left out; parts: txt, t" in note
    with pytest.raises(BackboneError, match="more than 2 blocks"):
        load_backbone(vit("vit_base_patch16_siglip_224", depth=2), weights=path)
    with pytest.raises(BackboneError, match="does not fit"):
        load_backbone(vit("vit_base_patch16_siglip_224", depth=4), weights=path)


EVA = (
    ("attn.norm.", "attn.inner_attn_ln."),
    ("mlp.norm.", "mlp.ffn_ln."),
    ("q_proj.bias", "q_bias"),
    ("v_proj.bias", "v_bias"),
    ("mlp.fc1_g.", "mlp.w1."),
    ("mlp.fc1_x.", "mlp.w2."),
    ("mlp.fc2.", "mlp.w3."),
    ("fc_norm.", "norm."),
)
ROTARY = {"rope.freqs_cos": torch.ones(16, 16), "blocks.0.attn.rope.freqs_sin": torch.ones(16, 16)}


@pytest.mark.parametrize("pool", ["avg", "token"])
def test_load_backbone_with_eva02_weights_restores_the_model(tmp_path, pool):
    """eva02_B_pt_in21k_p14.pt: key `module`, pretraining's norm, mask token and lm_head, rotary buffers."""
    source = vit("eva02_base_patch14_224", make=trained, global_pool=pool)
    state = rename_keys(source.state_dict(), *EVA) | ROTARY
    assert "blocks.2.attn.q_bias" in state and "blocks.2.mlp.w2.weight" in state and "norm.weight" in state
    state |= {"mask_token": torch.ones(1, 1, WIDTH), "lm_head.weight": torch.ones(8, WIDTH)}
    model = vit("eva02_base_patch14_224", global_pool=pool)
    backbone = write_and_load(model, {"module": state}, tmp_path / "eva02.pt")
    assert_same(backbone, source)
    assert [note.partition(": ")[2] for note in backbone.notes] == [
        "its final norm is used as fc_norm, after pooling",
    ] * (pool == "avg")


def test_load_backbone_with_eva02_clip_weights_restores_the_model(tmp_path):
    """EVA02_CLIP_B_psz16_s8B.pt: the image tower under `visual.`, with a norm inside attention, and a text tower."""
    source = vit("eva02_base_patch16_clip_224", make=trained)
    state = add_prefix(
        "visual.", rename_keys(source.state_dict(), *EVA) | ROTARY | {"head.weight": torch.ones(16, WIDTH)}
    )
    assert "visual.blocks.0.attn.inner_attn_ln.weight" in state
    state |= {"text.token_embedding.weight": torch.ones(9, 8), "logit_scale": torch.ones(())}
    backbone = write_and_load(vit("eva02_base_patch16_clip_224"), state, tmp_path / "eva_clip.pt")
    assert_same(backbone, source)
    (note,) = backbone.notes
    assert "2 keys outside the backbone were left out; parts: text, logit_scale" in note
