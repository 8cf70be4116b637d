"""Prompts of a prefix that are pruned: by importance, halfway through training, and everywhere alike afterwards."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import vpt
from helpers.families import backbone_of, images
from helpers.two_processes import CONFIG, examples
from helpers.two_processes import model as small_model
from vpt import Injection, Linear, TunedModel, attach, parse_method
from vpt.backbones.layout import BackboneLayout
from vpt.errors import SpecError
from vpt.model.ensemble import Ensemble
from vpt.serving.multi_task import MultiTaskBackbone, TaskAdapter
from vpt.tasks.classification import train
from vpt.tasks.classification.continuation import start_from
from vpt.tasks.classification.training import ClassificationObjective
from vpt.testing import CHECKS, Check, check_compile
from vpt.training import Callback

METHOD = "prefix(length=5, prune=0.4, dropout=0)"  # 3 are left


def prefixes(model: TunedModel) -> list[Any]:
    return list(model.added_modules["prefix"].children())


def backward(model: TunedModel) -> None:
    model.zero_grad()
    nn.functional.cross_entropy(model(images()), torch.tensor([0, 1, 2, 0])).backward()


def pruned(family: str = "vit", method: str = METHOD, seed: int = 0) -> TunedModel:
    torch.manual_seed(seed)
    model = attach(backbone_of(family), method, 3)
    with torch.no_grad():
        for weight in model.trainable_parameters():
            weight.normal_()
    backward(model)
    model.before_step(1.0)
    return model.eval()


def without_pruning(model: TunedModel) -> TunedModel:
    """A plain prefix of the prompts that are left, in their order."""
    plain = attach(model.backbone, "prefix(length=3, dropout=0)", 3).eval()
    with torch.no_grad():
        for own, other in zip(prefixes(plain), prefixes(model), strict=True):
            own.keys.copy_(other.keys[:, other.kept])
            own.values.copy_(other.values[:, other.kept])
        plain.head.load_state_dict(model.head.state_dict())
    return plain


@pytest.mark.parametrize("family", ["vit", "beit", "swin"])
@pytest.mark.parametrize("check", [c for c in CHECKS if c is not check_compile], ids=lambda check: check.__name__)
def test_pruned_prefix_keeps_the_contract(check: Check, family: str) -> None:
    check(METHOD, backbone_of(family))


@pytest.mark.parametrize("shared", [False, True])
def test_importance_is_the_derivative_of_the_loss_by_a_factor_of_the_prompt(shared: bool) -> None:
    torch.manual_seed(0)
    model = attach(copy.deepcopy(backbone_of("vit")), f"prefix(length=4, prune=0.5, dropout=0, shared={shared})", 3)
    model.double()
    with torch.no_grad():
        for weight in model.trainable_parameters():
            weight.normal_()
    backward(model)
    model.before_step(0.1)
    batch, labels, step = images().double(), torch.tensor([0, 1, 2, 0]), 1e-4
    for prefix in prefixes(model):
        tensors = [prefix.keys] if prefix.values is None else [prefix.keys, prefix.values]
        for index in range(4):
            losses = []
            for factor in (1 + step, 1 - step):
                with torch.no_grad():
                    for tensor in tensors:
                        tensor[:, index] *= factor
                    losses.append(float(nn.functional.cross_entropy(model(batch), labels)))
                    for tensor in tensors:
                        tensor[:, index] /= factor
            expected = abs(losses[0] - losses[1]) / (2 * step)
            assert float(prefix.importance[index]) == pytest.approx(expected, rel=1e-4, abs=1e-8)


def test_pruning_leaves_the_most_important_prompts() -> None:
    model = pruned()
    for prefix in prefixes(model):
        dropped = sorted(set(range(5)) - set(prefix.kept.tolist()))
        assert len(dropped) == 2
        assert prefix.importance[dropped].max() <= prefix.importance[prefix.kept].min()


@pytest.mark.parametrize("family", ["vit", "dinov3", "beit", "swin"])
def test_pruned_prefix_equals_a_prefix_of_what_is_left(family: str) -> None:
    model = pruned(family)
    plain = without_pruning(model)
    with torch.no_grad():
        assert torch.allclose(model(images()), plain(images()), rtol=1e-5, atol=1e-5)
    assert all(prefix(1).keys.shape[1] == 3 for prefix in prefixes(model))


def test_all_prompts_train_until_halfway_and_the_best_are_validated() -> None:
    torch.manual_seed(0)
    model = attach(backbone_of("vit"), METHOD, 3)
    numbers = []
    for done in (0.0, 0.25, 0.49, 0.5, 0.75):
        if done:
            backward(model)
            model.before_step(done)
        numbers.append([prefixes(model.train(mode))[0](1).keys.shape[1] for mode in (True, False)])
        model.train()
    assert numbers == [[5, 5], [5, 3], [5, 3], [3, 3], [3, 3]]


def test_pruned_prompt_has_no_gradient_and_never_returns() -> None:
    model = pruned().train()
    before = [(prefix.kept.clone(), prefix.importance.clone()) for prefix in prefixes(model)]
    backward(model)
    model.before_step(0.75)
    for prefix, (kept, importance) in zip(prefixes(model), before, strict=True):
        assert torch.equal(prefix.kept, kept) and torch.equal(prefix.importance, importance)
        dropped = sorted(set(range(5)) - set(kept.tolist()))
        assert not prefix.keys.grad[:, dropped].any() and prefix.keys.grad[:, kept].any()


def test_loop_that_never_ranks_leaves_all_prompts() -> None:
    model = attach(backbone_of("vit"), METHOD, 3).eval()
    assert prefixes(model)[0](1).keys.shape[1] == 5


def test_every_term_of_a_sum_is_told_of_the_step() -> None:
    told: list[tuple[str, float]] = []

    @dataclass(frozen=True)
    class Told(Linear):
        name = "told"

        def plan(self, trunk: nn.Module, layout: BackboneLayout) -> Injection:
            return Injection(before_step=lambda done: told.append((self.name, done)))

    class ToldToo(Told):
        name = "told_too"

    model = attach(backbone_of("vit"), Told() + ToldToo() + parse_method(METHOD), 3)
    backward(model)
    model.before_step(0.5)
    assert told == [("told", 0.5), ("told_too", 0.5)]
    assert prefixes(model.eval())[0](1).keys.shape[1] == 3
    assert Injection().before_step is None


def test_importance_is_the_sum_of_the_sizes_of_batches() -> None:
    """Two batches whose derivatives cancel count twice."""
    model = attach(backbone_of("vit"), METHOD, 3)
    found = []
    for sign in (1, -1):
        model.zero_grad()
        (sign * model(images()).sum()).backward()
        model.before_step(0.1)
        found.append([prefix.importance.clone() for prefix in prefixes(model)])
    for once, twice in zip(*found, strict=True):
        assert once.all() and torch.allclose(twice, 2 * once, rtol=1e-4)


def test_batch_whose_gradients_are_infinite_does_not_count() -> None:
    """A gradient scaler skips such a step."""
    model = attach(backbone_of("vit"), METHOD, 3)
    backward(model)
    model.before_step(0.1)
    before = [prefix.importance.clone() for prefix in prefixes(model)]
    prefixes(model)[1].keys.grad.fill_(float("inf"))
    model.before_step(0.2)
    after = [prefix.importance for prefix in prefixes(model)]
    assert torch.equal(after[1], before[1]) and torch.allclose(after[0], 2 * before[0], rtol=1e-4)


@pytest.mark.parametrize("mode", [True, False])
def test_state_dict_of_a_pruned_prefix_brings_the_phase(mode: bool) -> None:
    source = pruned()
    model = attach(source.backbone, METHOD, 3).train(mode)
    model.load_state_dict(source.state_dict())
    kept = [prefix.kept.clone() for prefix in prefixes(model)]
    assert all(prefix(1).keys.shape[1] == 3 for prefix in prefixes(model))
    backward(model)
    model.before_step(0.9)
    assert all(torch.equal(prefix.kept, own) for prefix, own in zip(prefixes(model), kept, strict=True))


@pytest.mark.parametrize("stop", ["keep", "patience"])
def test_weights_of_an_early_epoch_answer_with_the_most_important_prompts(
    stop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first epoch is the best, or training ends before half of its epochs."""
    scores = iter([0.9, 0.5, 0.5, 0.5])
    monkeypatch.setattr(ClassificationObjective, "validate", lambda self: (1.0, {"accuracy": next(scores)}))
    model = small_model("prefix(length=4, prune=0.5, dropout=0)")
    options = {"keep": "best"} if stop == "keep" else {"patience": 1}
    config = CONFIG.replace(epochs=4 if stop == "keep" else 8, optimizer="adamw", **options)
    history = train(model, examples(), config, validation=examples(seed=1))
    assert len(history) == (4 if stop == "keep" else 2)
    assert all(prefix(1).keys.shape[1] == 2 for prefix in prefixes(model))


