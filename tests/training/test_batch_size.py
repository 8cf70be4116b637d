"""`--batch-size auto`: the largest batch that fits, found once, recorded, and used again by the resumed run."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import vpt
from helpers.two_processes import model
from vpt.core import environment
from vpt.data.memory.datasets import dataset_from_memory
from vpt.errors import SpecError
from vpt.training import Callback, TrainingConfig, batch_size
from vpt.training.batch_size import find_batch_size, largest_fitting
from vpt.training.job import Job
from vpt.tuning import make_job, run_job

MIB = 2**20


@pytest.mark.parametrize(
    ("first", "limit", "found"), [(64, 999, 64), (100, 999, 64), (64, 9, 8), (64, 2, 2), (64, 1, None), (1, 1, 1)]
)
def test_largest_fitting_halves_until_it_fits(first, limit, found):
    assert largest_fitting(lambda images: images <= limit, first) == found


@pytest.mark.parametrize("method", ["vpt(length=3)", "full"])
def test_find_batch_size_on_a_cpu_keeps_activations_below_a_quarter(method, monkeypatch):
    def kept(images: int) -> int:
        found: dict[int, int] = {}
        tuned = model(method).train()
        weights = {weight.untyped_storage().data_ptr() for weight in tuned.parameters()}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            tuned(torch.zeros(images, 3, 32, 32)).mean()
        return sum(size for pointer, size in found.items() if pointer not in weights)

    for memory in (4 * kept(16), 4 * kept(8)):
        monkeypatch.setattr(environment, "available_memory", lambda memory=memory: int(1.1 * memory))
        size, reason = find_batch_size(model(method), TrainingConfig(batch_size=64), 1000)
        assert size == (16 if memory == 4 * kept(16) else 8)
        assert f"a step of {size} images fits into" in reason and "available memory" in reason
    monkeypatch.setattr(environment, "available_memory", lambda: 2**40)
    assert find_batch_size(model(method), TrainingConfig(batch_size=64), 1000)[0] == 64
    assert find_batch_size(model(method), TrainingConfig(batch_size=64), 20)[0] == 16
    assert find_batch_size(model(method), TrainingConfig(batch_size=64, grad_accum_steps=4), 1000)[0] == 64
    monkeypatch.setattr(environment, "available_memory", lambda: 1000)
    with pytest.raises(SpecError, match=r"batch_size is 'auto', and not even 2 images fit into .*; give --activation-"):
        find_batch_size(model(method), TrainingConfig(), 1000)


def test_step_on_a_gpu_that_is_out_of_memory_does_not_fit(monkeypatch):
    """What a GPU does is played: tries of more than eight images are out of memory."""
    tried: list[int] = []

    def loss(tuned: Any, training: TrainingConfig, images: int) -> torch.Tensor:
        tried.append(images)
        if images > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return tuned(torch.zeros(images, 3, 32, 32)).mean()

    monkeypatch.setattr(batch_size, "_loss", loss)
    for name in ("reset_peak_memory_stats", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda *args: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * MIB)
    tuned = model("full")
    start = {name: tensor.clone() for name, tensor in tuned.trainable_state_dict().items()}
    fits = lambda images: batch_size._peak_bytes(tuned, TrainingConfig(), images) <= 4 * MIB  # noqa: E731
    assert largest_fitting(fits, 64) == 8 and tried == [64, 32, 16, 8]
    assert all(weight.grad is None for weight in tuned.parameters())
    assert all(torch.equal(tensor, start[name]) for name, tensor in tuned.trainable_state_dict().items())


@pytest.mark.parametrize(("limit", "memory", "found"), [(8, 100, 8), (64, 4, 4), (1, 100, None)])
def test_find_batch_size_on_a_played_gpu_halves_until_a_step_fits(limit, memory, found, monkeypatch):
    """A step of more than `limit` images is out of memory; one of n images takes n MiB."""
    tuned, tried = model("vpt(length=3)"), list[int]()

    class OnGpu:
        """The model, whose weights say that they are on a GPU."""

        def parameters(self) -> Any:
            yield SimpleNamespace(device=SimpleNamespace(type="cuda"))

        def __getattr__(self, name: str) -> Any:
            return getattr(tuned, name)

    def loss(_: Any, training: TrainingConfig, images: int) -> torch.Tensor:
        tried.append(images)
        if images > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return tuned.train()(torch.zeros(images, 3, 32, 32)).mean()

    monkeypatch.setattr(batch_size, "_loss", loss)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: tried[-1] * MIB)
    properties = SimpleNamespace(total_memory=int(memory * MIB / 0.7) + 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    if found is None:
        with pytest.raises(SpecError, match="batch_size is 'auto', and not even 2 images fit into"):
            find_batch_size(OnGpu(), TrainingConfig(), 100)  # type: ignore[arg-type]
    else:
        size, reason = find_batch_size(OnGpu(), TrainingConfig(grad_accum_steps=2), 100)  # type: ignore[arg-type]
        assert size == 2 * found and "of the GPU's memory" in reason
    assert tried == [64 >> k for k in range(len(tried))] and tried[-1] == (found or 2)
    assert all(weight.grad is None for weight in tuned.parameters())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_find_batch_size_on_a_gpu_fits_into_its_memory():
    size, reason = find_batch_size(model("full").to("cuda"), TrainingConfig(), 10_000)
    assert size == 1024 and "of the GPU's memory" in reason


def job(folder: Path, name: str, **options: Any) -> Job:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 48, 48, 3), np.uint8)
    split = (pixels, [k % 2 for k in range(24)])
    data = dataset_from_memory({"train": split, "val": split, "test": split})
    return make_job(data, folder / name, method="vpt(length=2)", epochs=2, **options)


class Record(Callback):
    def __init__(self, stop_in: int = 0) -> None:
        self.stop_in, self.notes, self.steps = stop_in, list[str](), list[tuple[int, int]]()

    def on_note(self, text: str) -> None:
        self.notes.append(text)

    def on_step(self, epoch: int, step: int, loss: float, lr: float) -> None:
        self.steps.append((epoch, step))
        if epoch == self.stop_in:
            raise KeyboardInterrupt


def test_run_job_with_auto_batch_size_records_it_and_resumes_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(batch_size, "_activation_bytes", lambda tuned, training, images: images * MIB)
    monkeypatch.setattr(environment, "available_memory", lambda: 4 * 8 * MIB)
    first = Record(stop_in=2)
    with pytest.raises(KeyboardInterrupt):
        run_job(job(tmp_path, "a.safetensors"), first, draw=False, auto_batch_size=True)
    (note,) = (note for note in first.notes if "batch size" in note)
    assert note.startswith("the batch size is 8: a step of 8 images fits into")
    assert first.steps == [(1, 1), (1, 2), (1, 3), (2, 1)]
    monkeypatch.setattr(environment, "available_memory", lambda: 4 * 2 * MIB)
    resumed = run_job(job(tmp_path, "a.safetensors"), draw=False, auto_batch_size=True)
    assert json.loads((tmp_path / "a.run/job.json").read_text())["job"]["config"]["batch_size"] == 8
    assert tomllib.loads((tmp_path / "a.run/run.toml").read_text())["batch_size"] == 8
    assert resumed.job["config"]["batch_size"] == 8
    whole = run_job(job(tmp_path, "b.safetensors", batch_size=8), draw=False)
    assert resumed.metrics == whole.metrics
    for name, tensor in load_file(tmp_path / "a.safetensors").items():
        assert torch.equal(tensor, load_file(tmp_path / "b.safetensors")[name]), name
    again = run_job(job(tmp_path, "a.safetensors"), draw=False, auto_batch_size=True, overwrite=True)
    assert again.job["config"]["batch_size"] == 2
    assert any("the batch size is 2" in note for note in again.notes)


def test_tune_with_auto_batch_size_in_a_search_is_refused(tmp_path):
    with pytest.raises(SpecError, match="batch_size is 'auto', and a search itself finds how to train"):
        vpt.tune("digits", tmp_path / "x.safetensors", batch_size="auto", minutes=1, progress=False)
    for options in ({"patience": 2}, {"keep": "best"}):
        with pytest.raises(SpecError, match="and a search itself finds how to train, and how long; give a length such"):
            vpt.tune("digits", tmp_path / "x.safetensors", minutes=1, progress=False, **options)
