"""The ridge head that `vpt tune` adds where nobody asked for one, and where it adds none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vpt
from helpers.two_processes import examples, model
from vpt.data.memory.datasets import dataset_from_memory
from vpt.errors import SpecError, TrainingError
from vpt.tasks.classification import ridge_head
from vpt.tasks.classification.ridge_head import add_ridge_head_if_better, gains_ridge_head
from vpt.tasks.registry import TASKS
from vpt.training import Callback, EpochMetrics, Examples
from vpt.training.job import RunResult
from vpt.tuning import make_job


def tinted(data: Examples) -> Examples:
    """Images whose class is to be seen, unlike that of noise."""
    return Examples(*tinted_by(data.pixels, data.labels))


def tinted_by(pixels: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pixels = pixels // 2
    pixels[np.arange(len(labels)), labels] += 100
    return pixels, labels


def tune(out: Path, **options: Any) -> RunResult:
    data = tinted(examples())
    images = np.ascontiguousarray(data.pixels.transpose(0, 2, 3, 1))
    settings = {"method": "vpt(length=2)", "epochs": 2, "learning_rate": 0.1, "batch_size": 8, "seed": 3, **options}
    return vpt.tune(
        (images, data.labels), out, backbone="vit_nano_patch12_48", val_fraction=0, test_fraction=0.25, progress=False,
        **settings,
    )  # fmt: skip


def state_of(result: RunResult) -> dict[str, torch.Tensor]:
    return vpt.load(result.file).trainable_state_dict()


def test_default_is_a_ridge_head_on_the_pooled_feature_in_the_same_layout(tmp_path: Path) -> None:
    default, named, alone = (
        tune(tmp_path / f"{name}.safetensors", **options)
        for name, options in {"default": {}, "named": {"ridge": "auto"}, "alone": {"ridge": "none"}}.items()
    )
    joined, expected, trained = state_of(default), state_of(named), state_of(alone)
    assert all(torch.equal(joined[name], expected[name]) for name in expected)
    assert joined.keys() == trained.keys() and default.head == alone.head
    differing = {name for name in joined if not torch.equal(joined[name], trained[name])}
    assert differing == {"head.weight", "head.bias"}
    assert [note for note in default.notes if "a ridge head joins the trained head" in note] and not alone.notes


@pytest.mark.parametrize(
    ("method", "gains"),
    [
        ("vpt", True), ("full", True), ("vpt + bias", True), ("lora", True), ("head2toe", True),
        ("linear", False), ('linear(output="cls")', False), ("mlp", False), ("vpt + mlp", False),
    ],
)  # fmt: skip
def test_gains_ridge_head_with_a_linear_head_beside_which_something_trains(method: str, gains: bool) -> None:
    assert gains_ridge_head(model(method)) == gains


@pytest.mark.parametrize(
    ("options", "joins"),
    [
        ({}, True),
        ({"ridge": "default"}, True),
        ({"ridge": "none"}, False),
        ({"ridge": 0.5}, False),  # which was asked for
        ({"head": "multi_block(blocks=last2)"}, False),
        ({"head": "linear"}, True),
        ({"class_weights": "balanced"}, False),
        ({"balanced_sampling": True}, False),
    ],
)
def test_joins_by_default_where_nothing_speaks_against_it(options: dict[str, Any], joins: bool) -> None:
    job = make_job("digits", method="vpt", epochs=2, backbone="vit_nano_patch12_48", images_per_class=2, **options)
    data: Any = TASKS["classification"].prepare(job, Callback())
    assert data.joins_by_default == joins and data.ridge == (0.5 if options.get("ridge") == 0.5 else None)


def test_joins_by_default_for_one_class_an_image(tmp_path: Path) -> None:
    tags = np.maximum(np.eye(3)[examples().labels], np.eye(3)[0])  # all have a, and some b or c
    for labels, classes in ((tags, ["a", "b", "c"]), (1.5 * examples().labels, ["size"])):
        images = list(examples().pixels.transpose(0, 2, 3, 1))
        data = dataset_from_memory({"train": (images, labels)}, classes)
        job = make_job(data, tmp_path / "x.safetensors", epochs=2, backbone="vit_nano_patch12_48")
        prepared: Any = TASKS["classification"].prepare(job, Callback())
        assert not prepared.joins_by_default


def add(data: Examples) -> tuple[bool, str]:
    tuned = model("vpt(length=3, dropout=0)")
    found, note = add_ridge_head_if_better(tuned, data, bf16=False, on_batch=lambda done, total: None)
    return found is tuned, note


def test_one_image_of_each_class_keeps_the_trained_head_alone() -> None:
    data = examples()
    first = [int(np.flatnonzero(data.labels == k)[0]) for k in range(3)]
    is_alone, note = add(Examples(data.pixels[first], data.labels[first]))
    assert is_alone and note.endswith("predicted no better than by the shares of the classes")


def test_noise_keeps_the_trained_head_alone_and_classes_that_show_do_not() -> None:
    pixels, labels = np.repeat(examples().pixels, 2, 0), np.array([0] * 40 + [1] * 4 + [2] * 4)
    noise = np.random.default_rng(1).integers(0, 256, pixels.shape, np.uint8)
    assert add(Examples(noise, labels))[0]
    assert not add(Examples(*tinted_by(noise, labels)))[0]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        TrainingError("features are NaN"),
    ],
)
def test_failure_keeps_the_trained_head_alone(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(ridge_head, "add_ridge_head", fail)
    is_alone, note = add(examples())
    assert is_alone and note.endswith(("features are NaN", "memory does not suffice"))
    monkeypatch.setattr(ridge_head, "add_ridge_head", lambda *args, **options: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        add(examples())  # which is a fault of ours


def test_arrays_that_would_fill_memory_keep_the_trained_head_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ridge_head, "_MAX_BYTES", 1000)
    is_alone, note = add(examples())
    assert is_alone and "kB of memory; --ridge auto adds it" in note


def test_many_images_are_not_passed_through_the_frozen_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their copies are not searched for; known groups stay together."""
    data, passes = examples(), list[int]()
    compute, best = ridge_head.compute_features, ridge_head.Ridge.best
    found = list[object]()
    monkeypatch.setattr(ridge_head, "compute_features", lambda *a, **k: passes.append(1) or compute(*a, **k))
    monkeypatch.setattr(ridge_head.Ridge, "best", lambda ridge, groups: found.append(groups) or best(ridge, groups))
    add(data)
    monkeypatch.setattr(ridge_head, "MAX_COMPARED", len(data) - 1)
    add(data)
    add(replace(data, groups=np.arange(len(data)) // 2 + 100))
    assert len(passes) == 2 + 1 + 1 and found[1] is None
    np.testing.assert_array_equal(found[2], np.arange(len(data)) // 2)  # type: ignore[arg-type]


def forget_ridge(run_dir: Path) -> None:
    """Give a run the files that a version before this option's default left."""
    record = json.loads((run_dir / "job.json").read_text())
    assert record["job"].pop("ridge") in ("default", "none")
    (run_dir / "job.json").write_text(json.dumps(record))


def test_finished_run_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    tune(out, ridge="none")
    forget_ridge(tmp_path / "a.run")
    before = out.stat().st_mtime_ns
    for options in ({}, {"ridge": "none"}, {"ridge": "default"}):
        tune(out, **options)
    assert out.stat().st_mtime_ns == before
    with pytest.raises(SpecError, match="ridge: None then, auto now"):
        tune(out, ridge="auto")


class Stop(Callback):
    def on_epoch(self, record: EpochMetrics) -> None:
        raise KeyboardInterrupt


def test_interrupted_run_of_an_earlier_version_goes_on_without_a_ridge_head(tmp_path: Path) -> None:
    expected = state_of(tune(tmp_path / "whole.safetensors", ridge="none"))
    with pytest.raises(KeyboardInterrupt):
        tune(tmp_path / "a.safetensors", callback=Stop())
    forget_ridge(tmp_path / "a.run")
    found = state_of(tune(tmp_path / "a.safetensors"))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_run_without_a_ridge_head_is_another_one_than_the_default(tmp_path: Path) -> None:
    tune(tmp_path / "a.safetensors", ridge="none")
    with pytest.raises(SpecError, match="ridge: none then, default now"):
        tune(tmp_path / "a.safetensors")


def test_folds_of_a_run_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    data = tinted(examples())
    images = np.ascontiguousarray(data.pixels.transpose(0, 2, 3, 1))
    options: dict[str, Any] = {"backbone": "vit_nano_patch12_48", "method": "bias", "epochs": 1, "folds": 2}
    for name in ("a", "b"):
        result = vpt.tune((images, data.labels), tmp_path / f"{name}.safetensors", progress=False, **options,
                          **({"ridge": "none"} if name == "a" else {}))  # fmt: skip
        assert result.folds is not None
        assert any("ridge head" in note for note in result.notes) == (name == "b")
    forget_ridge(tmp_path / "a.run")
    before = (tmp_path / "a.safetensors").stat().st_mtime_ns
    vpt.tune((images, data.labels), tmp_path / "a.safetensors", progress=False, **options)
    assert (tmp_path / "a.safetensors").stat().st_mtime_ns == before


def test_interrupted_folds_of_an_earlier_version_go_on_without_a_ridge_head(tmp_path: Path) -> None:
    """All folds are scored with the head that the final model gets."""
    data = tinted(examples())
    images = np.ascontiguousarray(data.pixels.transpose(0, 2, 3, 1))
    options: dict[str, Any] = {"backbone": "vit_nano_patch12_48", "method": "bias", "epochs": 1, "folds": 3}

    class StopInSecondFold(Callback):
        def on_note(self, text: str) -> None:
            if text == "fold 2 of 3":
                raise KeyboardInterrupt

    out = tmp_path / "a.safetensors"
    with pytest.raises(KeyboardInterrupt):
        vpt.tune((images, data.labels), out, progress=False, callback=StopInSecondFold(), **options, ridge="none")
    forget_ridge(tmp_path / "a.run" / "fold-1.run")
    result = vpt.tune((images, data.labels), out, progress=False, **options)
    assert not any("ridge head joins" in note for note in result.notes)
    whole = vpt.tune((images, data.labels), tmp_path / "b.safetensors", progress=False, ridge="none", **options)
    assert result.folds == whole.folds
    for record in (tmp_path / "a.run").glob("**/job.json"):
        assert json.loads(record.read_text())["job"].get("ridge") is None


def test_training_that_goes_on_from_a_file_keeps_its_head(tmp_path: Path) -> None:
    first = tune(tmp_path / "first.safetensors")
    for ridge in (None, "none", "default"):
        again = tune(tmp_path / f"{ridge}.safetensors", method=None, init=first.file, ridge=ridge)
        assert not any("ridge head" in note for note in again.notes)
    with pytest.raises(SpecError, match=r"ridge: .*decides on"):
        tune(tmp_path / "refused.safetensors", method=None, init=first.file, ridge="auto")


def test_one_group_of_all_images_leaves_none_to_learn_from() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (60, *examples().pixels.shape[1:]), np.uint8)
    data = Examples(*tinted_by(noise, np.arange(60) % 3))
    assert not add(data)[0]
    is_alone, note = add(replace(data, groups=np.zeros(len(data), np.int64)))
    assert is_alone and "no better than by the shares" in note