class _StopIn(Callback):
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_step(self, epoch: int, step: int, loss: float, lr: float) -> None:
        if (epoch, step) == (self.epoch, 2):
            raise KeyboardInterrupt


@pytest.mark.parametrize("stop_in", [2, 3, 4])  # before the prompts are dropped, when they just are, and after
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_training_resumed_around_the_pruning_is_bit_identical(stop_in: int, ema: float, tmp_path: Path) -> None:
    config = CONFIG.replace(epochs=4, ema=ema, optimizer="adamw")
    method = "prefix(length=4, prune=0.5, dropout=0.2)"
    whole, broken, again = small_model(method), small_model(method), small_model(method, seed=9)
    train(whole, examples(), config, validation=examples(seed=1))
    checkpoint = tmp_path / "c.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(broken, examples(), config, validation=examples(seed=1), checkpoint=checkpoint, callback=_StopIn(stop_in))
    train(again, examples(), config, validation=examples(seed=1), checkpoint=checkpoint)
    for name, tensor in whole.trainable_state_dict().items():
        assert torch.equal(again.trainable_state_dict()[name], tensor), name
    assert all(prefix(1).keys.shape[1] == 2 for prefix in prefixes(again))


@pytest.mark.parametrize("save_dtype", ["fp32", "fp16"])
def test_file_of_a_pruned_prefix_answers_as_its_model(save_dtype, tmp_path: Path) -> None:
    model = pruned()
    path = vpt.save(model, tmp_path / "pruned.safetensors", save_dtype=save_dtype)
    loaded = vpt.load(path, model.backbone)
    with torch.no_grad():
        tolerance = 1e-6 if save_dtype == "fp32" else 0.05
        assert torch.allclose(loaded(images()), model(images()), rtol=tolerance, atol=tolerance)
    assert all(prefix(1).keys.shape[1] == 3 for prefix in prefixes(loaded))


