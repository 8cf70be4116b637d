"""The contract of a method, as checks that anyone can run on a method of their own.

    @pytest.mark.parametrize("check", vpt.testing.CHECKS)
    def test_mine(check):
        check(Mine(), my_backbone)

A method that is to be saved and loaded must stand in `vpt.METHODS` under its name. Nothing here needs pytest: a check
raises AssertionError, and says what is wrong.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from vpt.attention.detection import structural_copy
from vpt.backbones import Backbone, load_backbone
from vpt.errors import UnsupportedError
from vpt.methods.base import Method
from vpt.model.tuned_file import load, save
from vpt.model.tuned_model import TunedModel, attach

Check = Callable[[str | Method, nn.Module | Backbone], None]
CLASSES = 3


def check_method(method: str | Method, backbone: nn.Module | Backbone) -> None:
    """Run every check; raises AssertionError at the first that fails."""
    for check in CHECKS:
        check(method, backbone)


def check_shapes(method: str | Method, backbone: nn.Module | Backbone) -> None:
    """Any number of images in; one row each out, and no row depends on another image."""
    model, images = _attach(method, backbone), _random_images(backbone)
    logits = _logits(model, images)
    _expect(logits.shape == (len(images), CLASSES), f"logits have shape {tuple(logits.shape)}")
    with torch.no_grad():
        features = model.features(images)
    _expect(features.shape == (len(images), model.width), f"features: {tuple(features.shape)}")
    _expect_close(_logits(model, images[1:2]), logits[1:2], 1e-4, "an image alone gives another answer than in a batch")


def check_seed(method: str | Method, backbone: nn.Module | Backbone) -> None:
    """The same seed gives the same start, another seed another."""
    first, again, other = (_attach(method, backbone, seed) for seed in (0, 0, 1))
    _expect(
        _equal_states(first.trainable_state_dict(), again.trainable_state_dict()), "one seed gave two initialisations"
    )
    _expect(
        not _equal_states(first.trainable_state_dict(), other.trainable_state_dict()),
        "two seeds gave one initialisation",
    )


def check_trainable_weights_matter(method: str | Method, backbone: nn.Module | Backbone) -> None:
    """What is owned besides the head changes the feature; where there is nothing such, training knows it."""
    model, images = _attach(method, backbone), _random_images(backbone)
    head = {id(weight) for weight in model.head.parameters()}
    non_head = [weight for weight in model.trainable_parameters() if id(weight) not in head]
    _expect(model.only_head_trains == (not non_head), "only_head_trains is wrong")
    if not non_head:
        return
    with torch.no_grad():
        before = model.features(images)
        for weight in non_head:
            weight.add_(0.5 * torch.randn(weight.shape, generator=_generator(3)).to(weight))
        _expect(not torch.equal(model.features(images), before), "the feature ignores what the method owns")


def check_identity_at_init(method: str | Method, backbone: nn.Module | Backbone) -> None:
    """A method that says so starts with the feature of the frozen backbone."""
    model = _attach(method, backbone)
    if not model.method.identity_at_init:
        return
    with torch.no_grad():
        actual, expected = (tuned.features(_random_images(backbone)) for tuned in (model, _attach("linear", backbone)))
    _expect_close(actual, expected, 1e-5, "the method sets identity_at_init but changes the feature before training")


def check_merge(method: str | Method, backbone: nn.Module | Backbone) -> None:
    """What can be merged gives the same answers as a plain model with the merged weights; what cannot says so."""
    model, images = _attach_and_train(method, backbone), _random_images(backbone)
    try:
        state = model.merge()
    except UnsupportedError as error:
        _expect("cannot be" in str(error), f"merge() refuses without a reason: {error}")
        return
    plain = copy.deepcopy(load_backbone(backbone).module).eval()
    plain.reset_classifier(CLASSES)  # type: ignore[operator]
    plain.load_state_dict(state)
    with torch.no_grad():
        _expect_close(plain.to(images)(images), _logits(model, images), 1e-5, "the merged model answers otherwise")


def check_only_trainable_gets_gradients(method: str | Method, backbone: nn.Module | Backbone) -> None:
    """Gradients reach everything that is owned, and nothing else asks for one."""
    model = _attach(method, backbone).train()
    trainable_ids = {id(weight) for weight in model.trainable_parameters()}
    for name, weight in model.named_parameters():
        _expect(
            weight.requires_grad == (id(weight) in trainable_ids), f"{name}.requires_grad is {weight.requires_grad}"
        )
    before = _clone_state(model.trainable_state_dict())
    _loss(model, *_batch(backbone)).backward()
    for name, weight in model.named_parameters():
        if id(weight) in trainable_ids:
            _expect(weight.grad is not None, f"no gradient reaches {name}")
            _expect(bool(torch.isfinite(weight.grad).all()), f"the gradient of {name} is not finite")  # type: ignore[arg-type]
        else:
            _expect(weight.grad is None, f"a gradient reaches {name}, which is frozen")
    _train(model, backbone)
    for name, tensor in model.trainable_state_dict().items():
        if isinstance(tensor, nn.Parameter):
            _expect(not torch.equal(tensor, before[name]), f"{name} is owned but training never changes it")


def check_frozen(method: str | Method, backbone: nn.Module | Backbone) -> None:
    """Training leaves the backbone as it came: weights, flags, modes, names, module tree and answer."""
    module, images = load_backbone(backbone).module, _random_images(backbone)
    weights, flags, modes, answer = (
        _clone_state(module.state_dict()),
        _requires_grad_flags(module),
        _training_modes(module),
        _backbone_output(module, images),
    )
    _train(_attach(method, backbone), backbone)
    _expect(list(module.state_dict()) == list(weights), "the backbone has other weight names than before")
    _expect(_equal_states(module.state_dict(), weights), "training changed the backbone's weights or statistics")
    _expect(_requires_grad_flags(module) == flags, "requires_grad of the backbone's weights was changed")
    _expect(_training_modes(module) == modes, "modules of the backbone, or their train or eval mode, were changed")
    _expect(torch.equal(_backbone_output(module, images), answer), "the backbone answers otherwise than before")


def check_modes(method: str | Method, backbone: nn.Module | Backbone) -> None:
    """train() sets what is owned to training; a module with frozen weights stays in eval mode throughout."""
    model = _attach(method, backbone)
    _expect(not any(_training_modes(model).values()), "a new model is not in eval mode")
    model.train()
    _expect(model.training and model.head.training, "train() does not reach the head")
    for name, module in model.trunk.named_modules():
        weights = list(module.parameters(recurse=False))
        if weights and not any(weight.requires_grad for weight in weights):
            _expect(not module.training, f"{name or 'the trunk'} is frozen but in train mode")
    model.eval()
    _expect(not any(_training_modes(model).values()), "eval() leaves modules in train mode")


def check_learns(method: str | Method, backbone: nn.Module | Backbone) -> None:
    """An ordinary PyTorch training loop makes the loss smaller."""
    model = _attach(method, backbone)
    with torch.no_grad():
        before = float(_loss(model, *_batch(backbone)))
    _train(model, backbone, steps=8)
    with torch.no_grad():
        after = float(_loss(model, *_batch(backbone)))
    _expect(after < before, f"the loss went from {before:.4f} to {after:.4f}")


def check_counts(method: str | Method, backbone: nn.Module | Backbone) -> None:
    """trained: what is owned. total: the backbone without classifier, and what was added to it."""
    model = _attach(method, backbone)
    trainable = {
        name: tensor for name, tensor in model.trainable_state_dict().items() if isinstance(tensor, nn.Parameter)
    }
    added = sum(tensor.numel() for name, tensor in trainable.items() if not name.startswith("backbone."))
    encoder = sum(weight.numel() for weight in structural_copy(load_backbone(backbone).module).parameters())
    counts = model.counts()
    _expect(counts.trainable == sum(tensor.numel() for tensor in trainable.values()), f"trained is {counts.trainable}")
    _expect(counts.total == encoder + added, f"total is {counts.total}, not {encoder} + {added}")


def check_save_and_load(method: str | Method, backbone: nn.Module | Backbone) -> None:
    """A tuned file gives every bit back, also of logits."""
    model, images = _attach_and_train(method, backbone), _random_images(backbone)
    again = _save_and_load(model, backbone, "fp32")
    _expect(again.method == model.method, f"{model.method} was read back as {again.method}")
    _expect(
        _equal_states(again.trainable_state_dict(), model.trainable_state_dict()), "tensors differ after save and load"
    )
    _expect(torch.equal(_logits(again, images), _logits(model, images)), "logits differ after save and load")


def check_fp16_file(method: str | Method, backbone: nn.Module | Backbone) -> None:
    """A file in fp16 gives the same answers but for rounding."""
    model, images = _attach_and_train(method, backbone), _random_images(backbone)
    again = _save_and_load(model, backbone, "fp16")
    _expect_close(_logits(again, images), _logits(model, images), 2e-2, "fp16 storage changes the logits")


def check_detach(method: str | Method, backbone: nn.Module | Backbone) -> None:
    """detach() gives back the very backbone, which answers as before."""
    module, images = load_backbone(backbone).module, _random_images(backbone)
    answer = _backbone_output(module, images)
    back = _attach_and_train(method, backbone).detach()
    _expect(back is module, "detach() gives another object than the backbone")
    _expect(torch.equal(_backbone_output(back, images), answer), "the backbone answers otherwise after detach()")


def check_two_tasks(method: str | Method, backbone: nn.Module | Backbone) -> None:
    """Two tasks stand on one backbone, and training one leaves the other's answer as it was, to the bit."""
    first, second, images = _attach(method, backbone, 0), _attach(method, backbone, 1), _random_images(backbone)
    answer = _logits(second, images)
    _train(first, backbone)
    _expect(torch.equal(_logits(second, images), answer), "training one task disturbed another")


