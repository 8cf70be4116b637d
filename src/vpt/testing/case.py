"""The case of a check: seeded models of a method, a batch, a user's training loop, and expectations."""

import copy
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from vpt.backbones import Backbone, load_backbone
from vpt.methods.base import Method
from vpt.model.attach import attach
from vpt.model.load import load
from vpt.model.tuned_file import save
from vpt.model.tuned_model import TunedModel

CLASSES = 3
BackboneLike = nn.Module | Backbone


@dataclass(frozen=True)
class Case:
    """A method, a backbone and a head that are checked together.

    Args:
        method: The method or its text.
        backbone: The backbone, or a timm model.
        head: Text of the head; None for a linear layer on the pooled feature.
    """

    method: str | Method
    backbone: BackboneLike
    head: str | None

    @property
    def module(self) -> nn.Module:
        """The backbone's module."""
        return load_backbone(self.backbone).module

    def new_model(self, seed: int = 0) -> TunedModel:
        """Return a tuned model in train mode, initialized with a seed."""
        with seeded(seed):
            return attach(self.backbone, self.method, CLASSES, head=self.head)

    def eval_model(self, seed: int = 0) -> TunedModel:
        """Return a tuned model in eval mode, initialized with a seed."""
        return self.new_model(seed).eval()

    def trained_model(self) -> TunedModel:
        """Return a tuned model in eval mode after a few steps of training."""
        model = self.new_model()
        self.train(model)
        return model

    def images(self, count: int = 4) -> Tensor:
        """Return random images (count, 3, size, size) of the backbone's dtype and on its device."""
        size = load_backbone(self.backbone).preprocessing.size
        images = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))
        return images.to(next(self.module.parameters()))

    def batch(self) -> tuple[Tensor, Tensor]:
        """Return images (6, 3, size, size) and labels (6,)."""
        images = self.images(2 * CLASSES)
        return images, torch.arange(len(images), device=images.device) % CLASSES

    def train(self, model: TunedModel, steps: int = 3) -> None:
        """Train with a user's own loop, which uses nothing of vpt but the model; leaves the model in eval mode."""
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3, weight_decay=0.0)
        images, labels = self.batch()
        model.train()
        with seeded(2):
            for step in range(steps):
                optimizer.zero_grad()
                loss_of(model, images, labels).backward()
                model.before_step((step + 1) / steps)
                optimizer.step()
        model.eval()

    def save_and_load(self, model: TunedModel, save_dtype: Literal["fp32", "fp16"]) -> TunedModel:
        """Write a model to a tuned file and read it."""
        with tempfile.TemporaryDirectory() as folder:
            return load(save(model, Path(folder, "tuned.safetensors"), save_dtype=save_dtype), self.backbone)

    @torch.no_grad()
    def backbone_output(self) -> Tensor:
        """Return the output of a copy of the backbone, in its mode; it may draw numbers and update statistics."""
        with seeded(4):
            return copy.deepcopy(self.module)(self.images())  # type: ignore[no-any-return]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's generators, and restore them afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def loss_of(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy; where every pixel gets a class, all pixels of an image have its label."""
    logits = model(images)
    targets = labels.view(-1, *[1] * (logits.dim() - 2)).expand(-1, *logits.shape[2:])
    return nn.functional.cross_entropy(logits, targets)


@torch.no_grad()
def logits_of(model: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return the logits, without gradients."""
    return model(images)


@torch.no_grad()
def features_of(model: TunedModel, images: Tensor) -> Tensor:
    """Return the features, or all feature maps in one row for each image, without gradients."""
    features = model.features(images)
    maps = (features,) if isinstance(features, Tensor) else features
    return torch.cat([feature_map.flatten(1) for feature_map in maps], dim=1)


def expect(condition: bool, message: str) -> None:
    """Raise AssertionError with `message` unless `condition` is true; unlike `assert`, also under `python -O`."""
    if not condition:
        raise AssertionError(message)


def expect_close(actual: Tensor, expected: Tensor, tolerance: float, message: str) -> None:
    """Raise AssertionError if the relative difference of two tensors exceeds `tolerance`."""
    error = float((actual - expected).norm() / expected.norm())
    expect(error <= tolerance, f"{message} (relative difference {error:.2g}, allowed {tolerance:g})")


def clone_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a copy of a state dict."""
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def equal_states(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Return True if two state dicts have the same names and the same bits."""
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def requires_grad_flags(module: nn.Module) -> dict[str, bool]:
    """Return name of a parameter -> requires_grad."""
    return {name: weight.requires_grad for name, weight in module.named_parameters()}


def training_modes(network: nn.Module) -> dict[str, bool]:
    """Return name and class of a module -> training."""
    return {f"{name}: {type(module).__name__}": module.training for name, module in network.named_modules()}
