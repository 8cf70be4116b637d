"""Every baseline computes what it says: its formula is written here anew with plain tensors and timm's forward pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, linear, relu
from torchvision.models import alexnet

import vpt
from helpers.families import backbone_of, images, model_of
from helpers.references import LABELS, compare, trainable_tensors, tuned
from vpt import Full, attach, inspect, load, load_backbone, save
from vpt.errors import BackboneError, SpecError, UnsupportedError


@pytest.mark.parametrize("family", ["vit", "vit-avg", "dinov2-reg", "swin"])
@pytest.mark.parametrize(
    "method",
    [
        "adapter(reduction=4)",
        "adaptformer(bottleneck=5, scale=0.3)",
        "adaptformer(bottleneck=5, scale=0.3, before_norm=false)",
    ],
)
def test_adapters_on_each_family_equal_reference(method: str, family: str) -> None:
    # In fp64: a ReLU near its kink turns rounding into another gradient.
    model = tuned(family, method, scale=0.3).double()
    plain: Any = model_of(family).double()
    paths = [name for name, _ in plain.named_modules() if name.endswith(".mlp")]
    weights = model.trainable_state_dict()
    residual: dict[str, Tensor] = {}  # what the norm before each MLP reads

    def hook(path: str) -> Any:
        part = "adapter" if method.startswith("adapter") else "branch"
        down, down_bias, up, up_bias = (
            weights[f"{path}.{part}.{name}"] for name in ("down.weight", "down.bias", "up.weight", "up.bias")
        )

        def change(mlp: nn.Module, args: tuple[Tensor], out: Tensor) -> Tensor:
            if part == "adapter":
                return out + linear(gelu(linear(out, down, down_bias)), up, up_bias)
            x = args[0] if "before_norm=false" in method else residual[path]
            return out + 0.3 * linear(relu(linear(x, down, down_bias)), up, up_bias)

        return change

    for path in paths:
        plain.get_submodule(path).register_forward_hook(hook(path))
        norm = plain.get_submodule(path.replace(".mlp", ".norm2"))
        norm.register_forward_pre_hook(lambda _, args, path=path: residual.update({path: args[0]}))
    compare(model, lambda x: model.head(plain.forward_head(plain.forward_features(x), pre_logits=True)))


def test_adapter_with_zero_init_trains_only_its_up_bias() -> None:
    model = attach(backbone_of("vit"), "adapter(init=zero)", 3).train()
    cross_entropy(model(images()), LABELS).backward()
    learns = {
        name for name, weight in model.trainable_state_dict().items() if weight.grad is not None and weight.grad.any()
    }
    assert {name.split("adapter.")[1] for name in learns if "adapter" in name} == {"up.bias"}


@pytest.mark.parametrize("family", ["vit", "swin", "convnext"])
def test_sidetune_on_each_family_equals_reference(family: str) -> None:
    model = tuned(family, "sidetune(network=test_convnext, bias=true)", scale=0.05)
    plain: Any = model_of(family)
    (alpha,), (weight,), (bias,) = (
        trainable_tensors(model, "alpha"),
        trainable_tensors(model, "projection.weight"),
        trainable_tensors(model, "projection.bias"),
    )
    side: Any = model.network.side

    def reference(x: Tensor) -> Tensor:
        frozen = plain.forward_head(plain.forward_features(x), pre_logits=True)
        gate = 1 / (1 + torch.exp(-alpha))
        return model.head(gate * frozen + (1 - gate) * linear(side(x), weight, bias))

    compare(model, reference)


@pytest.mark.parametrize("layout", ["whole", "features", "pth"])
def test_sidetune_with_torchvision_weights_begins_at_them(layout: str, tmp_path: Path) -> None:
    source = alexnet().eval()  # random, in the layout of torchvision's file, whose classifier nothing reads
    state = source.state_dict()
    path = tmp_path / ("alexnet.pth" if layout == "pth" else "alexnet.safetensors")
    if layout == "pth":
        torch.save(state, path)
    else:
        save_file({key: x for key, x in state.items() if layout == "whole" or key.startswith("features.")}, path)
    backbone = load_backbone("vit_tiny_patch16_224", pretrained=False)
    model = attach(backbone, f'sidetune(weights="{path}")', 3)
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    expected = source.avgpool(source.features(image)).flatten(1)
    assert expected.shape == (1, 9216)
    assert torch.equal(model.network.side(image), expected)
    assert [tuple(x.shape) for x in trainable_tensors(model, "projection")] == [(192, 9216)]


def test_sidetune_with_weights_of_another_network_is_refused(tmp_path: Path) -> None:
    state = alexnet().state_dict()
    save_file({key: x for key, x in state.items() if key != "features.10.bias"}, tmp_path / "a.safetensors")
    with pytest.raises(BackboneError, match=r"does not fit AlexNet; missing in the file: features\.10\.bias"):
        attach("vit_nano_patch12_48", f'sidetune(weights="{tmp_path}/a.safetensors")', 3)


def test_load_of_sidetune_without_its_first_weights_gives_the_same_logits(tmp_path: Path) -> None:
    first = tmp_path / "side.safetensors"
    side = timm.create_model("test_convnext", num_classes=0)
    save_file(side.state_dict(), first)
    backbone = backbone_of("vit")
    model = attach(backbone, f'sidetune(network=test_convnext, weights="{first}") + bias', 3).eval()
    assert torch.equal(model.network.side(images()), side.eval()(images()))
    save(model, tmp_path / "tuned.safetensors")
    first.unlink()
    loaded = load(tmp_path / "tuned.safetensors", backbone)
    assert torch.equal(loaded(images()), model(images()))
    assert f'weights="{first}"' in inspect(tmp_path / "tuned.safetensors").method


@pytest.mark.parametrize("family", ["vit", "swin", "convnext"])
def test_full_with_drop_path_drops_branches_of_later_blocks_more_often(family: str) -> None:
    """As timm's own models with this rate: rates from 0 in the first block to 0.5 in the last, none in evaluation."""
    model, plain = attach(backbone_of(family), "full(drop_path=0.5)", 3), model_of(family)
    blocks = list(model.layout.blocks)
    for index, path in enumerate(blocks):
        layers = [layer for name, layer in model.wrappers().items() if name.startswith(f"{path}.drop_path")]
        assert len(layers) == (0 if index == 0 else 1 if family == "convnext" else 2)
        for layer in layers:
            torch.manual_seed(0)
            kept = layer.train()(torch.ones(20000, 1, 1)).flatten()
            rate = 0.5 * index / (len(blocks) - 1)
            assert float((kept == 0).float().mean()) == pytest.approx(rate, abs=0.02)
            assert float(kept.max()) == pytest.approx(1 / (1 - rate))
    with torch.no_grad():
        frozen = plain.forward_head(plain.forward_features(images()), pre_logits=True)
        assert torch.allclose(model.eval().features(images()), frozen, atol=1e-5)
        assert not torch.allclose(model.train().features(images()), frozen, atol=1e-2)


