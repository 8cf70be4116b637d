"""The batch size and the rate that `vpt tune` has by default."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vpt
from helpers.two_processes import examples
from vpt.errors import SpecError
from vpt.methods.registry import parse_method
from vpt.tasks.batch_size import with_batch_size
from vpt.tasks.classification.config import ClassificationConfig, default_steps
from vpt.training import Callback, EpochMetrics
from vpt.training.job import RunResult
from vpt.tuning import make_job


@pytest.mark.parametrize(
    ("method", "options", "batch_size", "peak"),
    [
        ("vpt", {}, 16, 0.005),
        ("vpt", {"batch_size": 16}, 16, 0.005),
        ("vpt", {"batch_size": 64}, 64, 0.005),  # as in plans
        ("vpt", {"batch_size": 256}, 256, 0.005),
        ("vpt + bias", {}, 16, 0.005),
        ("full", {}, 16, 5e-4 / 4),
        ("lora", {"optimizer": "adamw"}, 16, 5e-4),
        ("vpt", {"learning_rate": 0.02}, 64, 0.005),  # a rate that is given is per 256 images
        ("vpt", {"learning_rate": 0.02, "batch_size": 32}, 32, 0.0025),
        ("vpt", {"optimizer": "sgd", "learning_rate": 2.0}, 64, 0.5),
        ("vpt", {"batch_size": "auto"}, 16, 0.005),  # until the run has found it
        ("linear", {}, 64, 0.125),
        ("mlp", {"batch_size": 32}, 32, 0.0125),
    ],
)
def test_steps_of_each_method_have_the_rate_that_it_has_at_the_usual_batch(
    method: str, options: dict[str, Any], batch_size: int, peak: float
) -> None:
    training = make_job("digits", method=method, epochs=3, **options).config.training
    assert training.batch_size == batch_size and training.peak_lr == pytest.approx(peak)


@pytest.mark.parametrize(
    ("method", "options", "peak"),
    [
        ("vpt", {}, 0.005), ("full", {}, 0.005), ("lora", {"batch_size": 8}, 0.005), ("vpt + bias", {}, 0.005),
        ("full", {"head_lr_scale": 2.0}, 2.5e-4), ("full", {"learning_rate": 1e-3}, 2.5e-4), ("linear", {}, 0.125),
    ],
)  # fmt: skip
def test_head_learns_at_the_rate_of_prompts(method: str, options: dict[str, Any], peak: float) -> None:
    training = make_job("digits", method=method, epochs=3, **options).config.training
    assert training.peak_lr * training.head_lr_scale == pytest.approx(peak)


def test_head_that_does_not_start_at_random_has_no_faster_rate(tmp_path: Path) -> None:
    assert make_job("digits", method="full", epochs=3, probe_epochs=2).config.training.head_lr_scale == 1
    first = tune(tmp_path / "first.safetensors", learning_rate=1e-3)
    again = tune(tmp_path / "again.safetensors", method=None, init=first.file)
    assert again.job["config"]["head_lr_scale"] == 1 and again.job["config"]["batch_size"] == 16


def test_steps_of_micro_batches_have_as_many_images_at_least() -> None:
    training = make_job("digits", method="full", epochs=3, grad_accum_steps=32).config.training
    assert training.batch_size == 32 and training.peak_lr == pytest.approx(5e-4 / 4)


def test_steps_of_a_plan_are_those_of_its_own_options() -> None:
    training = ClassificationConfig.for_method(parse_method("vpt")).training
    assert (training.batch_size, training.learning_rate) == (64, 0.02)


def test_batch_size_that_a_run_finds_keeps_the_peak_of_default_rates_alone() -> None:
    default, given, probe = (
        with_batch_size(make_job("digits", epochs=3, batch_size="auto", **options), 128).config.training
        for options in ({"method": "full"}, {"method": "full", "learning_rate": 5e-4}, {"method": "linear"})
    )
    assert default == make_job("digits", method="full", epochs=3, batch_size=128).config.training
    assert default.peak_lr == pytest.approx(5e-4 / 4) and given.peak_lr == pytest.approx(5e-4 / 2)
    assert probe.peak_lr == pytest.approx(0.25) and {each.batch_size for each in (default, given, probe)} == {128}


@pytest.mark.parametrize(
    ("options", "peak"),
    [
        ({"method": "vpt", "head_lr_scale": 2.0}, 0.005),
        ({"method": "full", "head_lr_scale": 1.0}, 5e-4 / 4),
        ({"method": "vpt", "grad_accum_steps": 32}, 0.005),
        ({"method": "vpt", "learning_rate": 0.02}, 0.02 * 4),  # which follows the batch size, as it is given
        ({"method": "vpt", "learning_rate": 0.03}, 0.03 * 4),
    ],
)
def test_batch_size_that_a_run_finds_changes_no_rate_that_is_given(options: dict[str, Any], peak: float) -> None:
    before = make_job("digits", epochs=3, batch_size="auto", **options)
    found = with_batch_size(before, 1024).config.training
    assert found.peak_lr == pytest.approx(peak)
    assert found.head_lr_scale == before.config.training.head_lr_scale


def test_batch_size_of_numpy_is_one() -> None:
    given: Any = np.int64(16)
    assert default_steps(parse_method("full"), {"batch_size": given})["learning_rate"] == pytest.approx(0.002)


@pytest.mark.parametrize("batch_size", [0, -3, "many", 2.5, 10**400])
def test_unusable_batch_size_is_refused(batch_size: Any) -> None:
    with pytest.raises(SpecError, match="batch_size"):
        make_job("digits", method="vpt", epochs=3, batch_size=batch_size)
    assert default_steps(parse_method("vpt"), {"batch_size": "many"}) == {"batch_size": "many"}


def tune(out: Path, **options: Any) -> RunResult:
    data = examples()
    images = np.ascontiguousarray(data.pixels.transpose(0, 2, 3, 1))
    return vpt.tune(
        (images, data.labels), out, backbone="vit_nano_patch12_48", progress=False,
        **{"method": "full", "epochs": 2, **options},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "batch_size"),
    [
        ({}, 64),
        ({"batch_size": 16}, 16),
        ({"batch_size": 64}, 64),
        ({"head_lr_scale": 2.0}, 64),
        ({"ridge": "none"}, 64),
        ({"grad_accum_steps": 32}, 64),
        ({"probe_epochs": 1}, 64),
    ],
)
def test_interrupted_run_of_an_earlier_version_goes_on_with_its_steps(
    tmp_path: Path, options: dict[str, Any], batch_size: int
) -> None:
    earlier = {"head_lr_scale": 1.0, "ridge": "none", **options, "batch_size": batch_size, "learning_rate": 5e-4}

    class Stop(Callback):
        def on_epoch(self, record: EpochMetrics) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(tmp_path / "a.safetensors", callback=Stop(), **earlier)
    path = tmp_path / "a.run" / "job.json"
    record = json.loads(path.read_text())
    del record["job"]["ridge"]
    path.write_text(json.dumps(record))
    notes = list[str]()

    class Listen(Callback):
        def on_note(self, text: str) -> None:
            notes.append(text)

    for _ in range(2):  # goes on, and is read
        result = tune(tmp_path / "a.safetensors", callback=Listen(), **options)
        assert {name: result.job["config"].get(name, "none") for name in earlier} == earlier
    assert len([note for note in notes if "goes on with the defaults of that one" in note]) == 1
    expected, found = (
        vpt.load(one.file).trainable_state_dict() for one in (tune(tmp_path / "b.safetensors", **earlier), result)
    )
    assert all(expected[name].equal(found[name]) for name in expected)
