"""The maps are the attention the models really compute."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from helpers.families import SIZE, backbone_of, images, model_of
from vpt import METHODS, SpecError, TunedModel, UnsupportedError, attach, load_backbone, save
from vpt.analysis.attention_maps import AttentionMaps, BlockAttention, draw, explain, record_attention, rollout
from vpt.attention.detection import FeatureExtractor, structural_copy
from vpt.attention.kv_attention import KVAttention
from vpt.cli.explain import command
from vpt.errors import DataError

KINDS = ("vit", "dinov2-reg", "dinov3-cls", "beit")
P = 3
PATCHES_PER_SIDE = SIZE // 8  # patches along one side


@pytest.fixture(scope="module")
def image_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image file of noise."""
    path = tmp_path_factory.mktemp("image") / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 48, 3), dtype=np.uint8)).save(path)
    return path


def tuned(kind: str, method: str) -> TunedModel:
    """With prompts that are large enough to be looked at."""
    torch.manual_seed(0)
    model = attach(backbone_of(kind), method, 3).eval()
    with torch.no_grad():
        for weight in model.added_modules.parameters():
            weight.normal_()
    return model


def record_blocks(network: nn.Module, trunk: nn.Module, model: TunedModel) -> list[BlockAttention]:
    found = record_attention(trunk, model.layout)
    with torch.no_grad():
        network(images(1))
    return found


def record_tuned_blocks(model: TunedModel) -> list[BlockAttention]:
    copy = structural_copy(model, num_classes=None)
    assert isinstance(copy, TunedModel)
    return record_blocks(copy, copy.trunk, model)


