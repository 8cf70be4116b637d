"""`vpt predict`."""

import json
from pathlib import Path
from typing import Any

import click

from vpt.cli import options as common
from vpt.cli.options import TaskCommand, option, own_options


@click.command(cls=TaskCommand)
@click.argument("file", type=common.PATH)
@click.argument("images", type=common.PATH, nargs=-1, required=True)
@common.model_options
@option("--json as_json", "Print one JSON object per image and line.", is_flag=True)
@common.classification("--top", "How many classes to name.", common.COUNT, default=3)
@common.skip_corrupt_option
@common.inference_options
@common.segmentation("--out", "Folder for masks and overlays.", common.FOLDER, default=Path("predicted"))
def command(file: Path, images: tuple[Path, ...], as_json: bool, **options: Any) -> None:
    """Classify IMAGES with a tuned FILE, or segment them.

    IMAGES are files, whole folders, or tables of images (.csv, .jsonl, .parquet). A segmentation writes masks and
    overlays.

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
    options = own_options(options, task_of_file(inspect(file)).name, str(file))
    with ConsoleCallback() as callback:
        predictions = predict(file, image_paths, callback=callback, **options)
    for prediction in predictions:
        click.echo(json.dumps(prediction.to_dict()) if as_json else prediction.describe())
