"""`vpt predict`."""

import json
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from vpt.cli import options as common
from vpt.cli.options import TaskCommand, option, own_options


@click.command(cls=TaskCommand)
@click.argument("file", type=common.PATH)
@click.argument("images", type=common.PATH, nargs=-1, required=True)
@common.model_options
@option("--json as_json", "Print one JSON object per image and line.", is_flag=True)
@option("--out", "Classification: write a table, .csv, .jsonl or .parquet, of any number of images. Segmentation: "
        "folder for masks and overlays [default: predicted].", common.PATH)  # fmt: skip
@common.classification("--top", "How many classes to name.", common.COUNT, default=3)
@common.classification("--probabilities", "Add the probability of each class to the table.", is_flag=True)
@common.classification("--overwrite", "Replace the table, and begin anew.", is_flag=True)
@common.skip_corrupt_option
@common.inference_options
def command(file: Path, images: tuple[Path, ...], as_json: bool, out: Path | None, **options: Any) -> None:
    """Classify IMAGES with a tuned FILE, or segment them.

    IMAGES are files, whole folders, or tables of images (.csv, .jsonl, .parquet). A segmentation writes masks and
    overlays. With --out, a classification writes a table; stopped by Ctrl-C or a crash, the same command goes on where
    it was.

    \b
    vpt predict photos.safetensors new.jpg
    vpt predict photos.safetensors inbox/ --json > predictions.jsonl
    vpt predict photos.safetensors archive/ --out answers.csv
    """
    from vpt.api import predict, predict_to_file
    from vpt.api.progress import ConsoleCallback
    from vpt.core.table_file import TABLE_SUFFIXES
    from vpt.core.text import pluralize
    from vpt.model.tuned_file import inspect
    from vpt.tasks.classification.prediction import find_images
    from vpt.tasks.registry import task_of_file

    image_paths = find_images(images)
    task = task_of_file(inspect(file)).name
    options = own_options(options, task, str(file))
    table_options = {name: options.pop(name) for name in ("probabilities", "overwrite") if name in options}
    if task == "classification" and out is not None:
        if click.get_current_context().get_parameter_source("top") is not ParameterSource.DEFAULT:
            raise click.UsageError("--top: for the terminal, and --out writes a table; give --probabilities")
        del options["top"]
        with ConsoleCallback() as callback:
            table = predict_to_file(file, images, out, callback=callback, **table_options, **options)
        if as_json:
            click.echo(json.dumps(vars(table)))
        else:
            resumed = f", {table.resumed} of them from before" if table.resumed else ""
            left_out = f", {table.dropped} left out" if table.dropped else ""
            click.echo(f"{table.file}: {pluralize(table.images, 'image')}{resumed}{left_out}")
        return
    given = [f"--{name}" for name, value in table_options.items() if value]
    if given:
        raise click.UsageError(f"{', '.join(given)}: for a table; give --out, such as --out answers.csv")
    if task == "segmentation":
        if out is not None and out.suffix in TABLE_SUFFIXES:
            raise click.UsageError(f"--out {out}: a segmentation writes masks to a folder; give the name of a folder")
        options["out"] = out or Path("predicted")
    with ConsoleCallback() as callback:
        predictions = predict(file, image_paths, callback=callback, **options)
    for prediction in predictions:
        click.echo(json.dumps(prediction.to_dict()) if as_json else prediction.describe())
