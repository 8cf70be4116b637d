"""A batch that mixes tasks gives the logits of each task alone."""

from __future__ import annotations

import pytest
import torch

from helpers.families import FAMILIES, backbone_of, images
from vpt import TunedModel, attach
from vpt.errors import UnsupportedError
from vpt.serving.multi_task import MultiTaskBackbone, TaskAdapter

SPECS = (
    "vpt(length=3)",
    "vpt(length=3)",
    "linear",
    "vpt(length=5)",
    "mlp(layers=2)",
    'vpt(length=2, depth="2-3")',
    "vpt(length=2, shared=blocks)",
    "vpt(length=4, projection=8)",
    "vpt(length=3, attention=zero_init)",
    "vpt(length=4, rank=2)",
    "vpt(length=4, fourier=0.5)",
    "prefix(length=3)",
    "prefix(length=3, shared=true)",
    "cross(length=3)",
    "cross(length=3)",
    "cross(length=2, depth=2-3, gate=true) + vpt(length=3)",
    "adaptive(length=2)",
    "adaptive(length=2)",
    "adapter(reduction=4)",
    "adaptformer(bottleneck=4)",
)


def tuned(family: str, specs: tuple[str, ...] = SPECS) -> list[TunedModel]:
    """A model of each spec that fits, with weights of their own, on one backbone."""
    backbone, models = backbone_of(family), []
    for seed, spec in enumerate(specs):
        try:
            model = attach(backbone, spec, 2 + seed % 3).eval()
        except UnsupportedError:
            continue
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in model.trainable_parameters():
                weight.normal_(generator=generator)
        models.append(model)
    return models


@pytest.mark.parametrize("family", FAMILIES)
def test_multi_task_backbone_with_mixed_tasks_equals_single_models(family: str) -> None:
    models = [model for model in tuned(family) if TaskAdapter.from_model(model) is not None]
    expected = len(SPECS) if FAMILIES[family].prompts and FAMILIES[family].supports_kv_prompts else 2
    expected = len(SPECS) - 3 if family == "swin" else expected  # neither ranges of blocks nor prompts of the image
    assert len(models) == expected, "prompts and parts of blocks mix wherever blocks are known; heads everywhere"
    multi_task, tasks = MultiTaskBackbone(models[0].backbone), [TaskAdapter.from_model(model) for model in models]
    task_numbers = [7, 0, 8, 13, 16, 3, 1, 11, 2, 14, 0, 10, 5, 13, 17, 12, 4, 1, 19, 9, 8, 16, 6, 15, 18, 11, 0, 3]
    batch = images(len(task_numbers))
    passes: list[int] = []
    multi_task.network.register_forward_hook(lambda *_: passes.append(1))
    mixed = multi_task(batch, [tasks[number % len(tasks)] for number in task_numbers])
    assert passes == [1]
    for number, image, logits in zip(task_numbers, batch, mixed, strict=True):
        with torch.no_grad():
            alone = models[number % len(models)](image[None])[0]
        assert torch.allclose(logits, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "spec",
    [
        "bias",
        "lora(rank=2)",
        "vpt(length=2, depth=shallow)",
        "vpt(length=2) + bias",
        "vpt(length=2, output=image_mean)",
        "vpt(length=2) + lora(rank=2)",
        "cross(length=2) + norm",
        "adapter(reduction=4, position=post)",
        "gated(length=2)",
        "vpt(length=2, location=pad, depth=shallow)",
    ],
)
def test_task_adapter_of_method_beyond_parts_of_blocks_is_none(spec: str) -> None:
    (model,) = tuned("vit", (spec,))
    assert TaskAdapter.from_model(model) is None


def test_task_adapter_of_segmentation_is_none() -> None:
    assert TaskAdapter.from_model(attach(backbone_of("vit"), "vpt(length=2)", 3, head="linear")) is None
