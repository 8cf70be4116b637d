"""The command `vpt bench`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vpt.cli.options import COUNT, FILE, FOLDER, json_option, option, print_result

if TYPE_CHECKING:
    from vpt.experiments.runner import Executor

_DATA = option("--data", "Folder with the prepared tasks of a benchmark (vpt data prepare).", FOLDER)


@click.group()
def command() -> None:
    """Compare methods over many tasks, after the paper's protocol.

    A PLAN is a TOML file, or the name of one that comes with vpt: smoke, demo, vtab, fgvc, paper-table1. The
    settings of each method are selected on val, the test set is read once, and every run leaves a record. `run` resumes
    an interrupted comparison.

    \b
    vpt bench plan smoke
    vpt bench run smoke --out smoke/ --workers 2
    vpt bench report smoke/
    """


@command.command()
@click.argument("plan")
@_DATA
@option(
    "--images-per-second",
    "Training rate of every method, instead of timing it here.",
    click.FloatRange(min=0, min_open=True),
)
@json_option
def plan(plan: str, data: Path | None, images_per_second: float | None, as_json: bool) -> None:
    """Estimate the cost of PLAN: runs, images, time and disk space. The tasks of a benchmark need not be prepared.

    \b
    vpt bench plan smoke
    vpt bench plan paper-table1 --images-per-second 400
    """
    from vpt.core.text import format_bytes, format_duration, pluralize
    from vpt.experiments.cost_estimate import estimate_cost
    from vpt.experiments.plan_file import find_plan_file, load_experiment
    from vpt.protocols import describe_protocol

    experiment = load_experiment(find_plan_file(plan), data, for_estimate=True)
    found, tasks = estimate_cost(experiment, images_per_second), experiment.tasks
    methods = pluralize(len(experiment.methods), "method")
    lines = [f"plan      {experiment.name}: {pluralize(len(tasks), 'task')}, {methods} on {experiment.backbone}"]
    for row in experiment.methods:
        settings = pluralize(max(len(row.settings_for(task)) for task in tasks), "setting")
        cost = f"refused: {row.refusal}" if row.refusal else f"about {format_duration(found.seconds[row.name])}"
        lines.append(f"          {row.name}: {settings}, {cost}")
    time = format_duration(found.total_seconds)
    rate = "a few steps of each method were timed just now"
    if images_per_second is not None:
        rate = f"counted with {images_per_second:g} training images a second"
    departures = describe_protocol(experiment.protocol_name, experiment.departures)
    lines += [
        *(f"protocol  {line.removeprefix('Protocol: ')}" for line in departures),
        f"runs      {found.runs}",
        f"images    {found.images:,} to train on, over all epochs",
        f"time      about {time} one after the other:",
        f"          {rate}; reading the images is not included",
        f"disk      about {format_bytes(found.disk_bytes)}",
        *(f"note      {task.name}: {note}" for task in tasks for note in task.notes),
    ]
    print_result(as_json, {"plan": experiment.to_dict(), "estimate": asdict(found)}, lines)


@command.command()
@click.argument("plan")
@option("--out", "Folder of the comparison [default: bench-NAME].", FOLDER)
@option("--workers", "Runs at once on this machine [default: 1].", COUNT)
@option("--executor", "A cluster: ray, or its address (ray://HOST:10001) [default: this machine].")
@option("--cpus", "On a cluster: CPU cores for a run [default: 1].", click.FloatRange(min=0))
@option("--gpus", "On a cluster: GPUs for a run, such as 0.25 [default: 0].", click.FloatRange(min=0))
@_DATA
@option("--logger", "Log each run: tensorboard[:FOLDER], mlflow[:URI] or wandb[:PROJECT].")
def run(plan: str, out: Path | None, data: Path | None, logger: str | None, **executor_options: Any) -> None:
    """Do the missing runs of PLAN. The same command resumes; several may share a folder.

    \b
    vpt bench run smoke --out smoke/ --workers 2
    vpt bench run mine.toml --executor ray://head:10001 --gpus 0.5
    """
    executor = _make_executor(**executor_options)
    from vpt.cli.progress import BenchProgress
    from vpt.experiments.plan_file import find_plan_file, load_experiment
    from vpt.experiments.runner import LoggedRuns, run_experiment
    from vpt.training import CallbackList
    from vpt.training.loggers import make_logger

    run_logger = None if logger is None else make_logger(logger)
    experiment = load_experiment(find_plan_file(plan), data)
    folder = out or Path(f"bench-{experiment.name}")
    with BenchProgress() as console:
        loggers = [] if run_logger is None else [LoggedRuns(run_logger, console.on_note)]
        records = run_experiment(experiment, folder, executor, CallbackList([*loggers, console]))
    num_failed = sum(record.status != "done" for record in records.values())
    click.echo(f"{len(records)} runs in {folder}/" + (f", {num_failed} of them without a result" if num_failed else ""))
    click.echo(f"next: vpt bench report {folder}")


def _make_executor(workers: int | None, executor: str | None, cpus: float | None, gpus: float | None) -> "Executor":
    """Return the executor that the options name."""
    from vpt.experiments.local_executor import LocalExecutor
    from vpt.experiments.ray_executor import RayExecutor

    if executor is None:
        if cpus is not None or gpus is not None:
            raise click.UsageError("--cpus and --gpus are for a cluster; add --executor ray, or leave them out")
        return LocalExecutor(workers or 1)
    if workers is not None:
        raise click.UsageError("--workers is for this machine; a cluster does as many runs as it has room for")
    if executor != "ray" and not executor.startswith("ray://"):
        raise click.UsageError(f"--executor is {executor!r}; it must be ray, or an address such as ray://HOST:10001")
    address = None if executor == "ray" else executor
    return RayExecutor(address, cpus=1.0 if cpus is None else cpus, gpus=gpus or 0.0)


@command.command()
@click.argument("folder", type=FOLDER)
@json_option
def status(folder: Path, as_json: bool) -> None:
    """Show the progress of the comparison in FOLDER.

    \b
    vpt bench status smoke/
    """
    from vpt.experiments.results import read_status

    found = read_status(folder)
    print_result(as_json, asdict(found), found.text().splitlines())


@command.command()
@click.argument("folder", type=FOLDER)
@option("--csv", "The CSV file [default: stdout].", FILE)
@option("--parquet", "A Parquet file.", FILE)
def export(folder: Path, csv: Path | None, parquet: Path | None) -> None:
    """Write every run in FOLDER as a row.

    \b
    vpt bench export smoke/ --csv runs.csv
    vpt bench export smoke/ --parquet runs.parquet
    """
    from vpt.core.io import write_atomic
    from vpt.experiments.run_table import to_csv, to_parquet

    if parquet is not None:
        write_atomic(parquet, to_parquet(folder))
    if csv is not None:
        write_atomic(csv, to_csv(folder).encode())
    elif parquet is None:
        click.echo(to_csv(folder), nl=False)


@command.command()
@click.argument("folder", type=FOLDER)
@click.argument("sql")
def query(folder: Path, sql: str) -> None:
    """Answer a SELECT statement about the runs in FOLDER, as CSV.

    The table is `runs`; its columns are those of `vpt bench export`.

    \b
    vpt bench query smoke/ "SELECT method, avg(top1) FROM runs WHERE stage = 'final' GROUP BY method"
    """
    from vpt.experiments import run_table
    from vpt.experiments.table import to_csv

    click.echo(to_csv(*run_table.query(folder, sql)), nl=False)


@command.command()
@click.argument("folders", metavar="FOLDER...", type=FOLDER, nargs=-1, required=True)
@option("--out", "Folder of the report [default: report/ in the first FOLDER].", FOLDER)
def report(folders: tuple[Path, ...], out: Path | None) -> None:
    """Write the tables and charts of FOLDER: report.html, report.md, and each table as CSV and LaTeX.

    Several folders stand side by side; they must have the same protocol, tasks and backbone.

    \b
    vpt bench report smoke/
    """
    from vpt.experiments.report import write_report

    for path in write_report(folders[0], out or folders[0] / "report", *folders[1:]):
        click.echo(path)
