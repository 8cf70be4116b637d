"""Dense heads on frozen backbones: shapes, counts, exactness, the file."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from helpers.families import SIZE, backbone_of, images, model_of
from vpt import SpecError, TunedModel, UnsupportedError, attach, inspect, load, save
from vpt.attention.detection import structural_copy
from vpt.backbones import load_backbone
from vpt.tasks.classification.prediction import predict
from vpt.training import Callback

SMALL = "setr_pup(channels=8)"
CASES = [
    ("vit", "linear", SMALL),
    ("vit", "vpt(length=3)", SMALL),
    ("vit", "vpt(length=3, depth=shallow)", "linear"),
    ("vit", 'vpt(length=3, depth="2-2")', "linear"),
    ("vit", "vpt(length=2) + bias", "setr_pup(channels=8, auxiliary=1)"),
    ("vit", "lora", SMALL),
    ("vit", "partial(k=1)", "linear"),
    ("vit", "full", "linear"),
    ("vit-avg", "vpt(length=3)", "linear"),
    ("dinov2-reg", "vpt(length=3, depth=shallow)", "linear"),
    ("eva02", "vpt(length=3)", "linear"),
    ("beit", "bias", SMALL),
    ("swin", "vpt(length=3)", "fpn(channels=8)"),
    ("swin", "vpt(length=3, depth=shallow)", "fpn(channels=8)"),
    ("swin", "bias", "linear"),
    ("vit", "vpt(length=3)", "linear(levels=2)"),
    ("swin", "vpt(length=3)", "linear(levels=2)"),
    ("convnext", "bias", "linear(levels=3)"),
    ("convnext", "bias", "fpn(channels=8)"),
    ("convnext", "full", "linear"),
    ("resnet", "full", "fpn(channels=8)"),
]


def dense(family: str, method: str, head: str, **options: bool) -> TunedModel:
    torch.manual_seed(0)
    return attach(backbone_of(family), method, 5, head=head, **options).eval()


def step(model: TunedModel) -> list[torch.Tensor]:
    """The gradients of one batch, without the randomness of dropout."""
    model.train()
    torch.manual_seed(3)
    logits = model.logits_with_auxiliary(images(2))
    target = torch.arange(2 * SIZE * SIZE).view(2, SIZE, SIZE) % 5
    sum(nn.functional.cross_entropy(part, target) for part in logits).backward()
    return [weight.grad for weight in model.trainable_parameters() if weight.grad is not None]


@pytest.mark.parametrize(("family", "method", "head"), CASES)
def test_dense_head_on_each_family_trains_and_survives_save_and_load(family, method, head, tmp_path):
    model = dense(family, method, head)
    assert step(model) and all(torch.isfinite(g).all() for g in step(model))
    state = model.trainable_state_dict()
    without_gradient = [n for n, p in state.items() if isinstance(p, nn.Parameter) and p.grad is None]
    without_gradient = [name for name in without_gradient if "head.norm" not in name]  # ConvNeXt's, after pooling
    assert not without_gradient, "all that trains takes part"
    torch.optim.SGD(model.trainable_parameters(), lr=0.01).step()
    model.eval()
    with torch.no_grad():
        expected = model(images())
    assert expected.shape == (4, 5, SIZE, SIZE)
    again = load(save(model, tmp_path / "x.safetensors"), backbone_of(family))
    with torch.no_grad():
        assert torch.equal(again(images()), expected)
        assert torch.equal(again(images()), expected), "a second pass gives another answer"
    assert inspect(tmp_path / "x.safetensors").parameter_counts == model.counts_by_component()


def test_save_of_auxiliary_heads_omits_them(tmp_path):
    """Only training reads them."""
    model = dense("vit", "vpt(length=2)", "setr_pup(channels=8, auxiliary=1)")
    without_auxiliary = dense("vit", "vpt(length=2)", "setr_pup(channels=8)")
    kept = load_file(save(model, tmp_path / "x.safetensors"))
    assert kept.keys() == without_auxiliary.trainable_state_dict().keys() < model.trainable_state_dict().keys()
    header = inspect(tmp_path / "x.safetensors")
    assert "auxiliary=0" in (header.head or "")
    assert header.parameter_counts["head"] == sum(weight.numel() for weight in without_auxiliary.head.parameters())
    assert header.parameter_counts["auxiliary"] == sum(weight.numel() for weight in model.head.auxiliary.parameters())


def test_dense_features_with_deep_prompts_equal_reference():
    """Concatenate, run the block, cut the prompts off: written here with timm's own blocks."""
    model = dense("vit", "vpt(length=3)", "linear")
    plain = structural_copy(model_of("vit"))
    prompts = [model.trainable_state_dict()[f"prompts.{i}.tokens"] for i in range(3)]
    with torch.no_grad():
        x = plain.norm_pre(plain._pos_embed(plain.patch_embed(images())))
        for block, own in zip(plain.blocks, prompts, strict=True):
            x = torch.cat([x[:, :1], own.expand(len(x), -1, -1), x[:, 1:]], dim=1)
            x = block(x)
            x = torch.cat([x[:, :1], x[:, 4:]], dim=1)
        expected = plain.norm(x)[:, 1:].transpose(1, 2).reshape(4, 32, 4, 4)
        (actual,) = model.features(images())
    assert (actual - expected).norm() / expected.norm() < 1e-5


