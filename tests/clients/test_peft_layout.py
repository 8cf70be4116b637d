"""LoRA in PEFT's layout: what vpt writes loads in PEFT, and what PEFT saves loads here, with equal logits."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

from helpers.families import SIZE, TINY, backbone_of, images, model_of
from vpt import attach, parse_method
from vpt.conversion import read_peft, write_peft
from vpt.conversion.peft import CONFIG, SETTINGS, TENSORS
from vpt.errors import SpecError, StorageError, TunedFileError, UnsupportedError
from vpt.model.label_kinds import MultiLabel


def classifier_model() -> nn.Module:
    """The backbone of the family "vit" as timm makes it, with a classifier."""
    model = timm.create_model("vit_base_patch16_224", pretrained=False, num_classes=3, **TINY)
    model.load_state_dict(model_of("vit").state_dict(), strict=False)
    return model.eval()


def saved_by_peft(folder: Path, **options: Any) -> Any:
    torch.manual_seed(0)
    config = LoraConfig(**{"r": 2, "lora_alpha": 5, "target_modules": ["qkv"], "init_lora_weights": False, **options})
    model = get_peft_model(classifier_model(), config).eval()
    model.save_pretrained(str(folder))
    return model


@pytest.mark.parametrize(
    "method", ["lora(rank=2)", "lora(rank=3, alpha=7, targets=queries_values)", "lora(targets=all, rank_dropout=0.5)"]
)
@torch.no_grad()
def test_lora_that_vpt_writes_loads_in_peft(tmp_path: Path, method: str) -> None:
    torch.manual_seed(0)
    tuned = attach(backbone_of("vit"), method, 3).eval()
    for weight in tuned.trainable_parameters():
        weight.add_(0.1 * torch.randn_like(weight))
    write_peft(tuned, tmp_path)
    loaded = PeftModel.from_pretrained(classifier_model(), str(tmp_path)).eval()
    expected, plain = tuned(images()), classifier_model()(images())
    assert (loaded(images()) - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert not torch.allclose(plain, expected, atol=1e-2)


@pytest.mark.parametrize(
    ("options", "targets"),
    [
        ({}, "attention"),
        ({"target_modules": ["fc1", "fc2"], "use_rslora": True}, "mlp"),
        ({"target_modules": "all-linear", "exclude_modules": ["head"]}, "all"),
    ],
)
@torch.no_grad()
def test_lora_that_peft_saves_gives_equal_logits(tmp_path: Path, options: dict[str, Any], targets: str) -> None:
    saved = saved_by_peft(tmp_path, modules_to_save=["head"], **options)
    tuned = read_peft(tmp_path, backbone_of("vit"), ["a", "b", "c"])
    assert tuned.method.targets == targets and tuned.classes == ("a", "b", "c")  # type: ignore[attr-defined]
    expected = saved(images())
    assert (tuned(images()) - expected).abs().max() <= 1e-5 * expected.abs().max()


def transformers_model() -> nn.Module:
    """The backbone of the family "vit" as a ViT of transformers, with a classifier."""
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=128, image_size=SIZE,
        patch_size=8, num_labels=3, layer_norm_eps=1e-6, attn_implementation="eager",
    )  # fmt: skip
    model, source = ViTForImageClassification(config).eval(), model_of("vit").state_dict()
    renamed: dict[str, torch.Tensor] = {}
    for name, tensor in source.items():
        if ".qkv." in name:
            for letter, third in zip("qkv", tensor.chunk(3), strict=True):
                renamed[name.replace("attn.qkv", f"attention.{letter}_proj")] = third
        else:
            renamed[name] = tensor
    names = {
        "blocks.": "layers.", "attn.proj": "attention.o_proj", "norm1": "layernorm_before", "norm2": "layernorm_after",
        "cls_token": "embeddings.cls_token", "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
    }  # fmt: skip
    for old, new in names.items():
        renamed = {name.replace(old, new): tensor for name, tensor in renamed.items()}
    renamed = {re.sub(r"^norm\.", "layernorm.", name): tensor for name, tensor in renamed.items()}
    model.vit.load_state_dict(renamed)
    return model


@pytest.mark.parametrize(
    ("targets", "method"),
    [
        (["q_proj", "v_proj"], "lora(rank=2, alpha=5.0, targets=queries_values)"),
        (["q_proj"], "lora(rank=2, alpha=5.0)"),
        (["q_proj", "k_proj", "v_proj", "o_proj", "fc1"], "lora(rank=6, alpha=15.0, targets=all)"),
    ],
)
@pytest.mark.parametrize("older_names", [False, True])
@torch.no_grad()
def test_lora_of_a_vit_of_transformers_gives_equal_logits(
    tmp_path: Path, targets: list[str], method: str, older_names: bool
) -> None:
    torch.manual_seed(0)
    config = LoraConfig(
        r=2, lora_alpha=5, target_modules=targets, init_lora_weights=False, modules_to_save=["classifier"]
    )
    saved = get_peft_model(transformers_model(), config).eval()
    saved.save_pretrained(str(tmp_path))
    if older_names:  # those of transformers 4
        tensors = safetensors.torch.load_file(tmp_path / TENSORS)
        for new, old in {
            ".layers.": ".encoder.layer.", "q_proj": "attention.query", "k_proj": "attention.key",
            "v_proj": "attention.value", "o_proj": "output.dense", "mlp.fc1": "intermediate.dense",
        }.items():  # fmt: skip
            tensors = {name.replace(new, old): tensor for name, tensor in tensors.items()}
        safetensors.torch.save_file(tensors, tmp_path / TENSORS)
    tuned = read_peft(tmp_path, backbone_of("vit"), ["a", "b", "c"])
    assert tuned.method == parse_method(method)
    expected = saved(images()).logits
    assert (tuned(images()) - expected).abs().max() <= 1e-5 * expected.abs().max()


@torch.no_grad()
def test_lora_without_classifier_gets_a_head_of_zeros(tmp_path: Path) -> None:
    saved = saved_by_peft(tmp_path)
    with pytest.raises(SpecError, match="has no classifier; give the names of the classes"):
        read_peft(tmp_path, backbone_of("vit"))
    tuned = read_peft(tmp_path, backbone_of("vit"), ["a", "b"])
    expected = saved.base_model.model.forward_head(saved.base_model.model.forward_features(images()), pre_logits=True)
    assert (tuned.features(images()) - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert not tuned(images()).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_dora": True}, "has the tensor .*lora_magnitude_vector"),
        ({"bias": "lora_only"}, "has the tensor .*bias"),
        ({"rank_pattern": {"blocks.0.attn.qkv": 4}}, "has a rank_pattern"),
        ({"target_modules": ["patch_embed.proj"]}, "no such linear layer|no low-rank change of a linear layer|fit"),
    ],
)
def test_other_forms_of_lora_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    saved_by_peft(tmp_path, modules_to_save=["head"], **options)
    with pytest.raises(TunedFileError, match=message):
        read_peft(tmp_path, backbone_of("vit"))


def test_damaged_folders_are_refused(tmp_path: Path) -> None:
    saved_by_peft(tmp_path, modules_to_save=["head"])
    config, tensors = (tmp_path / CONFIG).read_text(), (tmp_path / TENSORS).read_bytes()
    for text, message in (
        ("[1]", "is damaged"),
        (json.dumps(json.loads(config) | {"peft_type": "IA3"}), "is of the method IA3"),
        (json.dumps(json.loads(config) | {"init_lora_weights": "pissa"}), "changes the backbone's own weights"),
    ):
        (tmp_path / CONFIG).write_text(text)
        with pytest.raises(TunedFileError, match=message):
            read_peft(tmp_path, backbone_of("vit"))
    (tmp_path / CONFIG).write_text(config)
    found = safetensors.torch.load(tensors)
    first = next(name for name in found if "lora_A" in name)
    for content, message in (
        (tensors[:-5], "is damaged"),
        (safetensors.torch.save(found | {first: torch.full_like(found[first], torch.nan)}), "holds NaN or infinity"),
        (safetensors.torch.save(found | {first: torch.zeros(2, 5)}), "does not fit"),
        (safetensors.torch.save({name: x for name, x in found.items() if name != first}), "one rank|ranks"),
    ):
        (tmp_path / TENSORS).write_bytes(content)
        with pytest.raises(TunedFileError, match=message):
            read_peft(tmp_path, backbone_of("vit"))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"lora_A": (0, 32)}, "has ranks .0, 2."),
        ({"lora_A": ()}, "has ranks .0, 2."),
        ({"lora_B": (1, 1)}, r"lora_B \(1, 1\) for \(96, 2\)"),
        ({"lora_B": ()}, r"lora_B \(\) for \(96, 2\)"),
        ({"head.weight": ()}, "no weight and bias of a linear classifier"),
        ({"head.bias": (1,)}, r"bias \(1,\) for \(3,\)"),
    ],
)
def test_tensors_of_other_shapes_are_refused(tmp_path: Path, shapes: dict[str, tuple[int, ...]], message: str) -> None:
    saved_by_peft(tmp_path, modules_to_save=["head"])
    found = safetensors.torch.load_file(tmp_path / TENSORS)
    for part, shape in shapes.items():
        found[next(name for name in found if part in name)] = torch.zeros(shape)
    safetensors.torch.save_file(found, tmp_path / TENSORS)
    with pytest.raises(TunedFileError, match=message):
        read_peft(tmp_path, backbone_of("vit"))


def test_queries_of_other_shapes_than_values_are_refused(tmp_path: Path) -> None:
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"])
    get_peft_model(transformers_model(), config).save_pretrained(str(tmp_path))
    found = safetensors.torch.load_file(tmp_path / TENSORS)
    found[next(name for name in found if "q_proj.lora_B" in name)] = torch.zeros(16, 2)
    safetensors.torch.save_file(found, tmp_path / TENSORS)
    with pytest.raises(TunedFileError, match=r"is no LoRA of a ViT of transformers: .* have the shapes .*\(16, 2\)"):
        read_peft(tmp_path, backbone_of("vit"), ["a"])


def test_classifier_without_weight_is_refused(tmp_path: Path) -> None:
    saved_by_peft(tmp_path, modules_to_save=["head"])
    found = safetensors.torch.load_file(tmp_path / TENSORS)
    safetensors.torch.save_file({k: x for k, x in found.items() if "head.weight" not in k}, tmp_path / TENSORS)
    with pytest.raises(TunedFileError, match="no weight and bias of a linear classifier"):
        read_peft(tmp_path, backbone_of("vit"))


@pytest.mark.parametrize("saved", [["head", "head_dist"], ["head"], ["classifier"]])
def test_classifier_of_a_model_with_two_is_refused(tmp_path: Path, saved: list[str]) -> None:
    saved_by_peft(tmp_path, modules_to_save=["head"])
    found = safetensors.torch.load_file(tmp_path / TENSORS)
    for name in [name for name in found if ".head." in name]:
        tensor = found.pop(name)
        found |= {name.replace(".head.", f".{other}."): tensor.clone() for other in saved}
    safetensors.torch.save_file(found, tmp_path / TENSORS)
    with pytest.raises(TunedFileError, match=rf"several classifiers \({', '.join(saved)} here\), for which"):
        read_peft(tmp_path, backbone_of("vit-distilled"))
    safetensors.torch.save_file({k: x for k, x in found.items() if "lora" in k}, tmp_path / TENSORS)
    assert not read_peft(tmp_path, backbone_of("vit-distilled"), ["a"]).head.weight.any()


def test_two_classifiers_for_a_model_with_one_are_refused(tmp_path: Path) -> None:
    saved_by_peft(tmp_path, modules_to_save=["head"])
    found = safetensors.torch.load_file(tmp_path / TENSORS)
    found |= {name.replace(".head.", ".classifier."): x.clone() for name, x in found.items() if ".head." in name}
    safetensors.torch.save_file(found, tmp_path / TENSORS)
    with pytest.raises(TunedFileError, match=r"several classifiers \(classifier, head here\), for which"):
        read_peft(tmp_path, backbone_of("vit"))


def test_alpha_as_text_is_a_number_and_others_are_refused(tmp_path: Path) -> None:
    saved_by_peft(tmp_path, modules_to_save=["head"])
    config = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps(config | {"lora_alpha": "8"}))
    assert read_peft(tmp_path, backbone_of("vit")).method.alpha == 8  # type: ignore[attr-defined]
    for alpha in (math.nan, 0, -1, 10**400):
        (tmp_path / CONFIG).write_text(json.dumps(config | {"lora_alpha": alpha}))
        with pytest.raises(TunedFileError, match="is damaged"):
            read_peft(tmp_path, backbone_of("vit"))


@torch.no_grad()
def test_lora_keeps_kind_of_labels_classes_and_preprocessing(tmp_path: Path) -> None:
    backbone = backbone_of("vit")
    images_of = replace(backbone.preprocessing, resize="crop", interpolation="nearest", mean=(0.1, 0.2, 0.3))
    tuned = attach(replace(backbone, preprocessing=images_of), "lora(rank=2)", 3, classes=["a", "b", "c"]).eval()
    tuned.label_kind = MultiLabel((0.2, 0.3, 0.4))
    write_peft(tuned, tmp_path)
    again = read_peft(tmp_path, backbone)
    assert (again.label_kind, again.classes) == (tuned.label_kind, ("a", "b", "c"))
    assert again.backbone.preprocessing == images_of != backbone.preprocessing
    assert read_peft(tmp_path, backbone, ["d", "e", "f"]).classes == ("d", "e", "f")
    text = (tmp_path / SETTINGS).read_text()
    for content, message in (
        ("{}", "is damaged"),
        (text.replace("nearest", "none"), "interpolation 'none' is unknown"),
        (text.replace(f'"size": {images_of.size}', '"size": 48'), "is of 3 channels of 48 px, and .* image_size=48"),
    ):
        (tmp_path / SETTINGS).write_text(content)
        with pytest.raises(TunedFileError, match=message):
            read_peft(tmp_path, backbone)


def test_interrupted_write_leaves_no_lora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned, full = attach(backbone_of("vit"), "lora(rank=2)", 3).eval(), StorageError("the disk is full")
    write_peft(tuned, tmp_path)

    def write(path: Path, content: bytes) -> None:
        if path.name != TENSORS:
            raise full
        path.write_bytes(content)

    monkeypatch.setattr("vpt.conversion.peft.write_atomic", write)
    with pytest.raises(StorageError, match="the disk is full"):
        write_peft(attach(backbone_of("vit"), "lora(rank=3)", 3), tmp_path)
    with pytest.raises(TunedFileError, match=r"adapter_config\.json does not exist"):
        read_peft(tmp_path, backbone_of("vit"))


def test_other_methods_are_no_lora_of_peft(tmp_path: Path) -> None:
    for method in ("vpt(length=2)", "lora + bias"):
        with pytest.raises(UnsupportedError, match="is not LoRA"):
            write_peft(attach(backbone_of("vit"), method, 3), tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
