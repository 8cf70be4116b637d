"""The command `vpt data`."""

from __future__ import annotations

import json
from pathlib import Path

import click

_FOLDER = click.Path(path_type=Path, file_okay=False)
_NAMES_ARGUMENT = click.argument("names", nargs=-1, required=True, metavar="NAME...")


@click.group()
def command() -> None:
    """Prepare the data of VTAB-1k and FGVC from downloaded files, verified and lossless, and import Parquet files.

    Files of VTAB-1k and FGVC are not downloaded. Parquet files of a hub are.

    \b
    vpt data list
    vpt data prepare cifar100                                  what to download, and from where
    vpt data prepare cifar100 --from downloads/ --out vtab/    then vtab/cifar100 is a data folder
    vpt data check vtab --in vtab/
    """


@command.command("list")
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(names: tuple[str, ...], as_json: bool) -> None:
    """List tasks: group, classes, images of train/val/test, label, terms. NAMES: tasks, vtab or fgvc.

    \b
    vpt data list fgvc
    """
    from vpt.datasets.catalog import BENCHMARKS, resolve_tasks

    tasks = resolve_tasks(names or BENCHMARKS)
    if as_json:
        rows = [
            {
                "name": task.name, "benchmark": task.benchmark, "group": task.group, "classes": task.classes,
                "images": task.sizes, "label": task.label_description, "metric": task.metric,
                "source": task.source.homepage, "terms": task.source.terms, "citation": task.source.citation,
                "remark": task.remark,
            }
            for task in tasks
        ]  # fmt: skip
        click.echo(json.dumps(rows, indent=1))
        return
    for task in tasks:
        facts = f"{task.group:<12}{task.classes:>4} classes  {task.sizes_text:<18}"
        click.echo(f"{task.name:<13} {facts}  {task.label_description}; {task.source.terms}")


@command.command()
@_NAMES_ARGUMENT
@click.option("--from", "source", type=_FOLDER, help="Folder of the downloaded files, as archives or extracted.")
@click.option("--out", type=_FOLDER, help="Parent of the new folders, one per task.")
@click.option("--splits", type=click.Path(path_type=Path, exists=True),
              help="Name file of VTAB, or folder of train.json, val.json and test.json of FGVC.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def prepare(names: tuple[str, ...], source: Path | None, out: Path | None, splits: Path | None, as_json: bool) -> None:
    """Convert tasks to folders with list files. Without --from, print what to download. NAME: a task, vtab or fgvc.

    After an interruption, the same command resumes. Extracted archives stay in OUT/.unpacked for other tasks of the
    same source; delete that folder at the end.

    \b
    vpt data prepare clevr_count clevr_dist --from downloads/ --out vtab/
    """
    from vpt.cli.data_progress import DataProgress
    from vpt.datasets.catalog import resolve_tasks
    from vpt.datasets.preparation import instructions, prepare_task
    from vpt.errors import DataError

    tasks = resolve_tasks(names)
    if source is None:
        click.echo("\n\n".join(instructions(task, out or "FOLDER") for task in tasks))
        return
    if out is None:
        raise click.UsageError("--out is missing; give the parent of the new folders")
    errors, manifests = [], {}
    with DataProgress() as progress:
        for task in tasks:
            try:
                manifests[task.name] = prepare_task(task, out, source, splits, progress)
            except DataError as error:  # continue with the other tasks
                errors.append(str(error))
            else:
                progress.print_line(
                    f"{task.name}: {out / task.name}, {task.sizes_text} images; {manifests[task.name]['terms']}"
                )
    if as_json:
        click.echo(json.dumps(manifests, indent=1))
    if errors:
        raise DataError("\n\n".join(errors))


@command.command("import")
@click.argument("source")
@click.option("--out", type=_FOLDER, required=True, help="The new data folder.")
@click.option("--image", help="Column of images.  [default: detected]")
@click.option("--label", help="Column of labels.  [default: detected]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def import_(source: str, out: Path, image: str | None, label: str | None, as_json: bool) -> None:
    """Convert Parquet files to a data folder. SOURCE: a file, a folder, or hub:OWNER/NAME[@REVISION].

    All Parquet files of a hub dataset are downloaded, regardless of their size. After an interruption, the same command
    resumes.

    \b
    vpt data import parquet/ --out flowers/
    vpt data import hub:owner/flowers --label species --out flowers/
    """
    from vpt.cli.data_progress import DataProgress
    from vpt.datasets.parquet import import_parquet

    with DataProgress() as progress:
        manifest = import_parquet(source, out, image=image, label=label, progress=progress)
        counts = ", ".join(f"{count} of {split}" for split, count in manifest["images"].items())
        progress.print_line(
            f"{out}: images {counts}; {len(manifest['classes'])} classes; terms {manifest.get('terms', 'not stated')}"
        )
        for note in manifest["notes"]:
            progress.print_line(f"note: {note}")
    if as_json:
        click.echo(json.dumps(manifest, indent=1))


@command.command()
@_NAMES_ARGUMENT
@click.option("--in", "root", type=_FOLDER, default=Path(), help="Parent of the folders of tasks.  [default: .]")
def check(names: tuple[str, ...], root: Path) -> None:
    """Verify folders: lists, counts, labels, and the header of every image. NAME: a task, vtab, fgvc, or a folder.

    Every fault is reported, and the exit code is then 3.

    \b
    vpt data check vtab --in vtab/
    vpt data check vtab/cifar100
    """
    from vpt.cli.data_progress import DataProgress
    from vpt.datasets.catalog import BENCHMARKS, TASKS, resolve_tasks, task_folder, task_for_folder
    from vpt.datasets.task import BenchmarkTask
    from vpt.datasets.verification import check_folder
    from vpt.errors import DataError

    folders: list[tuple[Path, BenchmarkTask | None]] = []
    for name in names:
        if name in TASKS or name in BENCHMARKS:
            folders += [(task_folder(root, task), task) for task in resolve_tasks([name])]
        else:
            folders.append((Path(name), task_for_folder(Path(name))))
    errors = []
    with DataProgress() as progress:
        for folder, task in folders:
            try:
                found = check_folder(folder, task, progress)
            except DataError as error:
                errors.append(str(error))
            else:
                sizes = "/".join(str(len(split)) for split in found.splits.values())
                progress.print_line(f"{folder}: {sizes} images of {len(found.classes)} classes, no faults")
    if errors:
        raise DataError("\n\n".join(errors))
