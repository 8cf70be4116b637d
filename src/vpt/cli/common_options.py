"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from vpt.cli.option_groups import CommandT, scales_type, task_option

device_option: Callable[[CommandT], CommandT] = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True,
    help="auto: the GPU, where there is one.",
)  # fmt: skip
weights_option: Callable[[CommandT], CommandT] = click.option(
    "--weights", type=click.Path(path_type=Path), help="Local weights of the backbone."
)
scales_option: Callable[[CommandT], CommandT] = task_option(
    "segmentation", "--scales", default="1", show_default=True, callback=scales_type,
    help="Scales to average, such as 0.75,1,1.25.",
)  # fmt: skip
flip_option: Callable[[CommandT], CommandT] = task_option(
    "segmentation", "--flip", is_flag=True, help="Average with the mirrored image."
)
labels_option: Callable[[CommandT], CommandT] = task_option(
    "segmentation",
    "--labels",
    default="auto",
    show_default=True,
    help="ade20k, cityscapes, voc, camvid or plain; auto: by layout.",
)
ignore_index_option: Callable[[CommandT], CommandT] = task_option(
    "segmentation", "--ignore-index", type=int, help="Another id in masks that stands for no class."
)
zero_label_option: Callable[[CommandT], CommandT] = task_option(
    "segmentation", "--reduce-zero-label", is_flag=True, help="Id 0 stands for no class, 1 for the first."
)


def complete_backbones(context: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the backbones whose names begin with a text, for the shell.

    Args:
        context: The context.
        param: The option.
        incomplete: The text.

    Returns:
        The names.
    """
    from vpt.backbones import list_backbones

    return [CompletionItem(name) for name in list_backbones(f"{incomplete}*")]


def complete_methods(context: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the methods whose names begin with a text, for the shell.

    Args:
        context: The context.
        param: The option.
        incomplete: The text.

    Returns:
        The names.
    """
    from vpt.methods import METHODS

    return [CompletionItem(name) for name in METHODS if name.startswith(incomplete)]


backbone_option: Callable[[CommandT], CommandT] = click.option(
    "--backbone", shell_complete=complete_backbones, help="The backbone's name, if it is not to be taken from FILE."
)
