"""Multi-block heads: the features of several blocks, on every family and with every method."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from helpers.families import TINY, backbone_of, images, model_of
from vpt import SpecError, TunedModel, UnsupportedError, attach, inspect, load, load_backbone, save
from vpt.heads.multi_block import parse_features, select_blocks
from vpt.model.readout import MultiBlock, parse_readout
from vpt.training.feature_cache import _cache_key

HEAD = "multi_block(blocks=last2, features=cls+mean+std)"
GRID_HEAD = "multi_block(blocks=last2, features=mean+std)"


def tuned(family: str, method: str, head: str = HEAD) -> TunedModel:
    torch.manual_seed(0)
    return attach(backbone_of(family), method, 3, head=head).eval()


def statistics(tokens: Tensor, prefix: int) -> list[Tensor]:
    patches = tokens[:, prefix:]
    return [tokens[:, 0], patches.mean(1), patches.std(1, correction=0)]


@pytest.mark.parametrize("family", ["vit", "vit-avg", "dinov2-reg"])
@pytest.mark.parametrize("method", ["linear", "vpt(length=3)", "vpt(length=3, depth=shallow)"])
def test_multi_block_on_tokens_equals_reference(family: str, method: str) -> None:
    model, plain = tuned(family, method), model_of(family)
    timms: Any = plain
    prefix = timms.num_prefix_tokens
    prompts = [tensor for name, tensor in model.trainable_state_dict().items() if name.startswith("prompts.")]
    expected = []
    with torch.no_grad():
        x = timms.norm_pre(timms._pos_embed(timms.patch_embed(images())))
        for index, block in enumerate(timms.blocks):
            own = prompts[index] if index < len(prompts) else None
            if own is not None:
                x = torch.cat([x[:, :prefix], own.expand(len(x), -1, -1), x[:, prefix:]], dim=1)
            x = block(x)
            if len(prompts) == 3:
                x = torch.cat([x[:, :prefix], x[:, prefix + 3 :]], dim=1)
            if index > 0:
                norm = timms.norm if family != "vit-avg" else timms.fc_norm
                patches = prefix + (3 if len(prompts) == 1 else 0)
                expected += statistics(norm(x), patches)
        actual = model.features(images())
    assert model.width == 2 * 3 * 32
    assert torch.allclose(actual, torch.cat(expected, dim=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["vit", "vit-avg", "swin", "convnext", "resnet"])
def test_multi_block_with_pooled_reads_what_the_default_head_reads_before_the_blocks(family: str) -> None:
    default, blocks = attach(backbone_of(family), "linear", 3).eval(), tuned(family, "linear", GRID_HEAD)
    both = tuned(family, "linear", "multi_block(blocks=last2, features=mean+std, pooled=true)")
    with torch.no_grad():
        expected = torch.cat([default.features(images()), blocks.features(images())], dim=1)
        assert torch.allclose(both.features(images()), expected, atol=1e-5) and both.width == expected.shape[1]


@pytest.mark.parametrize("family", ["swin", "convnext", "resnet"])
def test_multi_block_on_stages_equals_the_statistics_of_their_maps(family: str) -> None:
    model, timms = tuned(family, "linear", GRID_HEAD), model_of(family)
    maps: list[Tensor] = []
    stages = [stage for stage in timms.feature_info if stage["reduction"] >= 4]
    timms.get_submodule(stages[-2]["module"]).register_forward_hook(lambda *args: maps.append(args[2]))
    with torch.no_grad():
        final = timms.forward_features(images())
        final = timms.head.norm(final) if family == "convnext" else final  # timm applies it after pooling
        actual = model.features(images())
    expected = []
    for x in (*maps, final):
        tokens = x.flatten(1, 2) if family == "swin" else x.flatten(2).transpose(1, 2)
        expected += [tokens.mean(1), tokens.std(1, correction=0)]
    assert torch.allclose(actual, torch.cat(expected, dim=1), rtol=1e-4, atol=1e-5)
    assert actual.shape == (4, model.width)


@pytest.mark.parametrize("size", [16, 64])
def test_multi_block_of_images_of_another_size_reads_all_patches_and_no_prompt(size: int) -> None:
    vit = timm.create_model("vit_base_patch16_224", num_classes=0, dynamic_img_size=True, **TINY)
    model = attach(vit, "vpt(length=3, depth=shallow)", 3, head='multi_block(blocks="2", features=mean)').eval()
    trunk: Any = model.trunk
    outputs: list[Tensor] = []
    trunk.blocks[1].register_forward_hook(lambda *args: outputs.append(args[2]))
    with torch.no_grad():
        actual = model.features(torch.randn(2, 3, size, size))
        assert outputs[0].shape[1] == 1 + 3 + (size // 8) ** 2
        torch.testing.assert_close(actual, trunk.norm(outputs[0])[:, 1 + 3 :].mean(1))


def test_multi_block_of_last_class_token_equals_the_default_feature() -> None:
    """The last block still computes the class token alone."""
    one = tuned("vit", "vpt(length=3)", "multi_block(blocks=last1, features=cls)")
    default = attach(backbone_of("vit"), "vpt(length=3)", 3).eval()
    default.load_trainable_state_dict(one.trainable_state_dict())
    assert one.layout.cls_only
    with torch.no_grad():
        assert torch.equal(one.features(images()), default.features(images()))


@pytest.mark.parametrize(
    ("text", "indices"),
    [("all", (0, 1, 2, 3)), ("last2", (2, 3)), ("2", (1,)), ("1-2", (0, 1)), ("1+3-4", (0, 2, 3)), ("4+1", (0, 3))],
)
def test_select_blocks_of_text_returns_their_indices(text: str, indices: tuple[int, ...]) -> None:
    assert select_blocks(text, 4) == indices


def test_parse_readout_without_quotes_equals_its_spec() -> None:
    head = parse_readout("multi_block(blocks=1+3-4, features=std+cls)")
    assert head == MultiBlock("1+3-4", "cls+std")
    assert parse_readout(head.spec(full=True)) == head
    assert parse_features("mean+cls") == ("cls", "mean")


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        ("multi_block(blocks=first)", "write all, last4"),
        ("multi_block(blocks=last0)", "write all, last4"),
        ("multi_block(features=max)", "features is 'max'"),
        ("multi_block(features=cls+cls)", "once"),
    ],
)
def test_parse_readout_of_invalid_head_is_refused(head: str, reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        parse_readout(head)


@pytest.mark.parametrize(
    ("family", "method", "head", "reason"),
    [
        ("vit", "linear", "multi_block(blocks=last4)", "there are 3 blocks or stages"),
        ("vit", "vpt(output=image_mean)", HEAD, "leave output"),
        ("siglip", "linear", HEAD, "has none; write features=mean"),
        ("swin", "linear", HEAD, "has none; write features=mean"),
        ("swin", "vpt(length=2, pool_prompts=true)", GRID_HEAD, "adds prompts to the last map"),
    ],
)
def test_multi_block_on_unsupported_backbone_is_refused(family: str, method: str, head: str, reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        tuned(family, method, head)


def test_save_of_multi_block_head_restores_it(tmp_path) -> None:
    model = tuned("vit", "vpt(length=3)")
    path = save(model, tmp_path / "x.safetensors")
    header = inspect(path)
    assert not header.is_dense and parse_readout(header.head) == model.readout
    assert header.parameter_counts == model.counts_by_component() == {"head": 579, "auxiliary": 0, "method": 288}
    with torch.no_grad():
        assert torch.equal(load(path, backbone_of("vit"))(images()), model(images()))


def test_cache_key_of_each_head_differs() -> None:
    from helpers.two_processes import examples
    from vpt.training.batches import DeviceDataset

    keys = set()
    for head in (None, HEAD, "multi_block(blocks=last2, features=cls+mean)"):
        model = attach(backbone_of("vit"), "linear", 3, head=head)
        assert model.only_head_trains and isinstance(model.new_head(), nn.Linear)
        dataset = DeviceDataset(examples(), model.backbone.preprocessing, torch.device("cpu"))
        keys.add(_cache_key(model, dataset, False))
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("method", "head"), [("linear", "multi_block(blocks=last1, features=mean)"), ("head2toe", None)]
)
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("convit_tiny", "a stage of ConVit puts out .* features of stages are read of maps"),
        ("mambaout_femto", "a stage of MambaOut puts out .* features of stages are read of maps"),
        ("mvitv2_tiny", "timm names block.0 as a stage of MultiScaleVit, which has no such module"),
    ],
)
def test_features_of_stages_that_put_out_no_maps_are_refused(
    name: str, reason: str, method: str, head: str | None
) -> None:
    backbone = load_backbone(name, pretrained=False)
    with pytest.raises(UnsupportedError, match=reason):
        attach(backbone, method, 3, head=head)


def test_last_stage_that_is_widened_behind_it_is_read_in_its_width() -> None:
    model = attach(load_backbone("test_efficientnet", pretrained=False), "linear", 3, head=GRID_HEAD).eval()
    size = model.backbone.preprocessing.size
    assert model(torch.zeros(1, 3, size, size)).shape == (1, 3) and model.width == 2 * (48 + 256)


@pytest.mark.parametrize("size", [(90, 90), (96, 96), (100, 64)])
def test_mean_of_patches_of_padded_images_is_over_all_of_them(size: tuple[int, int]) -> None:
    trunk = timm.create_model("test_vit", num_classes=0, img_size=96, dynamic_img_size=True, dynamic_img_pad=True)
    model = attach(trunk, "linear", 3, head="multi_block(blocks=last1, features=mean)").eval()
    images = torch.rand(1, 3, *size)
    expected = trunk.eval().forward_features(images)[:, trunk.num_prefix_tokens :].mean(1)
    assert torch.allclose(model.features(images), expected, atol=1e-6)
