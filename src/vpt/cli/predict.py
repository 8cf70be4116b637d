"""`vpt predict`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from vpt.cli import options as common
from vpt.cli.lines import echo_line, echo_note
from vpt.cli.options import TaskCommand, option, own_options
from vpt.cli.paths import PATH, TUNED_FILE

if TYPE_CHECKING:
    from vpt.core.prediction import Prediction

_TABLE_OPTIONS = ("probabilities", "overwrite", "executor", "verbose")


@click.command(cls=TaskCommand)
@click.argument("file", type=TUNED_FILE)
@click.argument("images", type=PATH, nargs=-1, required=True)
@common.model_options
@option("--json as_json", "Print one JSON object per image and line.", is_flag=True)
@option("--out", "Classification: write a table, .csv, .jsonl or .parquet, of any number of images. Segmentation: "
        "folder for masks and overlays [default: predicted].", PATH)  # fmt: skip
@common.classification("--top", "How many classes to name.", common.COUNT, default=3)
@common.classification("--probabilities", "Add the probability of each class to the table.", is_flag=True)
@common.classification("--overwrite", "Replace the table and start from scratch.", is_flag=True)
@common.events_option
@common.classification("--executor", "Classify for the table on a cluster: ray, or its address (ray://HOST:10001).")
@common.classification("-v --verbose", "On a cluster: show the log lines of Ray.", is_flag=True)
@common.min_confidence_option
@common.skip_corrupt_option
@common.inference_options
def command(
    file: Path, images: tuple[Path, ...], as_json: bool, out: Path | None, events: Path | None, **options: Any
) -> None:
    """Classify IMAGES with a tuned FILE, or segment them.

    FILE may be a graph that `vpt export` wrote, .onnx, which starts sooner, as nothing loads torch.

    IMAGES are files, whole folders, or tables of images (.csv, .jsonl, .parquet). A segmentation writes masks and
    overlays. With --out, a classification writes a table. If it is interrupted, run the same command again to
    resume.

    \b
    vpt predict photos.safetensors new.jpg
    vpt predict photos.safetensors inbox/ --json > predictions.jsonl
    vpt predict photos.safetensors archive/ --out predictions.csv
    vpt predict photos.onnx new.jpg
    """
    if file.suffix.casefold() == ".onnx":
        _predict_from_graph(file, images, as_json, options["top"], options["skip_corrupt"])
        return
    from vpt.api.predicting import predict, predict_to_file
    from vpt.api.progress import ConsoleCallback
    from vpt.core.table_file import TABLE_SUFFIXES
    from vpt.core.text import pluralize
    from vpt.data.find_images import find_images
    from vpt.model.tuned_file import read_header
    from vpt.tasks.registry import task_of_file
    from vpt.training.callbacks import CallbackList
    from vpt.training.events import open_events

    notes: list[str] = []
    image_paths = find_images(images, notes.append)
    task = task_of_file(read_header(file)).name
    options = own_options(options, task, str(file))
    table_options = {name: options.pop(name) for name in _TABLE_OPTIONS if name in options}
    if task == "classification" and out is not None:
        if click.get_current_context().get_parameter_source("top") is not ParameterSource.DEFAULT:
            raise click.UsageError("--top: for the terminal, and --out writes a table; give --probabilities")
        del options["top"]
        with ConsoleCallback() as console, open_events(events) as event_writer:
            callback = CallbackList([console, event_writer])
            table = predict_to_file(file, images, out, callback=callback, **table_options, **options)
        if as_json:
            common.print_json(vars(table), one_line=True)
        else:
            resumed = f", {table.resumed} of them from before" if table.resumed else ""
            left_out = f", {table.dropped} left out" if table.dropped else ""
            echo_line(f"{table.file}: {pluralize(table.images, 'image')}{resumed}{left_out}")
        return
    given = [f"--{name}" for name, value in table_options.items() if value]
    if given:
        raise click.UsageError(f"{', '.join(given)}: for a table; give --out, such as --out predictions.csv")
    if task == "segmentation":
        if out is not None and out.suffix.casefold() in TABLE_SUFFIXES:
            raise click.UsageError(f"--out {out}: a segmentation writes masks to a folder; give the name of a folder")
        options["out"] = out or Path("predicted")
    with ConsoleCallback() as console, open_events(events) as event_writer:
        callback = CallbackList([console, event_writer])
        for note in notes:
            callback.on_note(note)
        predictions = predict(file, image_paths, callback=callback, **options)
    for prediction in predictions:
        _print(prediction, as_json)


def _print(prediction: "Prediction", as_json: bool) -> None:
    if as_json:
        common.print_json(prediction.to_dict(), one_line=True)
    else:
        echo_line(prediction.describe())


def _predict_from_graph(file: Path, images: tuple[Path, ...], as_json: bool, top: int, skip_corrupt: bool) -> None:
    from vpt.core.text import pluralize, printable
    from vpt.data.find_images import find_images
    from vpt.errors import DataError
    from vpt.runtime import ExportedModel

    context = click.get_current_context()
    for name in context.params.keys() - {"file", "images", "as_json", "top", "skip_corrupt"}:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name.replace('_', '-')} has no effect on a graph; give the tuned file instead")
    paths = find_images(images, echo_note)
    left_out: list[DataError] = []

    def leave_out(error: DataError) -> None:
        if not skip_corrupt:
            raise DataError(f"{error}" + ", or leave it out with --skip-corrupt" * (len(paths) > 1)) from error
        left_out.append(error)
        echo_note(printable(f"left out: {error}"))

    for _, prediction in ExportedModel(file).stream(paths, top=top, on_corrupt=leave_out):
        _print(prediction, as_json)
    if len(left_out) == len(paths):
        raise DataError(f"{len(left_out)} of {pluralize(len(paths), 'image')} cannot be used; replace them")
