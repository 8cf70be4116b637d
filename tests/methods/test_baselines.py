"""Every baseline computes what it says: its formula is written here anew with plain tensors and timm's forward pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, linear, relu

from helpers.families import backbone_of, images, model_of
from helpers.references import LABELS, compare, trainable_tensors, tuned
from vpt import attach


@pytest.mark.parametrize("family", ["vit", "vit-avg", "dinov2-reg", "swin"])
@pytest.mark.parametrize("method", ["adapter(reduction=4)", "adaptformer(bottleneck=5, scale=0.3)"])
def test_adapters_on_each_family_equal_reference(method: str, family: str) -> None:
    # In fp64: a ReLU near its kink turns rounding into another gradient.
    model = tuned(family, method, scale=0.3).double()
    plain: Any = model_of(family).double()
    paths = [name for name, _ in plain.named_modules() if name.endswith(".mlp")]
    weights = model.trainable_state_dict()

    def hook(path: str) -> Any:
        part = "adapter" if method.startswith("adapter") else "branch"
        down, down_bias, up, up_bias = (
            weights[f"{path}.{part}.{name}"] for name in ("down.weight", "down.bias", "up.weight", "up.bias")
        )

        def change(mlp: nn.Module, args: tuple[Tensor], out: Tensor) -> Tensor:
            if part == "adapter":
                return out + linear(gelu(linear(out, down, down_bias)), up, up_bias)
            return out + 0.3 * linear(relu(linear(args[0], down, down_bias)), up, up_bias)

        return change

    for path in paths:
        plain.get_submodule(path).register_forward_hook(hook(path))
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
    model = tuned(family, "sidetune(network=test_convnext)", scale=0.05)
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