def check_deepcopy(method: str | Method, backbone: nn.Module | Backbone) -> None:
    """A deep copy answers the same and trains on its own."""
    model, images = _attach_and_train(method, backbone), _random_images(backbone)
    answer, copied = _logits(model, images), copy.deepcopy(model)
    _expect(torch.equal(_logits(copied, images), answer), "the copy answers otherwise")
    _expect(list(copied.trainable_state_dict()) == list(model.trainable_state_dict()), "the copy owns something else")
    _train(copied, backbone)
    _expect(not torch.equal(_logits(copied, images), answer), "the copy does not train")
    _expect(torch.equal(_logits(model, images), answer), "training the copy changed the original")


def check_mixed_precision(method: str | Method, backbone: nn.Module | Backbone) -> None:
    """Under bf16 autocast the answer is finite and close, and gradients are finite."""
    model, (images, labels) = _attach(method, backbone), _batch(backbone)
    answer = _logits(model, images)
    with torch.autocast(images.device.type, torch.bfloat16):
        rounded = model(images).float()
    _expect_close(rounded.detach(), answer, 0.15, "bf16 changes the logits")
    loss = nn.functional.cross_entropy(rounded, labels)
    loss.backward()
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            _expect(bool(torch.isfinite(weight.grad).all()), f"in bf16 the gradient of {name} is not finite")


