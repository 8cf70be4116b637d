"""Published weights files: each layout, written tiny with random values, must load into timm's model of its family.

A test turns the weights of a model into the names and shapes of the published file by a mapping of its own, and loads
them into a fresh model: weights and output must come back to the bit. What a published file has besides (decoders, text
towers, buffers, heads) is written too.
"""

from __future__ import annotations

import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from families import SIZE, TINY, randomise
from test_backbone import google
from vpt import load_backbone
from vpt.backbone import Backbone, skeleton
from vpt.errors import BackboneError

State = dict[str, Tensor]
WIDTH = TINY["embed_dim"]
SWIN: dict[str, Any] = {
    "img_size": SIZE,
    "embed_dim": 16,
    "depths": (2, 2, 2),
    "num_heads": (2, 2, 4),
    "window_size": 4,
}
CONVNEXT: dict[str, Any] = {"depths": (1, 1, 2, 1), "dims": (8, 8, 16, 32)}
RESNET: dict[str, Any] = {"layers": (1, 2, 1, 1), "channels": (8, 8, 16, 32)}


def fresh(name: str, **options: Any) -> Any:
    """A model as a user would make it, tiny: what a file is loaded into."""
    return timm.create_model(name, num_classes=0, **options)


def trained(name: str, **options: Any) -> Any:
    """The same with other weights, none of them zero or one: what a file is written from."""
    model = fresh(name, **options)
    randomise(model, seed=7)
    return model.eval()


def vit(name: str = "vit_base_patch16_224", *, make: Callable[..., Any] = fresh, **options: Any) -> Any:
    return make(name, **{**TINY, **options})


def renamed(state: State, *swaps: tuple[str, str]) -> State:
    """Every name with each swap applied, in order."""
    out = {}
    for name, tensor in state.items():
        for old, new in swaps:
            name = name.replace(old, new)
        out[name] = tensor.clone()
    return out


