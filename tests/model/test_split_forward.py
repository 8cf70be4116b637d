"""What lies before the first block that changes is computed once, and nothing else comes of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch
from torch.nn.functional import cross_entropy

from helpers.families import backbone_of, images
from helpers.two_processes import CONFIG, examples
from vpt import TunedModel, attach
from vpt.tasks.classification import ClassificationConfig, train
from vpt.training import Callback, EpochMetrics, feature_cache

LABELS = torch.tensor([0, 1, 2, 1])


def tuned(family: str, method: str) -> TunedModel:
    torch.manual_seed(0)
    return attach(backbone_of(family), method, 3).eval()


@pytest.mark.parametrize(
    ("family", "method"),
    [
        *product(
            ["vit", "vit-avg", "dinov3", "rope-mixed", "eva02", "beit-shared"],
            ["partial(k=1)", "vpt(length=3, dropout=0, depth=2-3)", "partial(k=1) + vpt(depth=3-3)"],
        ),
        ("swin", "partial(k=1)"),  # in windows prompts are in all blocks
    ],
)
def test_split_forward_of_each_method_equals_one_forward_pass(family: str, method: str) -> None:
    model = tuned(family, method).eval()
    split_forward = model.split_forward()
    assert split_forward is not None and model.first_modified_block >= 1
    results = []
    for feature in (split_forward(split_forward.run_frozen_prefix(images())), model.network(images())):
        logits = model.head(feature)
        gradients = torch.autograd.grad(cross_entropy(logits, LABELS), model.trainable_parameters(), allow_unused=True)
        results.append([logits.detach(), *[gradient for gradient in gradients if gradient is not None]])
    assert len(results[0]) == len(results[1]) > 2
    for actual, expected in zip(*results, strict=True):
        assert torch.allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "first"),
    [("vpt", 0), ("full", 0), ("bias", 0), ("lora", 0), ("vpt(depth=3-3)", 2), ("partial(k=2)", 1), ("class_token", 0),
     ("vpt(depth=3-3) + partial(k=2)", 1), ("vpt(location=pad, depth=shallow)", 0)],
)  # fmt: skip
def test_first_modified_block_of_each_method_is_the_first_it_changes(method: str, first: int) -> None:
    model = tuned("vit", method)
    assert model.first_modified_block == first
    assert (model.split_forward() is None) == (first == 0)


class CountCalls(Callback):
    """How often the first block ran, and what was said."""

    def __init__(self, model: TunedModel) -> None:
        self.calls, self.notes = 0, list[str]()
        model.trunk.get_submodule(model.layout.blocks[0]).register_forward_hook(self._call)

    def _call(self, *_: object) -> None:
        self.calls += 1

    def on_note(self, text: str) -> None:
        self.notes.append(text)


def trained(config: ClassificationConfig) -> tuple[TunedModel, list[EpochMetrics], CountCalls]:
    model = tuned("vit", "partial(k=1)")
    count = CountCalls(model)
    history = train(model, examples(), config, validation=examples(8, seed=1), callback=count)
    return model, [replace(epoch, seconds=0.0) for epoch in history], count


def test_train_with_frozen_prefix_runs_it_once_and_equals_full_training(monkeypatch: pytest.MonkeyPatch) -> None:
    config = CONFIG.replace(optimizer="adamw", learning_rate=0.01)
    apart, history, count = trained(config)
    assert count.calls == 3 and not count.notes  # one image to know the size, and each set once
    monkeypatch.setattr(feature_cache, "MAX_ACTIVATION_BYTES", 1000)
    whole, expected, count = trained(config)
    assert count.calls > 10
    (note,) = count.notes
    assert note.startswith("what goes into block 3 takes 0.0 GiB for all images")
    for one, other in zip(history, expected, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-4)
        assert one.val_loss == pytest.approx(other.val_loss, rel=1e-4)
    for ours, theirs in zip(apart.trainable_parameters(), whole.trainable_parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_train_with_augmentation_skips_the_frozen_prefix_cache() -> None:
    _, _, count = trained(CONFIG.replace(augment="flip", learning_rate=0.01))
    assert count.calls > 10
    assert count.notes == ["augment=flip makes every image new, so nothing frozen can be computed in advance"]
