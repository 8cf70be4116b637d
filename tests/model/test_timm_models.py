"""Models of timm outside the known families: width of the head, targets by layer type, merging, channels."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
from timm.models.mlp_mixer import _create_mixer
from torch import Tensor, nn

import vpt
from helpers.families import backbone_of, model_of, randomize
from vpt.errors import SpecError, TunedFileError, UnsupportedError
from vpt.model.tuned_model import TunedModel

SIZE = 32
MIXER: dict[str, Any] = {"img_size": SIZE, "patch_size": 8, "embed_dim": 16, "num_blocks": 2}
CAIT: dict[str, Any] = {"img_size": SIZE, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
BIT: dict[str, Any] = {"layers": (1, 1, 1, 1), "channels": (8, 16, 16, 32)}
PVT: dict[str, Any] = {"depths": (1, 1, 1, 1), "embed_dims": (8, 16, 16, 32), "num_heads": (1, 1, 2, 4)}


def create(name: str, **options: Any) -> nn.Module:
    return (_create_mixer if name.startswith("mixer") else timm.create_model)(name, **options)


def make(name: str, **options: Any) -> nn.Module:
    """A small model without classifier, with weights that hide nothing."""
    model = create(name, num_classes=0, **options)
    randomize(model)
    return model.eval()


def images(channels: int = 3) -> Tensor:
    return torch.randn(2, channels, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def attach(model: nn.Module, method: str, **options: Any) -> TunedModel:
    """A tuned model in eval mode for images of SIZE pixels."""
    backbone = vpt.load_backbone(model)
    backbone = replace(backbone, preprocessing=replace(backbone.preprocessing, size=SIZE))
    return vpt.attach(backbone, method, 3, **options).eval()


@torch.no_grad()
def disturb(model: TunedModel) -> None:
    for weight in model.trainable_parameters():
        weight.add_(0.05 * torch.randn_like(weight))


@pytest.mark.parametrize("method", ["linear", "bias", "full", "ssf"])
@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "ghostnet_050", "lcnet_035"])
def test_width_is_that_of_pooled_feature(name: str, method: str) -> None:
    model = make(name)
    tuned = attach(model, method)
    with torch.no_grad():
        expected = model(images())
        assert tuned.width == expected.shape[1] != model.num_features
        assert tuned(images()).shape == (2, 3)
        assert torch.allclose(tuned.features(images()), expected, rtol=1e-4, atol=1e-5)


def test_width_of_model_that_does_not_pool_is_refused() -> None:
    model = timm.create_model("test_vit", img_size=SIZE, num_classes=0, global_pool="")
    with pytest.raises(UnsupportedError, match=r"gives no vector for an image, .* global_pool"):
        vpt.attach(model, "linear", 3)


@pytest.mark.parametrize(
    ("name", "options", "blocks"),
    [
        ("cait_xxs24_224", CAIT, "LayerScaleBlock, LayerScaleBlockClassAttn"),
        ("xcit_nano_12_p8_224", {"depth": 1, "cls_attn_layers": 1}, "XCABlock, ClassAttentionBlock"),
        ("pvt_v2_b0", PVT, "Block"),
    ],
)
def test_prompts_in_blocks_of_unknown_layout_are_refused(name: str, options: dict[str, Any], blocks: str) -> None:
    with pytest.raises(UnsupportedError, match=rf"of a known layout, and \w+ has its attention in others: {blocks};"):
        attach(make(name, **options), "vpt")


def test_prompts_without_any_attention_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="of transformer blocks, and MlpMixer has no blocks with attention;"):
        attach(make("mixer_s32_224", **MIXER), "vpt")


def test_lora_finds_cross_covariance_attention() -> None:
    tuned = attach(make("xcit_nano_12_p8_224", depth=1, cls_attn_layers=1), "lora(rank=2)")
    assert {"blocks.0.attn.qkv", "blocks.0.attn.proj"} <= set(tuned.injected_modules)


def test_class_token_that_joins_late_trains() -> None:
    tuned = attach(make("cait_xxs24_224", **CAIT), "class_token")
    with torch.no_grad():
        before = tuned(images())
        disturb(tuned)
        assert (tuned(images()) - before).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("method", "name", "options"),
    [
        ("ssf", "mobilenetv3_small_050", {}),
        ("lora(rank=2)", "cait_xxs24_224", CAIT),
        ("lora(rank=2, targets=all)", "mixer_s32_224", MIXER),
        ("bias", "resnetv2_50", BIT),
        ("full", "pvt_v2_b0", PVT),
        ("bias", "efficientvit_m0", {}),  # a norm in front of the linear layer of its classifier
    ],
)
def test_merge_gives_logits_of_timm_alone(method: str, name: str, options: dict[str, Any]) -> None:
    tuned = attach(make(name, **options), method)
    disturb(tuned)
    fresh = create(name, num_classes=3, **options).eval()
    fresh.load_state_dict(tuned.merge())
    with torch.no_grad():
        assert torch.allclose(fresh(images()), tuned(images()), rtol=1e-3, atol=1e-4)
        fresh.load_state_dict(attach(tuned.backbone.module, method).merge())
        assert not torch.allclose(fresh.train().eval()(images()), tuned(images()), rtol=1e-2, atol=1e-2)


@torch.no_grad()
def test_plain_and_merge_forget_attention_biases_of_earlier_passes() -> None:
    options: dict[str, Any] = {"img_size": 224}
    tuned = vpt.attach(make("efficientvit_m0", **options), "full", 3).eval()
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    before = tuned(x)
    for name, weight in tuned.named_parameters():
        if "attention_biases" in name:
            weight.add_(torch.randn_like(weight))
    merged = create("efficientvit_m0", num_classes=3, **options).eval()
    merged.load_state_dict(tuned.merge())
    plain = tuned.plain()
    expected = tuned.train().eval()(x)
    assert not torch.allclose(before, expected, rtol=1e-2, atol=1e-2)
    assert torch.allclose(plain(x), expected, rtol=1e-4, atol=1e-5)
    assert torch.allclose(merged(x), expected, rtol=1e-3, atol=1e-4)


def test_load_forgets_attention_biases_of_earlier_passes(tmp_path) -> None:
    backbone = vpt.load_backbone(make("efficientvit_m0", img_size=224))  # in eval mode attention keeps its biases
    tuned = vpt.attach(backbone, "full", 3).eval()
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = tuned(x)
        for name, weight in tuned.named_parameters():
            if "attention_biases" in name:
                weight.add_(torch.randn_like(weight))
        expected = tuned.train().eval()(x)
        assert not torch.allclose(before, expected, rtol=1e-2, atol=1e-2)
        again = vpt.load(vpt.save(tuned, tmp_path / "tuned.safetensors"), backbone)
        assert torch.allclose(again(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["lora(rank=2, targets=mlp)", "full"])
def test_merge_of_module_in_two_places_has_both_names(method: str) -> None:
    model: Any = make("test_vit", img_size=SIZE)
    model.blocks[1].mlp = model.blocks[0].mlp
    tuned = attach(model, method)
    disturb(tuned)
    fresh: Any = timm.create_model("test_vit", img_size=SIZE, num_classes=3).eval()
    fresh.load_state_dict(tuned.merge())
    with torch.no_grad():
        assert torch.allclose(fresh(images()), tuned(images()), rtol=1e-3, atol=1e-4)
        assert not torch.allclose(fresh.blocks[1].mlp.fc1.weight, model.blocks[1].mlp.fc1.weight, atol=1e-3)


def test_merge_of_backbone_in_bf16_is_close() -> None:
    backbone = vpt.load_backbone("test_vit", image_size=SIZE, pretrained=False, dtype=torch.bfloat16)
    tuned = vpt.attach(backbone, "lora(rank=2)", 3).eval()
    disturb(tuned)
    fresh = timm.create_model("test_vit", img_size=SIZE, num_classes=3).bfloat16().eval()
    fresh.load_state_dict(tuned.merge())
    with torch.no_grad():
        assert torch.allclose(fresh(images().bfloat16()).float(), tuned(images()), rtol=0.05, atol=0.05)


def test_merge_that_timm_computes_otherwise_is_refused() -> None:
    tuned = attach(make("test_nfnet"), "ssf")  # its convolutions standardize their weights, so a scale is lost
    assert tuned.merge()  # as attached, every scale is 1
    disturb(tuned)
    with pytest.raises(UnsupportedError, match=r"ssf on .* does not merge: timm gives other logits"):
        tuned.merge()
    with torch.no_grad():
        assert torch.allclose(tuned.plain()(images()), tuned(images()), atol=1e-5), "plain() and exports keep the scale"


def test_merge_where_timm_classifies_by_several_layers_is_refused() -> None:
    tuned = attach(make("caformer_s18"), "linear")
    with pytest.raises(UnsupportedError, match="no place: it reads 512 features, and timm's classifier 2048, behind"):
        tuned.merge()


def test_merge_of_keys_that_timm_lacks_is_refused() -> None:
    model = make("test_vit", img_size=SIZE)
    model.pretrained_cfg = {**model.pretrained_cfg, "classifier": "classifier"}
    with pytest.raises(UnsupportedError, match=r"timm cannot load it (.|\n)*classifier\.weight"):
        attach(model, "linear").merge()


def test_merge_of_prompts_around_the_image_names_the_place() -> None:
    tuned = attach(make("test_vit", img_size=SIZE), "vpt(length=2, location=pad, depth=shallow)")
    with pytest.raises(UnsupportedError, match="the module at images is no linear change of a weight"):
        tuned.merge()


def test_merge_of_weights_that_are_no_numbers_is_refused() -> None:
    tuned = attach(make("test_vit", img_size=SIZE), "bias")
    with torch.no_grad():
        tuned.head.weight.fill_(float("nan"))
    with pytest.raises(UnsupportedError, match="does not merge: timm gives other logits"):
        tuned.merge()


def test_merge_leaves_mode_and_weights() -> None:
    tuned = attach(make("test_efficientnet"), "full").train()
    before = copy.deepcopy(tuned.state_dict())
    tuned.merge()
    assert tuned.training and all(torch.equal(before[name], tensor) for name, tensor in tuned.state_dict().items())


def test_lora_targets_go_by_layer_type() -> None:
    blocks = [f"blocks.{index}" for index in range(2)]
    with pytest.raises(
        UnsupportedError, match="MlpMixer has no linear layers in attention; targets=all takes the 8 that it has"
    ):
        attach(make("mixer_s32_224", **MIXER), "lora")
    mixer = attach(make("mixer_s32_224", **MIXER), "lora(rank=2, targets=mlp)")
    kinds = ("mlp_tokens.fc1", "mlp_tokens.fc2", "mlp_channels.fc1", "mlp_channels.fc2")
    assert set(mixer.injected_modules) == {f"{block}.{kind}" for block in blocks for kind in kinds}
    cait = attach(make("cait_xxs24_224", **CAIT), "lora(rank=2)")
    assert {"blocks.0.attn.qkv", "blocks.0.attn.proj_l", "blocks_token_only.1.attn.q"} <= set(cait.injected_modules)
    assert not any(".mlp." in path for path in cait.injected_modules)
    with pytest.raises(UnsupportedError, match=r"lora.* does not fit MobileNetV3: MobileNetV3 has no linear layers;"):
        attach(make("mobilenetv3_small_050"), "lora(targets=all)")


@pytest.mark.parametrize("family", ["vit", "vit-parallel", "swin", "beit", "eva02", "eva02-unfused", "siglip"])
def test_lora_targets_of_known_families_are_inside_blocks(family: str) -> None:
    backbone = backbone_of(family)
    linears = {path for path, module in model_of(family).named_modules() if isinstance(module, nn.Linear)}
    inside = {path for path in linears if ".attn" in path and "blocks" in path}
    assert set(vpt.attach(backbone, "lora(rank=2)", 3).injected_modules) == inside
    both = {path for path in linears if "blocks." in path}
    assert set(vpt.attach(backbone, "lora(rank=2, targets=all)", 3).injected_modules) == both


@pytest.mark.parametrize(("name", "options", "count"), [("mixer_s32_224", MIXER, 4), ("pvt_v2_b0", PVT, 4)])
@pytest.mark.parametrize("method", ["adapter(reduction=4)", "adaptformer(bottleneck=4)"])
def test_adapter_in_unknown_family_follows_every_mlp(
    method: str, name: str, options: dict[str, Any], count: int
) -> None:
    model = make(name, **options)
    tuned = attach(model, method)
    assert len(tuned.injected_modules) == count and all("mlp" in path for path in tuned.injected_modules)
    with torch.no_grad():
        assert torch.allclose(tuned.features(images()), model(images()), rtol=1e-4, atol=1e-5)
        disturb(tuned)
        assert not torch.allclose(tuned.features(images()), model(images()), rtol=1e-3, atol=1e-3)


def test_adapter_without_mlp_of_linear_layers_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="MobileNetV3 has no MLP of linear layers"):
        attach(make("mobilenetv3_small_050"), "adapter")


@pytest.mark.parametrize("channels", [1, 4, 6])
@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("vpt(length=2)", "test_vit"),
        ("vpt(length=2, location=pad, depth=shallow)", "test_vit"),
        ("vpt(length=2, location=prepend_pixel, depth=shallow)", "test_vit"),
        ("ssf", "test_resnet"),
    ],
)
def test_channels_of_timm_model_reach_tuned_file(method: str, name: str, channels: int, tmp_path) -> None:
    options = {"img_size": SIZE} if name == "test_vit" else {}
    model = make(name, in_chans=channels, **options)
    tuned = attach(model, method)
    assert tuned.layout.preprocessing.channels == channels
    tuned(images(channels)).sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in tuned.trainable_parameters())
    disturb(tuned)
    path = vpt.save(tuned, tmp_path / "tuned.safetensors")
    again = vpt.load(path, tuned.backbone)
    with torch.no_grad():
        assert torch.equal(again(images(channels)), tuned(images(channels)))
    with pytest.raises(TunedFileError, match=f"reads {channels} channels; give the timm model, made with in_chans="):
        vpt.load(path)


def test_channels_of_photographs_become_gray_or_are_refused() -> None:
    pixels = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    gray = vpt.load_backbone(timm.create_model("resnet10t", in_chans=1, num_classes=0)).preprocessing
    mean, std = (0.485 + 0.456 + 0.406) / 3, (0.229 + 0.224 + 0.225) / 3
    assert gray.mean == pytest.approx((mean,)) and gray.std == pytest.approx((std,))
    red, green, blue = pixels.float().unbind(1)
    luma = (0.299 * red + 0.587 * green + 0.114 * blue) / 255
    assert torch.allclose(gray.normalize(pixels), ((luma - mean) / std).unsqueeze(1), atol=1e-6)
    assert gray.with_normalization("inception").mean == (0.5,)
    six = vpt.load_backbone(timm.create_model("test_resnet", in_chans=6, num_classes=0)).preprocessing
    with pytest.raises(SpecError, match="have 3 channels, and the backbone reads 6"):
        six.normalize(pixels)
    assert six.normalize(pixels.repeat(1, 2, 1, 1)).shape == (2, 6, 4, 4)


def test_channels_made_of_pixels_inside_model_are_not_those_of_images() -> None:
    model = timm.create_model("tresnet_m", num_classes=0)  # 16 pixels become channels before its first convolution
    assert model.body.conv1.conv.in_channels == 48
    assert vpt.load_backbone(model).preprocessing.channels == 3