def check_compile(method: str | Method, backbone: nn.Module | Backbone) -> None:
    """torch.compile captures the model as one graph that answers the same."""
    model, images = _attach_and_train(method, backbone), _random_images(backbone)
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    _expect_close(_logits(compiled, images), _logits(model, images), 1e-5, "the compiled model answers otherwise")


CHECKS: list[Check] = [
    check_shapes,
    check_seed,
    check_trainable_weights_matter,
    check_identity_at_init,
    check_merge,
    check_only_trainable_gets_gradients,
    check_frozen,
    check_modes,
    check_learns,
    check_counts,
    check_save_and_load,
    check_fp16_file,
    check_detach,
    check_two_tasks,
    check_deepcopy,
    check_mixed_precision,
    check_compile,
]


def _expect(condition: bool, message: str) -> None:
    if not condition:  # not `assert`, which python -O leaves out
        raise AssertionError(message)


def _expect_close(actual: Tensor, expected: Tensor, tolerance: float, message: str) -> None:
    error = float((actual - expected).norm() / expected.norm())
    _expect(error <= tolerance, f"{message} (relative difference {error:.2g}, allowed {tolerance:g})")


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Torch's generators seeded, and afterwards as they were."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _attach(method: str | Method, backbone: nn.Module | Backbone, seed: int = 0) -> TunedModel:
    with _seeded(seed):
        return attach(backbone, method, CLASSES)


def _random_images(backbone: nn.Module | Backbone, count: int = 4) -> Tensor:
    frozen = load_backbone(backbone)
    size = frozen.preprocessing.size
    images = torch.randn(count, 3, size, size, generator=_generator(1))
    return images.to(next(frozen.module.parameters()))


def _batch(backbone: nn.Module | Backbone) -> tuple[Tensor, Tensor]:
    images = _random_images(backbone, 2 * CLASSES)
    return images, torch.arange(len(images), device=images.device) % CLASSES


def _loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(images), labels)


def _train(model: TunedModel, backbone: nn.Module | Backbone, steps: int = 3) -> None:
    """A user's own loop, with nothing of vpt in it but the model."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3, weight_decay=0.0)
    images, labels = _batch(backbone)
    model.train()
    with _seeded(2):
        for _ in range(steps):
            optimizer.zero_grad()
            _loss(model, images, labels).backward()
            optimizer.step()
    model.eval()


def _attach_and_train(method: str | Method, backbone: nn.Module | Backbone) -> TunedModel:
    model = _attach(method, backbone)
    _train(model, backbone)
    return model


def _save_and_load(
    model: TunedModel, backbone: nn.Module | Backbone, save_dtype: Literal["fp32", "fp16"]
) -> TunedModel:
    with tempfile.TemporaryDirectory() as folder:
        return load(save(model, Path(folder, "tuned.safetensors"), save_dtype=save_dtype), backbone)


@torch.no_grad()
def _logits(model: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    return model(images)


@torch.no_grad()
def _backbone_output(module: nn.Module, images: Tensor) -> Tensor:
    """What the backbone itself says, in whatever mode it came, which may draw random numbers and update statistics."""
    with _seeded(4):
        return copy.deepcopy(module)(images)  # type: ignore[no-any-return]


def _clone_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def _equal_states(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def _requires_grad_flags(module: nn.Module) -> dict[str, bool]:
    return {name: weight.requires_grad for name, weight in module.named_parameters()}


def _training_modes(network: nn.Module) -> dict[str, bool]:
    return {f"{name}: {type(module).__name__}": module.training for name, module in network.named_modules()}
