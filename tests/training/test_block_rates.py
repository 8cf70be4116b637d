"""Learning rates of ranges of blocks: as with parameter groups made by hand, and refused where nothing trains."""

from __future__ import annotations

import pytest
import torch

from helpers.families import backbone_of
from helpers.two_processes import CONFIG, examples, model
from vpt import attach
from vpt.errors import SpecError
from vpt.tasks.classification import train
from vpt.tasks.classification.training import make_objective
from vpt.training import Callback, TrainingConfig
from vpt.training.block_rates import block_lr_scales, parse_block_rates

RATES = "stem=0, 1-2=0.1, 3=0.5"


def test_parse_block_rates_reads_ranges_and_factors():
    assert parse_block_rates(" stem=0, 1-6=0,7-12=1e-1") == [
        ("stem", range(1), 0.0), ("1-6", range(1, 7), 0.0), ("7-12", range(7, 13), 0.1)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["", "0.1", "1-6", "1-6=", "6-1=0", "0-5=0", "0=1", "1-6=-1", "1-6=nan", "1-6=inf", "a=1", "1-6=0,", "1..6=0"],
)
def test_config_with_faulty_block_rates_is_refused(text):
    with pytest.raises(SpecError, match=r"block_rates is .* is no range of blocks with a factor of at least 0"):
        CONFIG.replace(block_rates=text)


def test_config_with_two_rates_of_a_block_is_refused():
    with pytest.raises(SpecError, match="which names block 3 twice"):
        CONFIG.replace(block_rates="1-3=0,3=1")
    with pytest.raises(SpecError, match=r"block_rates is '1=0' and layer_decay is 0.5, and both set the rates"):
        CONFIG.replace(block_rates="1=0", layer_decay=0.5)


def groups_by_hand(tuned, blocks):
    """The factor of each tensor of `full`, by the path of its weight in timm's model."""
    factors = {}
    for name, weight in tuned.trainable_state_dict().items():
        path = name.removeprefix("backbone.")
        factor = 1.0 if path.startswith(("norm", "head", "fc_norm")) else 0.0
        for number, block in enumerate(blocks, start=1):
            if path.startswith(f"{block}."):
                factor = 0.1 if number <= 2 else 0.5
        factors[id(weight)] = factor
    return factors


@pytest.mark.parametrize("family", ["vit", "eva02"])
def test_optimizer_with_block_rates_has_the_groups_made_by_hand(family):
    tuned = attach(backbone_of(family), "full", 3)
    config, named = TrainingConfig(block_rates=RATES), dict(tuned.trainable_state_dict())
    optimizer = config.make_optimizer(named, list(tuned.head.parameters()), block_lr_scales(tuned, RATES))
    found = {id(weight): group["lr_scale"] for group in optimizer.param_groups for weight in group["params"]}
    assert found == groups_by_hand(tuned, [f"blocks.{k}" for k in range(3)])
    assert set(found.values()) == {0.0, 0.1, 0.5, 1.0}


@pytest.mark.parametrize("family", ["swin", "convnext"])
def test_block_rates_of_stages_count_all_their_blocks(family):
    tuned = attach(backbone_of(family), "full", 3)
    last = len(tuned.layout.blocks)
    scales = block_lr_scales(tuned, f"1-{last - 1}=0")
    inside = {name: f"backbone.{block}." for block in tuned.layout.blocks[:-1] for name in [block]}
    for name, scale in scales.items():
        assert scale == (0.0 if name.startswith(tuple(inside.values())) else 1.0), name
    assert set(scales.values()) == {0.0, 1.0}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_train_with_block_rates_equals_torch_with_groups_made_by_hand(optimizer):
    """Two steps of each, with weight decay, from the same weights."""
    config = CONFIG.replace(
        epochs=2, batch_size=24, optimizer=optimizer, learning_rate=0.01 if optimizer == "adamw" else 1.0,
        decay="all", warmup_epochs=0,
    )  # fmt: skip
    ours, theirs = model("full"), model("full")
    start = {name: tensor.clone() for name, tensor in ours.trainable_state_dict().items()}
    train(ours, examples(), config.replace(block_rates=RATES))

    factors = groups_by_hand(theirs, [f"blocks.{k}" for k in range(3)])
    weights = theirs.trainable_parameters()
    groups = [
        {"params": [weight for weight in weights if factors[id(weight)] == factor], "factor": factor}
        for factor in set(factors.values())
    ]
    kinds = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
    options = {"weight_decay": config.training.weight_decay, **({"momentum": 0.9} if optimizer == "sgd" else {})}
    by_hand = kinds[optimizer](groups, lr=0.0, **options)
    objective = make_objective(theirs, {"train": examples()}, config, None, Callback())
    theirs.train()
    for epoch in range(2):
        (indices,) = objective.batches(epoch)
        loss, _ = objective.loss(indices, None)
        (loss / len(indices)).backward()
        for group in by_hand.param_groups:
            group["lr"] = group["factor"] * config.lr_at(epoch, 2, 1)
        by_hand.step()
        by_hand.zero_grad()
    expected = theirs.trainable_state_dict()
    for name, tensor in ours.trainable_state_dict().items():
        assert torch.allclose(tensor, expected[name], rtol=1e-5, atol=1e-7), name
    assert torch.equal(ours.trainable_state_dict()["backbone.cls_token"], start["backbone.cls_token"])
    assert not torch.equal(expected["backbone.blocks.0.mlp.fc1.weight"], start["backbone.blocks.0.mlp.fc1.weight"])


class Interrupt(Callback):
    def on_step(self, epoch: int, step: int, loss: float, lr: float) -> None:
        if (epoch, step) == (2, 2):
            raise KeyboardInterrupt


def test_train_resumed_with_block_rates_is_bit_identical(tmp_path):
    config = CONFIG.replace(block_rates=RATES, epochs=2)
    unbroken, again = model("full"), model("full")
    train(unbroken, examples(), config)
    with pytest.raises(KeyboardInterrupt):
        train(model("full"), examples(), config, checkpoint=tmp_path / "c.safetensors", callback=Interrupt())
    train(again, examples(), config, checkpoint=tmp_path / "c.safetensors")
    for name, tensor in unbroken.trainable_state_dict().items():
        assert torch.equal(again.trainable_state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ("method", "rates", "message"),
    [
        ("linear", "1-3=0", "linear trains nothing in '1-3'"),
        ("mlp", "1-3=0", "mlp.* trains nothing in '1-3'"),
        ("vpt(length=3)", "1-3=0", r"vpt\(length=3\) trains nothing in '1-3'"),
        ("partial(k=1)", "1-2=0", r"partial.* trains nothing in '1-2'"),
        ("lora(rank=2)", "stem=0,1-3=0.1", r"lora\(rank=2\) trains nothing in 'stem'"),
        ("full", "1-4=0", "has 3 blocks; correct '1-4'"),
    ],
)
def test_train_with_block_rates_of_what_does_not_train_is_refused(method, rates, message):
    with pytest.raises(SpecError, match=message):
        train(model(method), examples(), CONFIG.replace(block_rates=rates))


@pytest.mark.parametrize("method", ["bias", "norm", "ssf", "lora(rank=2)", "adaptformer"])
def test_block_rates_reach_what_a_method_trains_in_blocks(method):
    tuned = model(method)
    scales = block_lr_scales(tuned, "1-2=0.1,3=0.5")
    assert {0.1, 0.5, 1.0} == set(scales.values())
    assert all(scales[name] == 1 for name in scales if name.startswith("head."))
