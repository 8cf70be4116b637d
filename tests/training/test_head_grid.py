"""A grid in one pass ends where its points end one by one."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import nn

from helpers.families import backbone_of
from helpers.two_processes import CONFIG, examples
from vpt import Linear, TunedModel, attach
from vpt.errors import SpecError, TrainingError, UnsupportedError
from vpt.tasks.classification import ClassificationConfig, train
from vpt.training import train_head_grid
from vpt.training.stacked_heads import StackedHeads

GRID = [
    {"learning_rate": rate, "weight_decay": decay, "seed": seed}
    for seed, rate, decay in product((0, 3), (2.0, 0.3, 0.05), (0.01, 0.0))
]


def new_model(method: str, seed: int) -> TunedModel:
    torch.manual_seed(seed)
    return attach(backbone_of("vit"), method, 3).eval()


@pytest.mark.parametrize(("optimizer", "decay"), [("sgd", "matrices"), ("sgd", "official"), ("adamw", "matrices")])
@pytest.mark.parametrize("method", ["linear", "mlp(layers=3, dropout=0.3)"])
def test_train_head_grid_of_each_point_equals_single_training(method: str, optimizer: str, decay: str) -> None:
    data, val = examples(17), examples(9, seed=1)  # 17 = 2 * 8 + 1: the last batch is a single image
    base = CONFIG.replace(optimizer=optimizer, epochs=4, batch_size=8, decay=decay)
    if method != "linear":  # large steps through a ReLU make differences of rounding grow
        base = base.replace(head_lr_scale=0.02 if optimizer == "sgd" else 0.002)
    # Seeds with another number of settings are trained in a pass of their own.
    configs = [base.replace(**point) for point in [*GRID, {"seed": 5, "learning_rate": 0.5}]]
    configs[1] = configs[1].replace(head_lr_scale=base.training.head_lr_scale / 3)
    found = train_head_grid(new_model(method, 11), data, configs, validation=val)
    for config, point in zip(configs, found, strict=True):
        alone = new_model(method, config.training.seed)
        history = train(alone, data, config, validation=val)
        assert point.error is None
        pairs = zip(point.head.state_dict().values(), alone.head.state_dict().values(), strict=True)
        # AdamW divides a gradient by its own size: where it is rounding alone, so is the step, in either form.
        sharp = method == "linear" or optimizer == "sgd"
        if sharp:
            assert all(torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4) for ours, theirs in pairs)
        assert len(point.history) == len(history) == 4
        for own, wanted in zip(point.history, history, strict=True):
            for key in ("train_loss", "train_metric", "val_loss", "val_metric", "lr"):
                assert getattr(own, key) == pytest.approx(getattr(wanted, key), abs=1e-4 if sharp else 1e-3), key
            assert own.metrics == pytest.approx(wanted.metrics, abs=1e-4 if sharp else 1e-3)


def test_train_head_grid_with_diverging_point_keeps_the_others() -> None:
    configs = [CONFIG.replace(epochs=3, learning_rate=rate) for rate in (1.0, 1e38)]
    good, bad = train_head_grid(new_model("linear", 0), examples(), configs)
    alone = new_model("linear", CONFIG.training.seed)
    train(alone, examples(), configs[0])
    assert torch.allclose(good.head.weight, alone.head.weight, atol=1e-4)
    assert good.error is None and good.history[-1].val_loss is None
    with pytest.raises(TrainingError) as raised:
        train(new_model("linear", CONFIG.training.seed), examples(), configs[1])
    assert str(bad.error) == str(raised.value)
    assert len(bad.history) < 3


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("vpt(length=3)", [{}], "trains more than a head"),
        ("linear", [{}, {"batch_size": 4}], "may differ in learning_rate, weight_decay, head_lr_scale, seed alone"),
        ("linear", [{"augment": "flip"}], "augment is 'flip'; heads are trained at once with 'none'"),
        ("linear", [{"probe_epochs": 3}], "probe_epochs is 3"),
    ],
)
def test_train_head_grid_with_unsupported_settings_is_refused(
    method: str, changes: list[dict[str, object]], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        train_head_grid(new_model(method, 0), examples(), [CONFIG.replace(**change) for change in changes])


def test_stacked_heads_with_unknown_layer_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="heads with Tanh cannot train together"):
        StackedHeads([[nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))]])


def test_train_head_grid_of_a_model_leaves_it_unchanged() -> None:
    model = new_model("linear", 0)
    before = model.head.weight.detach().clone()
    train_head_grid(model, examples(), [ClassificationConfig.for_method(Linear()).replace(epochs=1)])
    assert torch.equal(model.head.weight, before)