def test_full_with_dropout_is_merged_and_named_without_effect_on_earlier_ids() -> None:
    model = attach(backbone_of("vit"), "full(dropout=0.1)", 3).eval()
    timm_model = model_of("vit")
    timm_model.reset_classifier(3)
    timm_model.load_state_dict(model.merge())
    with torch.no_grad():
        assert torch.allclose(timm_model(images()), model(images()), atol=1e-5)
    assert model.method.spec(full=True) == "full(dropout=0.1, drop_path=0.0)"
    assert Full().spec(full=True) == "full"


@pytest.mark.parametrize("option", ["dropout", "drop_path"])
def test_full_with_dropout_on_resnet_is_refused(option: str) -> None:
    with pytest.raises(UnsupportedError, match=f"leave {option} at 0"):
        attach(backbone_of("resnet"), f"full({option}=0.1)", 3)
    with pytest.raises(SpecError, match=f"{option} is 1.0; it must be at least 0 and below 1"):
        Full(**{option: 1.0})


@pytest.mark.parametrize("layers", [2, 3, 5])
def test_mlp_of_each_depth_equals_reference(layers: int) -> None:
    model = tuned("vit", f"mlp(layers={layers})", scale=0.2).eval()
    plain: Any = model_of("vit")
    state = model.trainable_state_dict()

    def reference(x: Tensor) -> Tensor:
        x = plain.forward_head(plain.forward_features(x), pre_logits=True)
        for start in range(0, 4 * (layers - 1), 4):
            x = relu(linear(x, state[f"head.{start}.weight"], state[f"head.{start}.bias"]))
            mean, var = state[f"head.{start + 2}.running_mean"], state[f"head.{start + 2}.running_var"]
            x = (x - mean) / (var + 1e-5).sqrt() * state[f"head.{start + 2}.weight"] + state[f"head.{start + 2}.bias"]
        last = 4 * (layers - 1)
        return linear(x, state[f"head.{last}.weight"], state[f"head.{last}.bias"])

    compare(model, reference)


