"""`vpt predict`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vpt.cli.common_options import backbone_option, device_option, flip_option, scales_option, weights_option
from vpt.cli.option_groups import TaskCommand, options_of_task, task_option

if TYPE_CHECKING:
    from vpt.api.options import Device


@click.command(cls=TaskCommand)
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("images", type=click.Path(path_type=Path), nargs=-1, required=True)
@backbone_option
@weights_option
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per image and line.")
@task_option("classification", "--top", type=click.IntRange(min=1), default=3, show_default=True,
             help="How many classes to name.")  # fmt: skip
@task_option("classification", "--skip-corrupt", is_flag=True, help="Leave unreadable images out.")
@scales_option
@flip_option
@task_option("segmentation", "--out", type=click.Path(path_type=Path, file_okay=False), default=Path("predicted"),
             show_default=True, help="Folder for masks and overlays.")  # fmt: skip
def command(
    file: Path,
    images: tuple[Path, ...],
    backbone: str | None,
    weights: Path | None,
    device: Device,
    as_json: bool,
    **_: Any,
) -> None:
    """Classify IMAGES (files or whole folders) with a tuned FILE; or, of a segmentation, write masks and overlays.

    \b
    vpt predict photos.safetensors new.jpg
    vpt predict photos.safetensors inbox/ --json > predictions.jsonl
    """
    from vpt.api import predict
    from vpt.api.progress import ConsoleCallback
    from vpt.model.tuned_file import inspect
    from vpt.tasks.classification.prediction import find_images
    from vpt.tasks.registry import task_of_file

    image_paths = find_images(images)
    options = options_of_task(task_of_file(inspect(file)).name, str(file))
    with ConsoleCallback() as callback:
        predictions = predict(
            file, image_paths, backbone=backbone, weights=weights, device=device, callback=callback, **options
        )
    for prediction in predictions:
        click.echo(json.dumps(prediction.to_dict()) if as_json else prediction.describe())