@pytest.mark.parametrize("kept", [[0, 1, 5], [0, 1, -1], [0, 1, 1]])
def test_file_with_prompts_that_do_not_exist_is_refused(kept: list[int]) -> None:
    model = pruned()
    state = {name: tensor.clone() for name, tensor in model.trainable_state_dict().items()}
    state["prefix.1.kept"] = torch.tensor(kept)
    with pytest.raises(SpecError, match=r"prefix\.1\.kept is .*each index once, from 0 to 4"):
        model.load_trainable_state_dict(state)


@pytest.mark.parametrize("phase", [-1, 3])
def test_file_in_an_unknown_phase_of_pruning_is_refused(phase: int) -> None:
    model = pruned()
    state = {name: tensor.clone() for name, tensor in model.trainable_state_dict().items()}
    state["prefix.1.phase"] = torch.tensor(phase)
    with pytest.raises(SpecError, match=rf"prefix\.1\.phase is {phase}; it must be 0, 1 or 2"):
        model.load_trainable_state_dict(state)


def test_pruned_prefixes_mix_in_one_batch_and_in_an_ensemble() -> None:
    backbone = backbone_of("vit")
    models = [pruned(seed=0), pruned(seed=1), attach(backbone, "vpt(length=2)", 3).eval()]
    models = [attach(backbone, model.method, 3) for model in models]
    for model, source in zip(models, [pruned(seed=0), pruned(seed=1)], strict=False):
        model.load_trainable_state_dict(source.trainable_state_dict())
    tasks = [TaskAdapter.from_model(model) for model in models]
    batch = images(6)
    with torch.no_grad():
        found = MultiTaskBackbone(backbone)(batch, [task for task in tasks * 2 if task is not None])
        for number, answer in enumerate(found):
            alone = models[number % 3].eval()(batch[number][None])[0]
            assert torch.allclose(answer, alone, rtol=1e-4, atol=1e-4)
        apart = torch.stack([model(batch).softmax(-1) for model in models[:2]]).mean(0)
        assert torch.allclose(Ensemble(models[:2])(batch).softmax(-1), apart, rtol=1e-4, atol=1e-5)


def test_pruned_prefix_exports_to_a_program_of_the_prompts_that_are_left() -> None:
    model = pruned()
    program = torch.export.export(model, (images(),))
    with torch.no_grad():
        assert torch.allclose(program.module()(images()), model(images()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("prefix(prune=1.0)", "prune is 1.0; it must be at least 0 and below 1"),
        ("prefix(prune=-0.1)", "prune is -0.1; it must be at least 0 and below 1"),
        ("prefix(length=4, prune=0.2)", "prune is 0.2, which is less than one of 4 prompts; give 0.25 or more"),
        ("prefix(length=1, prune=0.5)", "length is 1, and pruning leaves one prompt at least; leave prune out"),
        ("prefix(length=10, prune=0.99999999999)", "leaves none of 10 prompts; give less"),
    ],
)
def test_impossible_shares_are_refused(method: str, reason: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_method(method)
    assert reason in str(caught.value)


def test_prefix_without_pruning_has_the_text_and_the_tensors_of_before() -> None:
    assert parse_method("prefix").spec(full=True) == 'prefix(length=10, depth="deep", dropout=0.1, shared=False)'
    names = attach(backbone_of("vit"), "prefix(length=2)", 3).trainable_state_dict()
    assert not [name for name in names if name.endswith(("importance", "kept", "phase"))]


def test_training_that_goes_on_from_a_pruned_file_keeps_its_prompts(tmp_path: Path) -> None:
    source, classes = pruned(), ("a", "b", "c")
    source.classes = classes
    path = vpt.save(source, tmp_path / "pruned.safetensors")
    model = attach(source.backbone, METHOD, 3, classes=classes)
    start_from(model, path)
    model.train()
    backward(model)
    model.before_step(0.9)
    for prefix, earlier in zip(prefixes(model), prefixes(source), strict=True):
        assert prefix(1).keys.shape[1] == 3 and torch.equal(prefix.kept, earlier.kept)