def assert_close(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_record_attention_of_frozen_model_equals_timm_weights(kind: str) -> None:
    """timm's unfused attention lays its weights bare: they pass through `attn_drop`."""
    model: Any = model_of(kind)
    theirs: list[Tensor] = []
    for block in model.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_pre_hook(lambda _, args: theirs.append(args[0]))
    linear = tuned(kind, "linear")
    with torch.no_grad():
        model(images(1))
    frozen = FeatureExtractor(structural_copy(linear.backbone.module))
    for ours, block in zip(record_blocks(frozen, frozen.trunk, linear), theirs, strict=True):
        assert_close(ours.weights, block[0].double().mean(0))


@pytest.mark.parametrize("method", ["vpt(length=3)", 'vpt(length=3, impl="concat")', 'vpt(length=3, depth="shallow")'])
@pytest.mark.parametrize("kind", KINDS)
def test_attention_weights_with_prompts_reproduce_the_attention_output(kind: str, method: str) -> None:
    """weights @ v, through the output projection, is the output; rows sum to 1."""
    model = tuned(kind, method)
    compared: list[int] = []

    def compare(module: nn.Module, args: tuple[Tensor], context: dict[str, Any], out: Tensor) -> None:
        reader = module if isinstance(module, KVAttention) else KVAttention(module)
        part: Any = reader.attention
        weights = reader.attention_weights(*args, **context)
        assert_close(weights.sum(-1), 1)
        read = args[0] if reader.kv_prompts is None else torch.cat([args[0], reader.kv_prompts(args[0])[None]], 1)
        bias = part.qkv.bias[64:] if part.qkv.bias is not None else part.v_bias
        v = nn.functional.linear(read, part.qkv.weight[64:], bias).unflatten(-1, (2, -1)).transpose(1, 2)
        answer = part.proj((weights @ v).transpose(1, 2).flatten(2))
        assert_close(out, answer[:, : out.shape[1]])
        compared.append(weights.shape[-1])

    for part in model.network.modules():
        if hasattr(part, "attn"):
            part.attn.register_forward_hook(compare, with_kwargs=True)
    with torch.no_grad():
        model(images(1))
    assert compared == [model.layout.num_tokens + P] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_rollout_with_and_without_prompts_equals_the_matrix_product(kind: str) -> None:
    model = tuned(kind, "vpt(length=3)")
    n, prefix = model.layout.num_tokens, model.layout.num_prefix_tokens
    frozen = FeatureExtractor(structural_copy(model.backbone.module))
    before = record_blocks(frozen, frozen.trunk, model)
    ours = rollout(before, prefix, n - prefix)
    assert_close(ours, _product([block.weights for block in before]))
    assert_close(ours.sum(1), 1)

    # With prompts, as the paper writes them down: tokens like others, new ones in every block.
    textbook = record_tuned_blocks(tuned(kind, 'vpt(length=3, impl="concat")'))
    image = [*range(prefix), *range(prefix + P, n + P)]
    expected = _product([block.weights for block in textbook], image)
    assert_close(rollout(textbook, prefix, n - prefix)[image], expected)
    assert_close(rollout(record_tuned_blocks(model), prefix, n - prefix), expected)
    assert (expected.sum(1) < 0.99).all()

    # Prompts that travel are tokens from the first block to the last.
    shallow = record_tuned_blocks(tuned(kind, 'vpt(length=3, depth="shallow")'))
    assert_close(rollout(shallow, prefix, n - prefix), _product([block.weights for block in shallow])[:, image])


def _product(matrices: Sequence[NDArray[np.float64]], kept: Sequence[int] | None = None) -> NDArray[np.float64]:
    """Written anew, block by block, one entry at a time; `kept`: the tokens that pass from block to block."""
    result: NDArray[np.float64] | None = None
    for weights in matrices:
        n = len(weights)
        mixed = np.array([[(weights[i, j] + (i == j)) / 2 for j in range(n)] for i in range(n)])
        mixed = mixed[np.ix_(kept, kept)] if kept is not None else mixed
        result = mixed if result is None else np.einsum("ij,jk->ik", mixed, result)
    assert result is not None
    return result


@pytest.mark.parametrize("kind", KINDS)
def test_explain_with_kv_and_concat_prompts_gives_equal_maps(kind: str, image_file: Path) -> None:
    exact, textbook = (
        explain(tuned(kind, f'vpt(length=3, impl="{impl}")'), image_file, block=2).tuned for impl in ("kv", "concat")
    )
    for name in ("attention", "prefix", "prompts", "rollout", "patch_to_prompt"):
        assert_close(getattr(exact, name), getattr(textbook, name))
    assert exact.prompt_to_patch.shape == (0, PATCHES_PER_SIDE, PATCHES_PER_SIDE)  # keys alone do not ask
    assert textbook.prompt_to_patch.shape == (P, PATCHES_PER_SIDE, PATCHES_PER_SIDE)


@pytest.mark.parametrize("name", METHODS)
def test_explain_of_every_method_gives_maps(name: str, image_file: Path) -> None:
    specs = {"sidetune": "sidetune(network=test_convnext)", "adapter": "adapter(reduction=4)"}
    model = attach(backbone_of("vit"), specs.get(name, name), 3, classes=("a", "b", "c"))
    explanation = explain(model, image_file)
    assert np.isfinite(explanation.tuned.attention).all()
    assert (max(explanation.prompt_shares) > 0) == (name in ("vpt", "adaptive", "prefix", "gated"))


@pytest.mark.parametrize("block", [1, 2, 3, None])
@pytest.mark.parametrize("method", ["vpt(length=3)", 'vpt(length=3, depth="shallow")', 'vpt(length=3, depth="2-2")'])
def test_explain_with_prompts_gives_attention_with_sum_one(method: str, block: int | None, image_file: Path) -> None:
    found = explain(tuned("dinov2-reg", method), image_file, block)
    for maps in (found.frozen, found.tuned):
        assert maps.attention.shape == maps.rollout.shape == (PATCHES_PER_SIDE, PATCHES_PER_SIDE)
        assert_close(maps.attention.sum() + maps.prefix + maps.prompts.sum(), 1)
    there = not (block == 1 and "2-2" in method)
    assert len(found.tuned.prompts) == len(found.tuned.patch_to_prompt) == P * there
    assert (found.block, found.query) == (block or 3, "class token")


def test_explain_of_linear_model_gives_equal_frozen_and_tuned_maps(image_file: Path) -> None:
    found = explain(tuned("vit", "linear"), image_file)
    for name in AttentionMaps.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(found.frozen, name), getattr(found.tuned, name))


