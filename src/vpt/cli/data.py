"""The command `vpt data`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vpt.cli import options as common
from vpt.cli.lines import echo_line
from vpt.cli.options import (
    TaskCommand,
    events_option,
    json_option,
    option,
    own_options,
    print_json,
    print_result,
)
from vpt.cli.paths import FOLDER
from vpt.errors import DataError

if TYPE_CHECKING:
    from vpt.datasets.task import DataSource

_NAMES_ARGUMENT = click.argument("names", nargs=-1, required=True, metavar="NAME...")


@click.group()
def command() -> None:
    """Prepare the data of VTAB-1k and FGVC, and import Parquet files.

    Downloaded files are verified and converted without loss. Files of VTAB-1k and FGVC are not downloaded. Parquet
    files of the Hugging Face Hub are.

    \b
    vpt data list
    vpt data prepare cifar100                                  what to download, and from where
    vpt data prepare cifar100 --from downloads/ --out vtab/    then vtab/cifar100 is a data folder
    vpt data check vtab --data vtab/
    """


@command.command("list")
@click.argument("names", nargs=-1)
@json_option
def list_(names: tuple[str, ...], as_json: bool) -> None:
    """List tasks: group, classes, images of train/val/test, label, terms. NAMES: tasks, vtab or fgvc.

    \b
    vpt data list fgvc
    """
    from vpt.datasets.catalog import BENCHMARKS, resolve_tasks

    tasks = resolve_tasks(names or BENCHMARKS)
    rows = [
        {
            "name": task.name, "benchmark": task.benchmark, "group": task.group, "classes": task.classes,
            "images": task.sizes, "label": task.label_description, "metric": task.metric,
            "source": task.source.homepage, "terms": task.source.terms, "citation": task.source.citation,
            "remark": task.remark,
        }
        for task in tasks
    ]  # fmt: skip
    row = (
        "{0.name:<13} {0.group:<12}{0.classes:>4} classes  {0.sizes_text:<18}  {0.label_description}; {0.source.terms}"
    )
    print_result(as_json, rows, map(row.format, tasks))


@command.command()
@_NAMES_ARGUMENT
@option("--from source", "Folder of the downloaded files, as archives or extracted.", FOLDER)
@option("--out", "Parent of the new folders, one per task.", FOLDER)
@option("--splits", "Name file of VTAB, or folder of train.json, val.json and test.json of FGVC.",
        click.Path(path_type=Path, exists=True))  # fmt: skip
@events_option
@json_option
def prepare(
    names: tuple[str, ...],
    source: Path | None,
    out: Path | None,
    splits: Path | None,
    events: Path | None,
    as_json: bool,
) -> None:
    """Convert tasks to folders with list files. Without --from, print what to download. NAME: a task, vtab or fgvc.

    After an interruption, the same command resumes. Extracted archives stay in OUT/.unpacked for other tasks of the
    same source; delete that folder at the end.

    \b
    vpt data prepare clevr_count clevr_dist --from downloads/ --out vtab/
    """
    from vpt.cli.progress import DataProgress
    from vpt.datasets.catalog import resolve_tasks
    from vpt.datasets.preparation import instructions, prepare_task
    from vpt.training.events import open_events

    tasks = resolve_tasks(names)
    if source is None:
        text = "\n\n".join(instructions(task, out or "FOLDER") for task in tasks)
        print_result(as_json, {task.name: _downloads(task.source) for task in tasks}, [text])
        return
    if out is None:
        raise click.UsageError("--out is missing; give the parent of the new folders")
    manifests, errors = {}, list[str]()
    with open_events(events) as event_writer, DataProgress(event_writer) as progress:
        for task in tasks:
            with _collect(errors):
                manifest = manifests[task.name] = prepare_task(task, out, source, splits, progress)
                progress.print_line(f"{task.name}: {out / task.name}, {task.sizes_text} images; {manifest['terms']}")
    if errors:
        raise DataError("\n\n".join(errors))
    if as_json:
        print_json(manifests)


@command.command("import")
@click.argument("source")
@option("--out", "The new data folder.", FOLDER, required=True)
@option("--image-column", "Column of images [default: detected].")
@option("--label-column", "Column of labels [default: detected].")
@events_option
@json_option
def import_(
    source: str, out: Path, image_column: str | None, label_column: str | None, events: Path | None, as_json: bool
) -> None:
    """Convert Parquet files to a data folder. SOURCE: a file, a folder, or a dataset on the Hugging Face Hub.

    Such a dataset is hf://datasets/OWNER/NAME or hf://datasets/OWNER/NAME@REVISION. All its Parquet files are
    downloaded, regardless of their size. After an interruption, the same command resumes.

    \b
    vpt data import parquet/ --out flowers/
    vpt data import hf://datasets/owner/flowers --label-column species --out flowers/
    """
    from vpt.cli.progress import DataProgress
    from vpt.datasets.parquet import import_parquet
    from vpt.training.events import open_events

    with open_events(events) as event_writer, DataProgress(event_writer) as progress:
        manifest = import_parquet(source, out, image_column=image_column, label_column=label_column, progress=progress)
        counts = ", ".join(f"{count} of {split}" for split, count in manifest["images"].items())
        terms = manifest.get("terms", "not stated")
        progress.print_line(f"{out}: images {counts}; {len(manifest['classes'])} classes; terms {terms}")
        for note in manifest["notes"]:
            progress.print_line(f"note: {note}")
    if as_json:
        print_json(manifest)


@command.command(cls=TaskCommand)
@_NAMES_ARGUMENT
@option("--data root", "Folder with the prepared tasks of a benchmark.", FOLDER, default=Path())
@common.task_option
@common.split_names_option
@common.value_range_option
@common.table_options
@common.mask_options
@events_option
@json_option
def check(
    names: tuple[str, ...],
    root: Path,
    task: str,
    value_range: str | None,
    events: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Verify folders before training. NAME: a folder, a task, vtab or fgvc.

    Of a folder, every image and mask is decoded, and one screen shows classes with counts, splits, sizes, and what is
    odd. Of a task, lists, counts, labels and the header of every image are verified. Every fault is reported, and the
    exit code is then 3.

    \b
    vpt data check photos/
    vpt data check scans/ --images pics --masks outlines --labels 0,255
    vpt data check vtab --data vtab/
    vpt data check vtab/cifar100
    """
    from vpt.cli.progress import DataProgress
    from vpt.data import overview
    from vpt.data.folders.walk import require_path
    from vpt.data.images.value_range import parse_value_range
    from vpt.datasets.catalog import BENCHMARKS, TASKS, is_folder_of_task, resolve_tasks, task_folder, task_for_folder
    from vpt.datasets.preparation import check_folder
    from vpt.datasets.task import BenchmarkTask
    from vpt.tasks.registry import find_task
    from vpt.training.events import open_events

    limits = None if value_range is None else parse_value_range(value_range)
    folders: list[tuple[Path, BenchmarkTask | None, bool]] = []
    for name in names:
        if name in TASKS or name in BENCHMARKS:
            folders += [(task_folder(root, task), task, name in BENCHMARKS) for task in resolve_tasks([name])]
        else:
            require_path(name, "the data source", "give a data folder or tables")
            folders.append((Path(name), task_for_folder(Path(name)), False))
    rows, errors = list[dict[str, Any]](), list[str]()
    with open_events(events) as event_writer, DataProgress(event_writer) as progress:
        for folder, benchmark_task, is_of_benchmark in folders:
            with _collect(errors):
                if benchmark_task is not None and (is_of_benchmark or is_folder_of_task(folder, benchmark_task)):
                    found = check_folder(folder, benchmark_task, progress)
                    images = {name: len(split) for name, split in found.splits.items()}
                    counts = "/".join(map(str, images.values()))
                    progress.print_line(f"{folder}: {counts} images of {len(found.classes)} classes, no faults")
                    rows.append({"folder": str(folder), "task": "classification", "images": images,
                                 "classes": len(found.classes), "notes": list(found.notes)})  # fmt: skip
                    continue
                found_task = find_task(task, str(folder), options).name
                own = own_options(options, found_task, str(folder))
                screen = overview.check_folder(folder, found_task, value_range=limits, **own)
                if benchmark_task is not None:
                    note = f"the folder {folder} is checked as it is, not as the benchmark task {benchmark_task.name}"
                    screen = replace(screen, notes=(*screen.notes, note))
                rows.append({"folder": str(folder), **screen.to_dict()})
                for line in [] if as_json else screen.lines():
                    echo_line(line)
    if errors:
        raise DataError("\n\n".join(errors))
    if as_json:
        print_json(rows)


def _downloads(source: "DataSource") -> dict[str, Any]:
    """Return what is to be downloaded as JSON values."""
    files = [{"name": file.name, "url": file.url, "file_bytes": file.size, "sha256": file.sha256 or None}
             for file in source.files]  # fmt: skip
    facts = {"homepage": source.homepage, "terms": source.terms, "citation": source.citation}
    return {**facts, "manual_steps": source.manual_steps, "files": files}


@contextmanager
def _collect(errors: list[str]) -> Iterator[None]:
    """Keep the message of a DataError, and go on with the next task or folder."""
    try:
        yield
    except DataError as error:
        errors.append(str(error))
