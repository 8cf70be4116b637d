"""One graph of a backbone predicts for every task as the task's own model does."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.families import backbone_of, images
from vpt import TunedModel, attach
from vpt.errors import TunedFileError, UnsupportedError
from vpt.export import export_backbone, export_task
from vpt.runtime import SharedModel

SPECS = [
    "vpt(length=3)",
    "vpt(length=5, projection=4)",
    "vpt(length=2, depth=2-3)",
    "prefix(length=4)",
    "linear",
    "mlp",
]


def trained(method: str, family: str, num_classes: int) -> TunedModel:
    torch.manual_seed(len(method))
    model = attach(backbone_of(family), method, num_classes)
    model(images(8, seed=5))  # batch norm of an MLP has statistics of its own
    with torch.no_grad():
        for weight in model.trainable_parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return model.eval()


@pytest.mark.parametrize("family", ["vit", "dinov2-reg", "eva02", "beit"])
def test_images_of_different_tasks_in_one_pass_equal_each_model_alone(tmp_path: Path, family: str) -> None:
    export_backbone(backbone_of(family), tmp_path / "backbone.onnx")
    engine = SharedModel(tmp_path / "backbone.onnx")
    models = [trained(spec, family, 2 + index) for index, spec in enumerate(SPECS)]
    tasks = []
    for index, model in enumerate(models):
        export_task(model, tmp_path / f"{index}.safetensors")
        tasks.append(engine.load(tmp_path / f"{index}.safetensors"))
    batch = images(2 * len(models), seed=3)
    found = engine.logits(batch.numpy(), tasks * 2)
    for index, (image, logits) in enumerate(zip(batch, found, strict=True)):
        with torch.no_grad():
            expected = models[index % len(models)](image[None]).squeeze(0).numpy()
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("method", ["vpt(length=2)", "lora(rank=2)"])
def test_export_of_a_task_leaves_the_mode_of_the_model(tmp_path: Path, method: str) -> None:
    model = trained(method, "vit", 3).train()
    with suppress(UnsupportedError):
        export_task(model, tmp_path / "task.safetensors")
    assert model.training and model.head.training


@pytest.mark.parametrize(
    "method", ["lora(rank=2)", "vpt(length=3, depth=shallow)", "vpt(length=3, attention=zero_init)"]
)
def test_method_that_is_more_than_prompts_is_refused(tmp_path: Path, method: str) -> None:
    with pytest.raises(UnsupportedError, match=r"write \.onnx"):
        export_task(trained(method, "vit", 3), tmp_path / "task.safetensors")
    assert not list(tmp_path.iterdir())


def test_backbone_without_keys_and_values_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="has no blocks with attention"):
        export_backbone(backbone_of("convnext"), tmp_path / "backbone.onnx")


def test_task_of_another_backbone_is_refused(tmp_path: Path) -> None:
    export_backbone(backbone_of("vit"), tmp_path / "backbone.onnx")
    export_task(trained("vpt(length=3)", "deit3", 3), tmp_path / "task.safetensors")
    with pytest.raises(TunedFileError, match="export both from the same weights"):
        SharedModel(tmp_path / "backbone.onnx").load(tmp_path / "task.safetensors")