def test_dense_features_with_shallow_prompts_contain_patches_only():
    model = dense("vit", "vpt(length=3, depth=shallow)", "setr_pup(channels=8, auxiliary=1)")
    plain = structural_copy(model_of("vit"))
    prompts = model.trainable_state_dict()["prompts.0.tokens"]
    with torch.no_grad():
        x = plain.norm_pre(plain._pos_embed(plain.patch_embed(images())))
        x = torch.cat([x[:, :1], prompts.expand(len(x), -1, -1), x[:, 1:]], dim=1)
        states = []
        for block in plain.blocks:
            x = block(x)
            states.append(x)
        intermediate, final = model.features(images())
    assert torch.allclose(final.flatten(2).transpose(1, 2), plain.norm(x)[:, 4:], atol=1e-5)
    which = round(20 / 24 * 3) - 1
    assert torch.allclose(intermediate.flatten(2).transpose(1, 2), states[which][:, 4:], atol=1e-5)


def test_dense_model_after_deepcopy_reads_its_own_features():
    model = dense("vit", "vpt(length=2)", "setr_pup(channels=8, auxiliary=1)")
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for weight in model.trainable_parameters():
            weight.add_(1.0)
        assert not torch.equal(model.features(images())[0], copied.features(images())[0])
        assert torch.equal(copied.features(images())[0], copy.deepcopy(copied).features(images())[0])


def test_dense_head_on_resnet_keeps_batch_norm_frozen():
    module = model_of("resnet")
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    model = attach(module, "linear", 5, head="fpn(channels=8)").train()
    model(images()).sum().backward()
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize(
    ("family", "head"), [("vit", SMALL), ("swin", "fpn(channels=8)"), ("resnet", "fpn(channels=8)")]
)
def test_dense_head_with_activation_checkpointing_gives_equal_gradients(family, head):
    method = "bias" if family == "resnet" else "vpt(length=3)"
    kept, recomputed = (step(dense(family, method, head, activation_checkpointing=flag)) for flag in (False, True))
    assert len(kept) == len(recomputed) and all(map(torch.equal, kept, recomputed))


@pytest.mark.parametrize("head", ["setr_pup(channels=8)", "setr_pup(channels=8, auxiliary=1)"])
def test_setr_pup_scores_before_upsampling_equal_scores_after(head):
    """The head classifies at half its resolution: enlarging and a linear layer per pixel commute."""
    model = dense("vit", "linear", head)
    main = model.head.main
    with torch.no_grad():
        x = main.norm(model.features(images())[-1])
        for stage in main.stages:
            x = nn.functional.interpolate(stage(x), scale_factor=2, mode="bilinear", align_corners=False)
        expected = main.scores(x)
        actual = nn.functional.interpolate(
            model.head(model.features(images())), scale_factor=2, mode="bilinear", align_corners=False
        )
    assert torch.allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "method", "head", "reason"),
    [
        ("vit", "mlp", "linear", "head of its own"),
        ("vit", "vpt(output=image_mean)", "linear", "leave output"),
        ("resnet", "vpt(location=pad, depth=shallow)", "fpn", "as a whole"),
        ("vit", "linear", "fpn", "several resolutions"),
        ("vit", "linear", "setr_pup(auxiliary=3)", "too few"),
        ("swin", "vpt(length=2, pool_prompts=true)", "fpn(channels=8)", "maps of"),
    ],
)
def test_dense_head_on_unsupported_backbone_or_method_is_refused(family, method, head, reason):
    with pytest.raises(UnsupportedError, match=reason):
        dense(family, method, head)


def test_predict_of_dense_model_is_refused(tmp_path):
    with pytest.raises(UnsupportedError, match="segments them"):
        predict(dense("vit", "linear", "linear"), [tmp_path / "any.jpg"], Callback())


@pytest.mark.parametrize("head", ["setr_pup(auxiliary=4)", "setr_pup(channels=0)", "fpn(dropout=1.0)", "setr"])
def test_dense_head_with_invalid_options_is_refused(head):
    with pytest.raises(SpecError):
        dense("vit", "linear", head)


@pytest.mark.parametrize(
    ("method", "paper"),
    [
        ("linear", 13.18e6),
        ("vpt(length=10)", 13.43e6),
        ("bias", 13.46e6),
        ("vpt(length=100) + bias", 15.79e6),
        ("full", 318.31e6),
    ],
)
def test_counts_of_setr_pup_on_vit_l_equal_the_paper(method, paper):
    """ViT-L/16, ADE20K's 150 classes, SETR-PUP with its three auxiliary heads, 512 px (paper, segmentation table)."""
    large = load_backbone("vit_large_patch16_224", image_size=512, device="meta")
    counts = attach(large, method, 150, head="setr_pup(auxiliary=3)").counts()
    assert abs(counts.trainable - paper) / paper < 0.02


def test_counts_by_component_of_setr_pup_equal_manual_counts():
    large = load_backbone("vit_large_patch16_224", image_size=512, device="meta")
    model = attach(large, "vpt(length=10)", 150, head="setr_pup(auxiliary=3)")
    first, other, scores = 9 * 1024 * 256, 9 * 256 * 256, 256 * 150 + 150
    main = 2 * 1024 + first + 3 * other + 4 * 2 * 256 + scores
    auxiliary = 2 * 1024 + first + other + 2 * 2 * 256 + scores
    assert model.counts_by_component() == {"head": main, "auxiliary": 3 * auxiliary, "method": 24 * 10 * 1024}