def test_mlp_with_a_batch_of_one_trains() -> None:
    model = attach(backbone_of("vit"), "mlp", 3).train()
    cross_entropy(model(images(1)), LABELS[:1]).backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.trainable_parameters())


def test_lora_on_queries_and_values_leaves_keys() -> None:
    model = tuned("vit", "lora(rank=2, alpha=3, targets=queries_values)", scale=0.2)
    merged, plain = model.merge(), model_of("vit").state_dict()
    changed = {name for name, tensor in plain.items() if not torch.equal(tensor, merged[name])}
    assert changed == {f"blocks.{index}.attn.qkv.weight" for index in range(3)}
    for name in changed:
        (query, key, value), (old_query, old_key, old_value) = merged[name].chunk(3), plain[name].chunk(3)
        assert torch.equal(key, old_key)
        assert all(torch.linalg.matrix_rank(x) == 2 for x in (query - old_query, value - old_value))
    unfused = tuned("eva02-unfused", "lora(rank=2, targets=queries_values)")
    names = {name.split(".")[-2] for name in unfused.trainable_state_dict() if name.endswith(".up")}
    assert names == {"q_proj", "v_proj"}


def test_sum_of_adaptformer_before_ssf_names_the_order() -> None:
    with pytest.raises(UnsupportedError, match="an earlier term of the sum has replaced the layer; write that term"):
        attach(backbone_of("vit"), "adaptformer + ssf", 3)
    attach(backbone_of("vit"), "ssf + adaptformer", 3)


@pytest.mark.parametrize("targets", ["attention", "mlp", "all"])
@pytest.mark.parametrize("family", ["vit", "dinov3-cls", "eva02-unfused", "beit", "swin"])
def test_lora_on_each_target_equals_reference(family: str, targets: str) -> None:
    model = tuned(family, f"lora(rank=2, alpha=3, targets={targets})", scale=0.2)
    plain: Any = model_of(family)
    paths = [name[: -len(".down")] for name in model.trainable_state_dict() if name.endswith(".down")]
    parts = {path.rsplit(".", 2)[-2] for path in paths}
    assert parts == {"attention": {"attn"}, "mlp": {"mlp"}, "all": {"attn", "mlp"}}[targets]
    changed = {}
    for path in paths:
        layer = plain.get_submodule(path)
        down, up = model.trainable_state_dict()[f"{path}.down"], model.trainable_state_dict()[f"{path}.up"]
        changed[f"{path}.weight"] = layer.weight + 1.5 * up @ down

    def reference(x: Tensor) -> Tensor:
        class Whole(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.plain = plain

            def forward(self, x: Tensor) -> Tensor:
                return plain.forward_head(plain.forward_features(x), pre_logits=True)

        weights = {f"plain.{name}": weight for name, weight in changed.items()}
        return model.head(torch.func.functional_call(Whole(), weights, (x,)))

    compare(model, reference)


@pytest.mark.parametrize("method", [
    "vpt(location=prepend_pixel, depth=shallow, length=2)", "vpt(location=concat_channel, depth=shallow, length=2)",
    "vpt(location=pad, depth=shallow, length=2)", "sidetune(network=test_convnext)",
])  # fmt: skip
def test_methods_in_pixels_train_on_a_backbone_in_bf16(method: str) -> None:
    model = attach(load_backbone("test_vit", pretrained=False, dtype=torch.bfloat16), method, 3)
    model(torch.randn(2, 3, 160, 160, dtype=torch.bfloat16)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.trainable_parameters())


def test_side_network_outside_the_list_of_timm_is_refused() -> None:
    with pytest.raises(
        SpecError, match="network is 'hf-hub:someone/model'; give alexnet, or the name of one of timm's"
    ):
        vpt.parse_method('sidetune(network="hf-hub:someone/model")')


@pytest.mark.parametrize("first", ["sidetune(network=test_convnext)", "vpt(location=pad, depth=shallow)"])
def test_head2toe_behind_a_replaced_network_is_refused(first: str) -> None:
    with pytest.raises(UnsupportedError, match="another method of the sum replaces the network"):
        attach(backbone_of("vit"), f"{first} + head2toe", 3)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("tiny_vit_5m_224", "attn.qkv .Attention. makes queries, keys and"),
        ("pvt_v2_b0", "attn makes queries in q, and no layer there is known to make values"),
    ],
)
def test_lora_of_queries_and_values_in_unknown_layers_is_refused(name: str, reason: str) -> None:
    model = timm.create_model(name, pretrained=False, num_classes=0, depths=(1, 1, 1, 1))
    with pytest.raises(UnsupportedError, match=reason):
        attach(model, "lora(rank=2, targets=queries_values)", 3)