@pytest.mark.parametrize(
    ("kind", "method", "query"),
    [
        ("siglip", "vpt", "mean over patches"),  # has no class token
        ("beit", "vpt", "mean over patches"),  # has one that the head does not read
        ("beit", "vpt(output=cls)", "class token"),
        ("vit", "vpt(output=image_mean)", "mean over patches"),
        ("vit-distilled", "vpt", "class token"),
        ("eva02-unfused", "vpt", "class token"),
        ("beit-shared", 'vpt(depth="shallow")', "class token"),
        ("rope-mixed", "gated", "class token"),
        ("vit", "lora", "class token"),
        ("vit", "full", "class token"),
        ("vit", "ssf + vpt(location=prepend_pixel, depth=shallow)", "class token"),
    ],
)
def test_explain_of_each_pooling_uses_the_query_of_the_head(
    kind: str, method: str, query: str, image_file: Path
) -> None:
    found = explain(tuned(kind, method), image_file)
    assert found.query == query
    assert_close(found.tuned.attention.sum() + found.tuned.prefix + found.tuned.prompts.sum(), 1)


def test_explain_of_brightness_attention_highlights_the_bright_patch(tmp_path: Path) -> None:
    """A model made to attend to brightness, and to nothing else."""
    backbone: Any = backbone_of("vit")
    model = backbone.module
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        model.patch_embed.proj.weight[0] = 1 / 192  # channel 0: the mean over a patch
        for block in model.blocks:
            block.norm1 = nn.Identity()
            block.attn.qkv.bias[0] = 10.0  # every query asks for channel 0 ...
            block.attn.qkv.weight[32, 0] = 10.0  # ... which is what keys show
    pixels = np.zeros((SIZE, SIZE, 3), dtype=np.uint8)
    pixels[8:16, 16:24] = 255
    Image.fromarray(pixels).save(tmp_path / "bright.png")
    found = explain(attach(backbone, "linear", 2), tmp_path / "bright.png")
    for values in (found.frozen.attention, found.frozen.rollout):
        assert np.unravel_index(values.argmax(), values.shape) == (1, 2)
    assert found.frozen.attention[1, 2] > 0.4


def test_explain_of_a_model_leaves_it_unchanged(image_file: Path) -> None:
    model = tuned("vit", "vpt(length=3)").train()
    before = [(name, id(module), module.training) for name, module in model.named_modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    explain(model, image_file)
    assert before == [(name, id(module), module.training) for name, module in model.named_modules()]
    assert not any(module._forward_pre_hooks for module in (*model.modules(), *model.backbone.module.modules()))
    assert all(weight.requires_grad for weight in model.trainable_parameters())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name])


def test_explain_with_unusable_input_is_refused(image_file: Path, tmp_path: Path) -> None:
    for kind in ("resnet", "swin", "vit-parallel"):
        with pytest.raises(UnsupportedError, match=r"take occlusion, .* or use a plain transformer: ViT"):
            explain(tuned(kind, "linear"), image_file)
    model = tuned("vit", "linear")
    with pytest.raises(SpecError, match="blocks 1 to 3"):
        explain(model, image_file, block=4)
    with pytest.raises(DataError, match="no such file"):
        explain(model, tmp_path / "none.png")
    with pytest.raises(SpecError, match=r"is not the name of a picture; end it in \.png or \.svg"):
        draw(explain(model, image_file), tmp_path / "maps.jpg")


def test_explain_command_writes_image_and_prints_summary(
    image_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    classes = ("disc", "bars")
    for method in ("linear", 'vpt(length=2, depth="shallow")'):
        save(attach(load_backbone(), method, 2, classes=classes), f"{method[:3]}.safetensors")
    run("lin.safetensors", image_file, "--block", 3, "--out", "maps.svg")
    assert "<svg" in Path("maps.svg").read_text()
    text = capsys.readouterr().out
    assert "the class token in block 3 attends to:" in text
    assert "prompt" not in text
    run("vpt.safetensors", image_file)
    with Image.open("noise-explained.png") as drawn:
        assert min(drawn.size) > 400
    assert "each prompt" in capsys.readouterr().out
    run("vpt.safetensors", image_file, "--json")
    found = json.loads(capsys.readouterr().out)
    shares = found["tuned"]
    assert len(shares["prompts"]) == 2 and found["class"] in classes and found["picture"] == "noise-explained.png"
    assert shares["patches"] + shares["prefix"] + sum(shares["prompts"]) == pytest.approx(1)
    assert len(found["prompt_shares"]) == found["block"] and min(found["prompt_shares"]) > 0
    assert found["prompt_shares"][-1] == pytest.approx(sum(shares["prompts"]))
    with pytest.raises(SpecError, match=r"is not the name of a picture; end it in \.png or \.svg"):
        run("vpt.safetensors", image_file, "--out", "maps.jpg")


def run(*args: object) -> None:
    command.main([str(arg) for arg in args], standalone_mode=False)
