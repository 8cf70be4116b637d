"""Every script in examples/ runs, and trains what a plain loop trains from the same start in the same order."""

from __future__ import annotations

import contextlib
import math
import runpy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import sklearn.metrics
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import vpt
from vpt.data.synthetic.tasks import generate

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))
RESUMED = ["lightning_trainer", "pytorch_loop", "transformers_trainer"]
EPOCHS, BATCH, TRAIN = 4, 32, 160
STEPS = EPOCHS * TRAIN // BATCH


@dataclass
class Reference:
    """A training by a plain loop. loss: mean of the last epoch. half: trainable tensors after half of the epochs."""

    loss: float
    logits: Tensor
    half: dict[str, Tensor]


def train(learning_rates: list[float]) -> Reference:
    backbone = vpt.load_backbone("vit_nano_patch12_48")
    images, labels = generate("digits", 240, seed=0)
    inputs = backbone.preprocessing.normalize(torch.from_numpy(images).permute(0, 3, 1, 2))
    targets = torch.from_numpy(labels)
    torch.manual_seed(0)
    model = vpt.attach(backbone, "vpt(length=4, dropout=0)", num_classes=10).train()
    optimizer = torch.optim.AdamW(model.trainable_parameters(), weight_decay=1e-4)
    losses, half = [], {}
    for step, rate in enumerate(learning_rates):
        if step == len(learning_rates) // 2:
            half = {name: tensor.detach().clone() for name, tensor in model.trainable_state_dict().items()}
        batch = slice(step * BATCH % TRAIN, step * BATCH % TRAIN + BATCH)
        optimizer.param_groups[0]["lr"] = rate
        loss = cross_entropy(model(inputs[batch].contiguous()), targets[batch])  # as a DataLoader gives it
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.inference_mode():
        logits = model.eval()(inputs[TRAIN:])
    return Reference(float(np.mean(losses[-TRAIN // BATCH :])), logits, half)


@contextlib.contextmanager
def training_passes() -> Iterator[list[nn.Module]]:
    """Collect the tuned models in train mode that are called, once for each call."""
    calls: list[nn.Module] = []

    def count(module: nn.Module, _: object) -> None:
        if isinstance(module, vpt.TunedModel) and module.training:
            calls.append(module)

    handle = nn.modules.module.register_module_forward_pre_hook(count)
    yield calls
    handle.remove()


@dataclass
class Run:
    """An example after its run. values: its global names. folder: where its files are. passes: of training."""

    values: dict[str, Any]
    folder: Path
    passes: int


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Runs of the examples by name. Each runs once."""
    return {}


@pytest.fixture
def run(
    request: pytest.FixtureRequest,
    runs: dict[str, Run],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Run:
    """The run of the example that a test names."""
    name: str = request.param
    if name not in runs:
        folder = tmp_path_factory.mktemp(name)
        monkeypatch.chdir(folder)
        with training_passes() as calls:
            values = runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        runs[name] = Run(values, folder, len(calls))
    return runs[name]


@pytest.fixture(scope="module")
def reference() -> Reference:
    """Training at a constant learning rate."""
    return train([1e-2] * STEPS)


@pytest.mark.parametrize("run", [name for name in NAMES if name != "timm_optimizer"], indirect=True)
def test_example_trains_as_a_plain_loop(run: Run, reference: Reference) -> None:
    torch.testing.assert_close(run.values["logits"], reference.logits, rtol=1e-5, atol=1e-5)
    assert run.values["loss"] == pytest.approx(reference.loss, abs=1e-5)


@pytest.mark.parametrize("run", NAMES, indirect=True)
def test_example_saves_what_it_trained(run: Run) -> None:
    model, path = run.values["model"].eval(), run.folder / run.values["path"]
    again = vpt.load(path, run.values["backbone"])
    images = run.values["inputs"][TRAIN:]
    with torch.inference_mode():
        assert torch.equal(model(images), run.values["logits"])
        assert torch.equal(again(images), run.values["logits"])
    assert path.stat().st_size < 25_000


@pytest.mark.parametrize("run", NAMES, indirect=True)
def test_example_runs_each_step_once(run: Run) -> None:
    assert run.passes == STEPS  # with a resume that starts again there would be more


@pytest.mark.parametrize("run", RESUMED, indirect=True)
def test_checkpoint_holds_the_trainable_tensors_of_its_step(run: Run, reference: Reference) -> None:
    checkpoint = run.folder / f"transformers/checkpoint-{STEPS // 2}"
    if checkpoint.exists():
        state = safetensors.torch.load_file(checkpoint / "model.safetensors")
    elif (run.folder / "lightning.ckpt").exists():
        state = torch.load(run.folder / "lightning.ckpt", weights_only=True)["state_dict"]
    else:
        state = torch.load(run.folder / "checkpoint.pt", weights_only=True)["model"]
    torch.testing.assert_close(dict(state), reference.half, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("run", ["timm_optimizer"], indirect=True)
def test_timm_optimizer_follows_its_schedule(run: Run) -> None:
    warmup = STEPS // EPOCHS
    rates = [1e-4 + (1e-2 - 1e-4) * step / warmup for step in range(warmup)]
    rates += [1e-5 + (1e-2 - 1e-5) * (1 + math.cos(math.pi * step / STEPS)) / 2 for step in range(warmup, STEPS)]
    assert run.values["learning_rates"] == pytest.approx(rates, rel=1e-6)
    expected = train(rates)
    torch.testing.assert_close(run.values["logits"], expected.logits, rtol=1e-5, atol=1e-5)
    assert run.values["loss"] == pytest.approx(expected.loss, abs=1e-5)


@pytest.mark.parametrize("run", ["torchmetrics_scores"], indirect=True)
def test_torchmetrics_scores_agree_with_scikit_learn(run: Run, reference: Reference) -> None:
    predictions, labels = reference.logits.argmax(1).numpy(), run.values["test_labels"].numpy()
    scores = run.values["scores"]
    assert float(scores["top1"]) == pytest.approx(sklearn.metrics.accuracy_score(labels, predictions))
    assert float(scores["macro_f1"]) == pytest.approx(sklearn.metrics.f1_score(labels, predictions, average="macro"))
    expected = sklearn.metrics.confusion_matrix(labels, predictions, labels=range(10))
    assert np.array_equal(scores["confusion"].numpy(), expected)
