"""A protocol with a plan on it: what the plan takes, what it changes, and which figures that concerns."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

import vpt.protocols
from vpt import VPT, Full
from vpt.errors import SpecError
from vpt.methods.base import Method
from vpt.methods.bias import Bias
from vpt.methods.registry import parse_method
from vpt.protocols import Departure, apply_protocol, describe_protocol, load_protocol

PLAN = {"name": "mine", "protocol": "paper", "benchmark": "vtab"}


def departures_of(**keys: Any) -> dict[str, tuple[Any, Any]]:
    return {one.key: (one.protocol, one.plan) for one in apply_protocol({**PLAN, **keys})[1]}


def test_apply_protocol_without_one_changes_nothing() -> None:
    plan = {"name": "mine", "training": {"epochs": 2}}
    assert apply_protocol(plan) == (plan, ())


def test_apply_protocol_of_a_bare_plan_takes_everything() -> None:
    merged, departures = apply_protocol(PLAN)
    paper = load_protocol("paper")
    assert merged.pop("methods") == [
        {key: value for key, value in row.items() if key != "on_backbone"} for row in paper["methods"]
    ]
    assert merged == {**{key: value for key, value in paper.items() if key not in ("published", "methods")}, **PLAN}
    assert departures == ()


def test_apply_protocol_leaves_the_protocol_as_it_is() -> None:
    before = tomllib.loads((Path(vpt.protocols.__file__).parent / "paper.toml").read_text())
    apply_protocol({**PLAN, "training": {"epochs": 2}, "methods": [{"name": "Full", "batch_size": 8}]})
    assert load_protocol("paper") == before


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"training": {"epochs": 2}}, {"training.epochs": (100, 2)}),
        ({"training": {"epochs": 100}}, {}),
        ({"training": {"precision": "bf16"}}, {"training.precision": (None, "bf16")}),
        ({"interpolation": "nearest", "seeds": 1}, {"interpolation": ("bilinear", "nearest"), "seeds": (5, 1)}),
        ({"benchmarks": {"fgvc": {"train_on": "trainval"}}}, {"benchmarks.fgvc.train_on": ("train", "trainval")}),
        ({"grids": {"mine": {"optimizer": "sgd"}}}, {"grids.mine": (None, {"optimizer": "sgd"})}),
        ({"grids": {"sgd": {"batch_size": 64}}}, {"grids.sgd.batch_size": (None, 64)}),
        ({"resize": "squash", "val_fraction": 0.2, "test_fraction": 0.2, "train_on": "trainval"}, {}),
        ({"methods": ["Full", "VPT-deep"], "keep_tuned": False, "baseline": "Full"}, {}),
        ({"methods": [{"name": "Full", "batch_size": 64}]}, {"methods.Full.batch_size": (None, 64)}),
        ({"methods": [{"name": "Linear", "batch_size": 2048}]}, {}),
        ({"methods": ["lora(rank=8)"]}, {"methods.lora(rank=8)": (None, "lora(rank=8)")}),
        ({"methods": [{"spec": "lora"}]}, {"methods.lora": (None, {"spec": "lora"})}),
        ({"methods": [{"spec": ["mlp", "lora"]}]}, {"methods.mlp | lora": (None, {"spec": ["mlp", "lora"]})}),
        ({"tasks": [{"name": "cub"}]}, {"tasks.cub": (None, {"name": "cub"})}),
        ({"weights": "a.npz"}, {"weights": (None, "a.npz")}),
    ],
)
def test_apply_protocol_names_what_the_plan_sets_otherwise(
    keys: dict[str, Any], expected: dict[str, tuple[Any, Any]]
) -> None:
    assert departures_of(**keys) == expected


def test_apply_protocol_merges_a_row_into_that_of_its_name() -> None:
    linear, deep = apply_protocol({**PLAN, "methods": ["Linear", {"name": "VPT-deep", "spec": "vpt(length=7)"}]})[0][
        "methods"
    ]
    head = "linear(init=kaiming)"
    assert linear == {"name": "Linear", "head": head, "spec": "linear", "grid": "sgd", "batch_size": 2048}
    assert deep == {"name": "VPT-deep", "head": head, "spec": "vpt(length=7)", "grid": "sgd"}  # not the variants


def test_apply_protocol_on_a_swin_has_the_stochastic_depth_of_the_official_code() -> None:
    swin, vit = "swin_base_patch4_window7_224.ms_in22k", "vit_base_patch16_224.mae"
    for plan in ({"backbone": swin}, {"methods": [{"name": "Full", "backbone": swin}]}):
        merged, departures = apply_protocol({**PLAN, **plan})
        assert parse_method(merged["methods"][0]["spec"]) == Full(drop_path=0.5)
        assert len(departures) == 1 and departures[0].key.endswith("backbone")  # the method is the protocol's
    for plan in ({"backbone": vit}, {"backbone": swin, "methods": [{"name": "Full", "backbone": vit}]}):
        assert parse_method(apply_protocol({**PLAN, **plan})[0]["methods"][0]["spec"]) == Full(dropout=0.1)
    own = {"backbone": swin, "methods": [{"name": "Full", "spec": "full"}]}
    assert departures_of(**own)["methods.Full.spec"] == ("full(drop_path=0.5)", "full")


def test_apply_protocol_on_a_swin_has_the_biases_and_prompts_of_the_official_code() -> None:
    def methods(backbone: str) -> dict[str, list[Method]]:
        found: dict[str, list[Method]] = {}
        for row in apply_protocol({**PLAN, "backbone": backbone})[0]["methods"]:
            specs = [table["spec"] for table in row.get("variants", [row])]
            texts = chain.from_iterable([spec] if isinstance(spec, str) else spec for spec in specs)
            found[row["name"]] = list(map(parse_method, texts))
        return found

    swin, vit = methods("swin_base_patch4_window7_224.ms_in22k"), methods("vit_base_patch16_224.orig_in21k")
    prompts = ("VPT-shallow", "VPT-deep")
    assert (vit["Bias"], swin["Bias"]) == ([Bias()], [Bias(rel_pos_bias=True)])
    for name in prompts:
        pooled = [replace(method, pool_prompts=True) for method in vit[name] if isinstance(method, VPT)]
        assert swin[name] == pooled and len(pooled) == 6
    assert all(swin[name] == vit[name] for name in vit.keys() - {"Full", "Bias", *prompts})


def test_paper_protocol_selects_by_the_last_epoch_and_smaller_rates() -> None:
    paper = load_protocol("paper")
    assert (paper["selection"], paper["ties"]) == ("last_epoch", "smaller_rate")
    assert departures_of(ties="order") == {"ties": ("smaller_rate", "order")}


def test_apply_protocol_of_unknown_name_is_refused() -> None:
    with pytest.raises(SpecError, match=r"there is no protocol 'papper'; did you mean 'paper'.*leave protocol out"):
        apply_protocol({"protocol": "papper"})


@pytest.mark.parametrize(
    ("key", "concerned"),
    [
        ("training.epochs", {("Full", "cub"), ("Full", "dtd"), ("VPT", "cub"), ("VPT", "dtd")}),
        ("methods.Full.batch_size", {("Full", "cub"), ("Full", "dtd")}),
        ("methods.VPT", {("VPT", "cub"), ("VPT", "dtd")}),
        ("tasks.cub", {("Full", "cub"), ("VPT", "cub")}),
        ("seeds", set()),
        ("first_seed", set()),
        ("grids.mine", set()),  # the rows that take it are departures themselves
        ("grids.sgd.batch_size", {("Full", "cub"), ("Full", "dtd"), ("VPT", "cub"), ("VPT", "dtd")}),
    ],
)
def test_departure_concerns_its_row_or_task_or_all(key: str, concerned: set[tuple[str, str]]) -> None:
    departure = Departure(key, None, 1)
    assert {(m, t) for m in ("Full", "VPT") for t in ("cub", "dtd") if departure.concerns(m, t)} == concerned


def test_describe_protocol_names_every_departure() -> None:
    assert describe_protocol(None, ()) == []
    assert describe_protocol("paper", ()) == ["Protocol: paper, without departures."]
    found = (Departure("seeds", 5, 1), Departure("training.epochs", 100, 2))
    expected = ["Protocol: paper, except that seeds is 1, not 5; training.epochs is 2, not 100."]
    assert describe_protocol("paper", found) == expected


def test_paper_protocol_has_the_grids_of_the_official_code() -> None:
    grids = load_protocol("paper")["grids"]
    decays = {0.01, 0.001, 0.0001, 0.0}
    assert {name: set(grid["weight_decay"]) for name, grid in grids.items()} == dict.fromkeys(grids, decays)
    prompt = {5.0, 2.5, 1.0, 50.0, 25.0, 10.0, 0.5, 0.25, 0.1, 0.05}
    assert set(grids["adamw"]["learning_rate"]) == {0.001, 0.0001, 0.0005, 0.005}
    assert set(grids["sgd"]["learning_rate"]) == prompt
    assert set(grids["sgd_large"]["learning_rate"]) == prompt | {500, 1000, 250, 100}


def test_paper_protocol_has_the_weight_decay_and_dropout_of_the_official_code() -> None:
    protocol = load_protocol("paper")
    assert protocol["training"]["decay"] == "official" and not any(
        "decay" in grid for grid in protocol["grids"].values()
    )
    (full,) = (row for row in protocol["methods"] if row["name"] == "Full")
    assert parse_method(full["spec"]) == Full(dropout=0.1)