def under(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def load(model: nn.Module, content: Any, path: Path) -> Backbone:
    """Write the content and load it through the public door."""
    torch.save(content, path)
    return load_backbone(model, weights=path)


@torch.no_grad()
def assert_same(backbone: Backbone, source: nn.Module) -> None:
    """The weights of the source, every one to the bit, and so its output."""
    theirs = backbone.module.eval().state_dict()
    for name, tensor in source.state_dict().items():
        assert torch.equal(theirs.pop(name), tensor), name
    assert not theirs
    config: Any = source
    size = getattr(getattr(config, "patch_embed", None), "img_size", (SIZE, SIZE))
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    assert torch.equal(backbone.module(images), source(images))


def resized(grid: Tensor, side: int, **how: Any) -> Tensor:
    """Positions (1, n * n, d) on another grid."""
    n = round(grid.shape[1] ** 0.5)
    surface = grid.reshape(1, n, n, -1).permute(0, 3, 1, 2)
    return F.interpolate(surface, size=(side, side), align_corners=False, **how).permute(0, 2, 3, 1).flatten(1, 2)


# --- ViT-B/16, L/16, H/14 on ImageNet-21k, in Google's .npz

PAPER = [
    ("vit_base_patch16_224.orig_in21k", {"embed_dim": 24, "img_size": 32}),
    ("vit_large_patch16_224.orig_in21k", {"embed_dim": 32, "img_size": 32}),
    ("vit_huge_patch14_224.orig_in21k", {"embed_dim": 32, "img_size": 28}),
]


@pytest.mark.parametrize(("name", "options"), PAPER)
def test_google_imagenet21k(tmp_path, name, options):
    """imagenet21k/ViT-B_16.npz, ViT-L_16.npz, ViT-H_14.npz: all blocks and heads; pre_logits, a head of 21,843."""
    source, path = trained(name, **options), tmp_path / "ViT.npz"
    weights = google(source)
    weights["head/kernel"] = np.ones((options["embed_dim"], 21_843), np.float32)
    weights["head/bias"] = np.ones(21_843, np.float32)
    np.savez(path, **weights)
    backbone = load_backbone(fresh(name, **options), weights=path)
    assert_same(backbone, source)
    assert backbone.notes == ()


def test_google_tuned_on_imagenet(tmp_path):
    """imagenet21k+imagenet2012/ViT-B_16.npz: no pre_logits, 1,000 classes, positions of 384 pixels."""
    source, path = vit(make=trained, img_size=48), tmp_path / "ViT.npz"
    np.savez(path, **{name: array for name, array in google(source).items() if "pre_logits" not in name})
    model = vit()
    assert load_backbone(model, weights=path).notes == ()
    assert torch.equal(model.pos_embed[:, :1], source.pos_embed[:, :1])
    assert torch.allclose(model.pos_embed[:, 1:], resized(source.pos_embed[:, 1:], 4, mode="bilinear"), atol=1e-6)
    assert torch.equal(model.blocks[2].mlp.fc2.weight, source.blocks[2].mlp.fc2.weight)


def test_google_by_name_at_another_size(tmp_path):
    """The whole way by name: 160 pixels in the file, 64 asked for."""
    source, path = trained("test_vit"), tmp_path / "ViT.npz"
    np.savez(path, **google(source))
    backbone = load_backbone("test_vit", weights=path, image_size=64)
    module: Any = backbone.module
    assert backbone.preprocessing.size == 64
    assert torch.allclose(module.pos_embed[:, 1:], resized(source.pos_embed[:, 1:], 4, mode="bilinear"), atol=1e-6)
    assert_same(load_backbone("test_vit", weights=path), source)


def test_google_never_leaves_a_weight_at_random(tmp_path):
    """A model with weights that the layout does not know, here a norm after pooling and layer scales, is refused."""
    path = tmp_path / "ViT.npz"
    np.savez(path, **google(vit(make=trained)))
    with pytest.raises(BackboneError, match=r"missing in the file: fc_norm\.weight, fc_norm\.bias"):
        load_backbone(vit(global_pool="avg"), weights=path)
    with pytest.raises(BackboneError, match=r"missing in the file: blocks\.0\.ls1\.gamma"):
        load_backbone(vit(init_values=0.1), weights=path)


@pytest.mark.parametrize("suffix", [".npz", ".pth"])
def test_patches_of_another_size_are_told(tmp_path, suffix):
    """ViT-B_32.npz under the name of a B/16: timm resamples, which is seldom what was meant."""
    source, path = vit(make=trained, patch_size=16), tmp_path / f"ViT{suffix}"
    np.savez(path, **google(source)) if suffix == ".npz" else torch.save(source.state_dict(), path)
    (note,) = load_backbone(vit(), weights=path).notes
    assert "patches of 16x16 px were resampled to 8x8; is the backbone's name" in note


# --- MAE


def mae(source: Any) -> State:
    """mae_pretrain_vit_base.pth: timm's names, no head, the final norm as `norm`."""
    return renamed(source.state_dict(), ("fc_norm.", "norm."))


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


def test_mae(tmp_path):
    """mae_pretrain_vit_base.pth, read by CLS as in the paper."""
    source = vit("vit_base_patch16_224.mae", make=trained)
    backbone = load(vit("vit_base_patch16_224.mae"), {"model": mae(source)}, tmp_path / "mae.pth")
    assert_same(backbone, source)
    assert backbone.notes == ()
    module: Any = backbone.module
    assert module.global_pool == "token"


def test_mae_with_its_decoder(tmp_path):
    """mae_visualize_vit_base.pth: the encoder alone is taken, and the rest told."""
    source = vit(make=trained)
    backbone = load(vit(), {"model": mae_decoder() | mae(source)}, tmp_path / "mae.pth")
    assert_same(backbone, source)
    (note,) = backbone.notes
    assert "5 keys outside the backbone" in note and "decoder_blocks" in note  # timm itself drops mask_token


def test_mae_averaged(tmp_path):
    """Features averaged over the patches, the other way to read MAE: its norm comes after pooling."""
    source = vit(make=trained, global_pool="avg")
    backbone = load(vit(global_pool="avg"), {"model": mae(source)}, tmp_path / "mae.pth")
    assert_same(backbone, source)
    (note,) = backbone.notes
    assert "its final norm is used as fc_norm, after pooling" in note
    # The other way round: a tuned, averaging model read by CLS.
    back = load(vit(), {"model": source.state_dict()}, tmp_path / "tuned.pth")
    module: Any = back.module
    assert torch.equal(module.norm.weight, source.fc_norm.weight)
    assert "its final fc_norm is used as norm, before pooling" in back.notes[0]


def test_mae_at_another_size(tmp_path):
    source, model = vit(make=trained), vit(img_size=48)
    load(model, {"model": mae(source)}, tmp_path / "mae.pth")
    expected = resized(source.pos_embed[:, 1:], 6, mode="bicubic", antialias=True)
    assert torch.equal(model.pos_embed[:, :1], source.pos_embed[:, :1])
    assert torch.allclose(model.pos_embed[:, 1:], expected, atol=1e-5)


# --- MoCo


def moco(source: nn.Module, encoder: str, head: str) -> State:
    """A pretraining checkpoint: the encoder with an MLP for a head, its slow copy with other values, and more."""
    weights = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    other = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    mlp = {f"{head}.0.weight": torch.ones(16, 32), f"{head}.1.running_mean": torch.ones(16)}
    return under(f"module.{encoder}.", weights | mlp) | under("module.momentum_encoder.", other | mlp)


def test_moco_v3(tmp_path):
    """vit-b-300ep.pth.tar: the base encoder, not the momentum encoder; fixed positions are stored as weights."""
    source = vit(make=trained)
    state = {"module.predictor.0.weight": torch.ones(4, 4)} | moco(source, "base_encoder", "head")
    optimizer = {"state": {0: {"step": 3, "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    content = {"epoch": 300, "arch": "vit_base", "state_dict": state, "optimizer": optimizer, "scaler": {"scale": 1.0}}
    backbone = load(vit(), content, tmp_path / "vit-b-300ep.pth.tar")
    assert_same(backbone, source)
    (note,) = backbone.notes
    assert "parts: predictor, momentum_encoder" in note


def test_moco_v3_linear_probe(tmp_path):
    """linear-vit-b-300ep.pth.tar, the file of the paper: `module.` before every name, a linear head."""
    source = vit(make=trained)
    state = under("module.", source.state_dict() | {"head.weight": torch.ones(10, WIDTH), "head.bias": torch.ones(10)})
    backbone = load(vit(), {"epoch": 90, "state_dict": state, "best_acc1": torch.tensor(76.5)}, tmp_path / "l.pth.tar")
    assert_same(backbone, source)
    assert backbone.notes == ()


@pytest.mark.parametrize("encoder", ["base_encoder", "encoder_q", "encoder"])
def test_moco_resnet(tmp_path, encoder):
    """r-50-300ep.pth.tar (MoCo v3), moco_v2_800ep_pretrain.pth.tar with its queue, and SimSiam's checkpoint."""
    source = trained("resnet50", **RESNET)
    state = moco(source, encoder, "fc") | {"module.queue": torch.ones(8, 8), "module.queue_ptr": torch.zeros(1)}
    backbone = load(fresh("resnet50", **RESNET), {"state_dict": state}, tmp_path / "r-50.pth.tar")
    assert_same(backbone, source)
    (note,) = backbone.notes
    assert "momentum_encoder" in note and "queue" in note


# --- Swin, ConvNeXt, ResNet


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


def test_swin(tmp_path):
    """swin_base_patch4_window7_224_22k.pth."""
    source = trained("swin_base_patch4_window7_224.ms_in22k", **SWIN)
    model = fresh("swin_base_patch4_window7_224.ms_in22k", **SWIN)
    state = swin(source)
    assert "layers.0.downsample.reduction.weight" in state and "layers.2.downsample.reduction.weight" not in state
    backbone = load(model, {"model": state}, tmp_path / "swin.pth")
    assert_same(backbone, source)
    assert backbone.notes == ()
    assert torch.equal(model.layers[1].downsample.reduction.weight, state["layers.0.downsample.reduction.weight"])


def test_swin_of_another_depth_is_refused(tmp_path):
    """timm's filter looks for the tables of blocks that are not there."""
    state = swin(trained("swin_base_patch4_window7_224", **SWIN))
    model = fresh("swin_base_patch4_window7_224", **{**SWIN, "depths": (2, 2), "num_heads": (2, 2)})
    with pytest.raises(BackboneError, match="does not fit SwinTransformer"):
        load(model, {"model": state}, tmp_path / "swin.pth")


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
def test_convnext(tmp_path, prefix):
    """convnext_base_22k_224.pth, also as DDP would store it."""
    source = trained("convnext_base.fb_in22k", **CONVNEXT)
    state = convnext(source)
    assert state["downsample_layers.3.1.weight"].shape == (32, 16, 2, 2)
    assert state["stages.2.1.pwconv1.weight"].shape == (64, 16) and state["norm.weight"].shape == (32,)
    model = fresh("convnext_base.fb_in22k", **CONVNEXT)
    backbone = load(model, {"model": under(prefix, state)}, tmp_path / "convnext.pth")
    assert_same(backbone, source)
    assert backbone.notes == ()


def test_convnext_of_another_depth_is_refused(tmp_path):
    state = convnext(trained("convnext_base", **{**CONVNEXT, "depths": (1, 1, 3, 1)}))
    with pytest.raises(BackboneError, match="does not fit ConvNeXt"):
        load(fresh("convnext_base", **CONVNEXT), {"model": state}, tmp_path / "convnext.pth")


@pytest.mark.parametrize("first", [True, False])
def test_resnet(tmp_path, first):
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


# --- DINOv2, DINOv3


def test_dinov2(tmp_path):
    """dinov2_vitb14_pretrain.pth: a bare state dict with a mask token, positions of 518 pixels."""
    source = vit("vit_base_patch14_dinov2", make=trained)
    state = source.state_dict() | {"mask_token": torch.ones(1, WIDTH)}
    backbone = load(vit("vit_base_patch14_dinov2"), state, tmp_path / "dinov2.pth")
    assert_same(backbone, source)
    assert backbone.notes == ()
    smaller = vit("vit_base_patch14_dinov2", img_size=24)
    load(smaller, source.state_dict() | {"mask_token": torch.ones(1, WIDTH)}, tmp_path / "dinov2.pth")
    expected = resized(source.pos_embed[:, 1:], 3, mode="bicubic", antialias=True)
    assert torch.allclose(smaller.pos_embed[:, 1:], expected, atol=1e-5)


def test_dinov2_with_registers(tmp_path):
    """dinov2_vitb14_reg4_pretrain.pth: positions include CLS, which timm adds to the token itself."""
    source = vit("vit_base_patch14_reg4_dinov2", make=trained)
    own = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    place = torch.full((1, 1, WIDTH), 0.25)
    cls, patches = own.pop("cls_token"), own.pop("pos_embed")
    own["cls_token"], own["pos_embed"] = cls - place, torch.cat((place, patches), 1)
    own["register_tokens"], own["mask_token"] = own.pop("reg_token"), torch.ones(1, WIDTH)
    backbone = load(vit("vit_base_patch14_reg4_dinov2"), own, tmp_path / "dinov2.pth")
    module: Any = backbone.module
    assert torch.allclose(module.cls_token, cls, atol=1e-6)
    module.cls_token.data.copy_(cls)  # apart from the rounding of that sum
    assert_same(backbone, source)
    assert backbone.notes == ()


def test_dinov2_giant(tmp_path):
    """dinov2_vitg14_pretrain.pth: the MLP is w12, w3: w3(silu(first half) * second half)."""
    source = vit("vit_giant_patch14_dinov2", make=trained)
    state = renamed(source.state_dict(), ("mlp.fc1", "mlp.w12"), ("mlp.fc2", "mlp.w3"))
    model = vit("vit_giant_patch14_dinov2")
    backbone = load(model, state | {"mask_token": torch.ones(1, WIDTH)}, tmp_path / "dinov2.pth")
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
    return renamed(state, ("gamma_1", "ls1.gamma"), ("gamma_2", "ls2.gamma"), ("reg_token", "storage_tokens"))


@pytest.mark.parametrize("name", ["vit_base_patch16_dinov3", "vit_base_patch16_dinov3_qkvb"])
def test_dinov3(tmp_path, capsys, name):
    """dinov3_vitb16_pretrain_lvd1689m.pth: a bare state dict; rotary periods and masks are stored."""
    source = vit(name, make=trained)
    backbone = load(vit(name), dinov3(source, biases=False), tmp_path / "dinov3.pth")
    assert_same(backbone, source)
    assert backbone.notes == ()
    assert capsys.readouterr().out == ""


def test_dinov3_biases_are_not_lost_in_silence(tmp_path):
    """timm drops the biases where the model of that name has none; that is right only where they are zero."""
    source = vit("vit_base_patch16_dinov3", make=trained)
    (note,) = load(vit("vit_base_patch16_dinov3"), dinov3(source, biases=True), tmp_path / "dinov3.pth").notes
    assert "3 keys fit nothing in the model; unused: blocks.0.attn.qkv.bias" in note


# --- CLIP, SigLIP, EVA-02


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
def test_clip(tmp_path, prefix):
    """OpenAI's ViT-B-16 and open_clip_pytorch_model.bin (bare), and open_clip's own checkpoints (DDP, nested)."""
    tower = ClipTower()
    randomise(tower)
    state = under(prefix, under("visual.", tower.state_dict()) | clip_text())
    model = vit("vit_base_patch16_clip_224")
    backbone = load(model, {"epoch": 32, "state_dict": state} if prefix else state, tmp_path / "clip.bin")
    images = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(model.eval()(images), tower(images), atol=1e-5)
    (note,) = backbone.notes
    assert "6 keys outside the backbone" in note and "token_embedding" in note


def test_clip_in_half_precision(tmp_path):
    """open_clip_model.safetensors of OpenAI's weights, which are half precision: the model stays what it is."""
    tower, path = ClipTower(), tmp_path / "open_clip_model.safetensors"
    randomise(tower)
    save_file(under("visual.", {name: tensor.half() for name, tensor in tower.state_dict().items()}), path)
    model = vit("vit_base_patch16_clip_224")
    load_backbone(model, weights=path)
    assert torch.equal(model.pos_embed[0], tower.positional_embedding.half().float())


def test_openais_archive_is_refused_with_advice(tmp_path):
    """ViT-B-16.pt is a TorchScript archive: a program, so it is not run."""
    path = tmp_path / "ViT-B-16.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ViT-B-16/constants.pkl", b"")
        archive.writestr("ViT-B-16/code/__torch__.py", b"")
    with pytest.raises(BackboneError, match=r"a program besides its weights.*torch\.jit\.load"):
        load_backbone(vit("vit_base_patch16_clip_224"), weights=path)


def test_siglip(tmp_path):
    """open_clip_pytorch_model.bin of timm/ViT-B-16-SigLIP: a timm tower; map pooling is part of it."""
    source = vit("vit_base_patch16_siglip_224", make=trained)
    text = {"text.transformer.resblocks.0.ln_1.weight": torch.ones(8), "logit_bias": torch.ones(())}
    state = under("visual.trunk.", source.state_dict()) | text | {"logit_scale": torch.ones(())}
    backbone = load(vit("vit_base_patch16_siglip_224"), state, tmp_path / "siglip.bin")
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
def test_siglip_from_google(tmp_path, stacked):
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
def test_eva02(tmp_path, pool):
    """eva02_B_pt_in21k_p14.pt: key `module`, pretraining's norm, mask token and lm_head, rotary buffers."""
    source = vit("eva02_base_patch14_224", make=trained, global_pool=pool)
    state = renamed(source.state_dict(), *EVA) | ROTARY
    assert "blocks.2.attn.q_bias" in state and "blocks.2.mlp.w2.weight" in state and "norm.weight" in state
    state |= {"mask_token": torch.ones(1, 1, WIDTH), "lm_head.weight": torch.ones(8, WIDTH)}
    model = vit("eva02_base_patch14_224", global_pool=pool)
    backbone = load(model, {"module": state}, tmp_path / "eva02.pt")
    assert_same(backbone, source)
    assert [note.partition(": ")[2] for note in backbone.notes] == [
        "its final norm is used as fc_norm, after pooling",
    ] * (pool == "avg")


def test_eva02_clip(tmp_path):
    """EVA02_CLIP_B_psz16_s8B.pt: the image tower under `visual.`, with a norm inside attention, and a text tower."""
    source = vit("eva02_base_patch16_clip_224", make=trained)
    state = under("visual.", renamed(source.state_dict(), *EVA) | ROTARY | {"head.weight": torch.ones(16, WIDTH)})
    assert "visual.blocks.0.attn.inner_attn_ln.weight" in state
    state |= {"text.token_embedding.weight": torch.ones(9, 8), "logit_scale": torch.ones(())}
    backbone = load(vit("eva02_base_patch16_clip_224"), state, tmp_path / "eva_clip.pt")
    assert_same(backbone, source)
    (note,) = backbone.notes
    assert "2 keys outside the backbone were left out; parts: text, logit_scale" in note


# --- BEiT, DeiT-3


def beit(source: Any) -> State:
    """beit_base_patch16_224_pt22k_ft22k.pth: a table and its index in every block, `fc_norm`, 21,841 classes."""
    index = {f"blocks.{n}.attn.relative_position_index": torch.zeros(17, 17) for n in range(3)}
    return {**source.state_dict(), **index, "head.weight": torch.ones(21_841, WIDTH), "head.bias": torch.ones(21_841)}


def test_beit_tuned(tmp_path):
    """beit_base_patch16_224_pt22k_ft22k.pth."""
    source = vit("beit_base_patch16_224", make=trained)
    backbone = load(vit("beit_base_patch16_224"), {"model": beit(source)}, tmp_path / "beit.pth")
    assert_same(backbone, source)
    assert backbone.notes == ()


@pytest.mark.parametrize("pool", ["avg", "token"])
def test_beit_pretrained(tmp_path, pool):
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
    backbone = load(vit("beit_base_patch16_224", global_pool=pool), {"model": state}, path)
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


def test_deit3(tmp_path):
    """deit_3_base_224_21k.pth: key `model`, layer scales as gamma_1 and gamma_2, CLS has no position."""
    source = vit("deit3_base_patch16_224.fb_in22k_ft_in1k", make=trained)
    state = renamed(source.state_dict(), ("ls1.gamma", "gamma_1"), ("ls2.gamma", "gamma_2"))
    assert state["pos_embed"].shape == (1, 16, WIDTH) and "blocks.0.gamma_1" in state
    state |= {"head.weight": torch.ones(21_841, WIDTH), "head.bias": torch.ones(21_841)}
    name = "deit3_base_patch16_224.fb_in22k_ft_in1k"
    backbone = load(vit(name), {"model": state}, tmp_path / "deit3.pth")
    assert_same(backbone, source)
    assert backbone.notes == ()
    larger = vit(name, img_size=48)
    load(larger, {"model": state}, tmp_path / "deit3.pth")
    expected = resized(source.pos_embed, 6, mode="bicubic", antialias=True)
    assert torch.allclose(larger.pos_embed, expected, atol=1e-5)


# --- What holds for all


def test_weights_for_what_is_loaded_already(tmp_path):
    backbone = load(vit(), vit(make=trained).state_dict(), tmp_path / "w.pth")
    with pytest.raises(BackboneError, match="is loaded already"):
        load_backbone(backbone, weights=tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("name", "imagenet"),
    [
        *((name, False) for name, _ in PAPER),
        ("vit_base_patch16_224.mae", True),
        ("swin_base_patch4_window7_224.ms_in22k", True),
        ("convnext_base.fb_in22k", True),
        ("resnet50.tv_in1k", True),
    ],
)
def test_names_that_bring_the_right_preprocessing(name, imagenet):
    """A file knows nothing of preprocessing: these are the names to load the paper's files under."""
    image = skeleton(name).preprocessing
    assert image.size == 224
    assert image.mean == ((0.485, 0.456, 0.406) if imagenet else (0.5, 0.5, 0.5))
