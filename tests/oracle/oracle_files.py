"""Oracle files: what the authors' own code computes, and the comparison of a method of vpt with it.

scripts/oracles/ writes the files; scripts/oracles/authors.py describes their tensors.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open
from torch import Tensor, nn

from vpt import TunedModel, attach, load_backbone

FILES = Path(__file__).parent / "files"
TOLERANCE = 1e-5  # of the largest value of a tensor
CLASSES = 5

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Oracle:
    """The content of a file: tensors by name, and the source: repository, commit, files and their SHA-256."""

    tensors: Tensors
    source: Mapping[str, Any]

    def group(self, name: str) -> Tensors:
        """The tensors NAME/..., without the prefix."""
        return {key.removeprefix(f"{name}/"): x for key, x in self.tensors.items() if key.startswith(f"{name}/")}


def read_oracle(name: str) -> Oracle:
    with safe_open(FILES / f"{name}.safetensors", "pt") as file:
        return Oracle({key: file.get_tensor(key) for key in file.keys()}, json.loads(file.metadata()["source"]))  # noqa: SIM118


def assert_close(name: str, actual: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    """Equal within a tolerance of the largest value, which is not zero."""
    assert actual.shape == expected.shape, name
    largest = float(expected.abs().max())
    assert largest > 0, f"{name} is zero in the oracle, so that anything would be equal to it"
    error = float((actual - expected).detach().abs().max()) / largest
    assert error <= tolerance, f"{name} differs by {error:.1e} of its largest value"


def attach_with_weights(module: nn.Module, method: str, weights: Tensors, *, size: int | None = None) -> TunedModel:
    """Attach a method to a timm model and load the authors' weights, all of them and into every tensor.

    Args:
        module: A timm model without classifier.
        method: Text of the method.
        weights: Every tensor of the backbone and every learned one, under the names of timm and of the tuned model.
        size: Side of the images of a ConvNet, which has none of its own.
    """
    own = module.state_dict()
    with torch.no_grad():
        for name, tensor in own.items():
            if name.endswith("num_batches_tracked"):
                continue
            assert name in weights, f"the oracle has no {name}"
            tensor.copy_(weights[name])
    backbone = load_backbone(module.eval())
    if size is not None:
        backbone = replace(backbone, preprocessing=replace(backbone.preprocessing, size=size))
    model = attach(backbone, method, CLASSES).eval()
    trainable = model.trainable_state_dict()
    counters = {name: tensor for name, tensor in trainable.items() if name.endswith("num_batches_tracked")}
    model.load_trainable_state_dict(
        {name: weights[name.removeprefix("backbone.")] for name in trainable.keys() - counters} | counters
    )
    unused = weights.keys() - {name.removeprefix("backbone.") for name in trainable} - own.keys()
    assert not unused, f"the authors have tensors that this model lacks: {sorted(unused)}"
    return model


def gradients_of(model: TunedModel, loss: Tensor) -> Tensors:
    """The gradient of every parameter that trains, under its name in the backbone or in the tuned file."""
    parameters = {
        name.removeprefix("backbone."): tensor
        for name, tensor in model.trainable_state_dict().items()
        if isinstance(tensor, nn.Parameter)
    }
    return dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))


def assert_equal_to_oracle(
    model: TunedModel,
    oracle: Oracle,
    gradients: Tensors,
    *,
    also_learned: Sequence[str] = (),
    gradient_tolerance: float = TOLERANCE,
) -> None:
    """Features, logits and gradients of the model equal the authors', and the same tensors learn.

    Args:
        model: The model with the authors' weights, in the mode that the authors' was in.
        oracle: The file.
        gradients: The authors' gradients under the names of the model.
        also_learned: Tensors that learn here alone; the test says why.
        gradient_tolerance: Tolerance of the gradients.
    """
    features = model.features(oracle.tensors["images"])
    logits = model.readout.resize_logits(model.head(features), oracle.tensors["images"].shape[-2:])
    assert_close("features", features, oracle.tensors["features"])
    assert_close("logits", logits, oracle.tensors["logits"])
    actual = gradients_of(model, (logits * oracle.tensors["direction"]).sum())
    assert sorted(actual) == sorted([*gradients, *also_learned]), "other tensors learn than in the authors' code"
    for name, expected in gradients.items():
        assert_close(f"the gradient of {name}", actual[name], expected, gradient_tolerance)


@contextmanager
def replayed_dropout(oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give dropout the masks of the file, in their order: shapes and probabilities must be the authors'."""
    masks = [mask for _, mask in sorted(oracle.group("dropout").items(), key=lambda item: int(item[0]))]
    used: list[Tensor] = []

    def dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0:
            return x
        assert len(used) < len(masks), "dropout is called more often than in the authors' code"
        used.append(masks[len(used)])
        mask = used[-1]
        if x.dim() == 3 and x.shape[1] == 1:  # a last block that computes the class token alone
            mask = mask[:, :1]
        assert x.shape == mask.shape
        assert float(mask.max()) == pytest.approx(1 / (1 - p)), "the probability is not the authors'"
        return x * mask

    with monkeypatch.context() as patch:
        patch.setattr(nn.functional, "dropout", dropout)
        yield
    assert len(used) == len(masks), "dropout is called less often than in the authors' code"


def tiny_vit(**options: Any) -> nn.Module:
    """The timm model of the authors' tiny ViT."""
    sizes = {"img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 2, "num_heads": 2, "mlp_ratio": 2}
    return timm.create_model("vit_base_patch16_224", pretrained=False, num_classes=0, **{**sizes, **options})
