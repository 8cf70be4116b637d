"""Images of different tasks in one batch, against each alone and against the frozen backbone.

    python benchmarks/serving.py

As many images as tasks, ViT-S/16; the forms take turns, every second round backwards. `several lengths`: the tasks
have 1, 10, 50 or 100 prompts. `one by one`: a model for each task, as `vpt.load` gives it, and an image at a time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from measure import format_quartiles, summarize, time_paired
from report import write_section
from vpt import TunedModel, attach, load_backbone
from vpt.serving.multi_task import MultiTaskBackbone, TaskAdapter


@torch.inference_mode()
def one_by_one(models: list[TunedModel], images: Tensor) -> None:
    for model, image in zip(models, images, strict=True):
        model(image[None])


@torch.inference_mode()
def frozen(module: torch.nn.Module, images: Tensor) -> None:
    module(images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    backbone = load_backbone("vit_small_patch16_224", pretrained=False)
    multi_task, images = MultiTaskBackbone(backbone), torch.randn(options.tasks, 3, 224, 224)
    variants: dict[str, Callable[[], object]] = {"frozen timm forward": partial(frozen, backbone.module, images)}
    for name, lengths in {"10 prompts each": [10], "several lengths": [1, 10, 50, 100]}.items():
        models = [attach(backbone, f"vpt(length={lengths[i % len(lengths)]})", 10) for i in range(options.tasks)]
        tasks = [task for task in map(TaskAdapter.from_model, models) if task is not None]
        variants[f"{name}, one batch"] = partial(multi_task, images, tasks)
        variants[f"{name}, one by one"] = partial(one_by_one, models, images)
    figures = summarize(time_paired(variants, options.rounds), "frozen timm forward")
    lines = [
        f"**Serving**: {options.tasks} images of {options.tasks} tasks, ViT-S/16, deep prompts, fp32: seconds, times "
        f"the frozen timm forward of the same batch; median and quartiles of {options.rounds} rounds.",
        "",
        "| form | seconds | times frozen |",
        "|---|---:|---:|",
        *(
            f"| {name} | {format_quartiles(f['seconds'])} | {format_quartiles(f['times_reference'])} |"
            for name, f in figures.items()
        ),
    ]
    table = "\n".join(lines)
    command = f"python benchmarks/serving.py --tasks {options.tasks} --rounds {options.rounds}"
    write_section("serving", "serving", figures, command, table)
    print(table)


if __name__ == "__main__":
    main()
