"""The command `vpt bench`."""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from vpt.cli.executors import make_executor
from vpt.cli.options import COUNT, events_option, json_option, option, print_json, print_result
from vpt.cli.paths import FILE, FOLDER
from vpt.cli.run_counts import print_runs
from vpt.cli.values import percentage
from vpt.errors import ExitCode

_NIGHT = 10.0  # hours
_DATA = option("--data", "Folder with the prepared tasks of a benchmark (vpt data prepare).", FOLDER)


@click.group()
def command() -> None:
    """Compare methods over many tasks, after the paper's protocol.

    A PLAN is a TOML file, or the name of one that comes with vpt: smoke, demo, vtab, fgvc, paper-table1, family.
    The settings of each method are selected on val, the test set is read once, and every run leaves a record. `run`
    resumes an interrupted comparison.

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
@option(
    "--hours",
    "List the tasks that fit into this many hours, for all methods together and for each method [default: 10, a "
    "night, for a plan that takes longer].",
    click.FloatRange(min=0, min_open=True),
)
@json_option
def plan(plan: str, data: Path | None, images_per_second: float | None, hours: float | None, as_json: bool) -> None:
    """Estimate the cost of PLAN: runs, images, time and disk space. The tasks of a benchmark need not be prepared.

    \b
    vpt bench plan smoke
    vpt bench plan paper-table1 --hours 10
    vpt bench plan paper-table1 --images-per-second 400
    """
    from vpt.core.text import format_bytes, format_duration, pluralize
    from vpt.experiments.planning.file import find_plan_file, load_experiment
    from vpt.experiments.running.cost_estimate import estimate_cost
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
        *(found.describe_hours(hours or _NIGHT) if hours or found.total_seconds > 3600 * _NIGHT else ()),
        *(f"note      {task.name}: {note}" for task in tasks for note in task.notes),
    ]
    print_result(as_json, {"plan": experiment.to_dict(), "estimate": found.to_dict()}, lines)


@command.command()
@click.argument("plan")
@option("--out", "Folder of the comparison [default: bench-NAME].", FOLDER)
@option("--workers", "Runs at once on this machine [default: 1].", COUNT)
@option("--executor", "A cluster: ray, or its address (ray://HOST:10001) [default: this machine].")
@option("--cpus", "On a cluster: CPU cores for a run [default: 1].", click.FloatRange(min=0))
@option("--gpus", "On a cluster: GPUs for a run, such as 0.25 [default: 0].", click.FloatRange(min=0))
@_DATA
@option("-v --verbose", "On a cluster: show the log lines of Ray.", is_flag=True)
@option("--logger", "Log each run: tensorboard[:FOLDER], mlflow[:URI] or wandb[:PROJECT].")
@option("--page", "Keep page.html in the folder up to date: cells, current curves, time left, failures.", is_flag=True)
@events_option
@json_option
def run(
    plan: str,
    out: Path | None,
    data: Path | None,
    logger: str | None,
    page: bool,
    events: Path | None,
    as_json: bool,
    **executor_options: Any,
) -> None:
    """Execute the missing runs of PLAN. The same command resumes; several processes may share a folder.

    \b
    vpt bench run smoke --out smoke/ --workers 2
    vpt bench run mine.toml --executor ray://head:10001 --gpus 0.5
    """
    executor = make_executor(**executor_options)
    from vpt.cli.progress import BenchProgress
    from vpt.experiments.planning.file import find_plan_file, load_experiment
    from vpt.experiments.reports.live_page import ExperimentPage
    from vpt.experiments.running.runner import LoggedRuns, raise_errors, run_experiment
    from vpt.experiments.store import Store
    from vpt.training import CallbackList
    from vpt.training.events import open_events
    from vpt.training.loggers import make_logger

    run_logger = None if logger is None else make_logger(logger)
    experiment = load_experiment(find_plan_file(plan), data)
    folder = out or Path(f"bench-{experiment.name}")
    with BenchProgress() as console, open_events(events) as event_writer:
        loggers = [] if run_logger is None else [LoggedRuns(run_logger, console.on_note)]
        pages = [ExperimentPage(Store(folder), folder / "page.html", console.on_note)] if page else []
        callback = CallbackList([*loggers, console, event_writer, *pages])
        try:
            records = run_experiment(experiment, folder, executor, callback)
        finally:
            for live in pages:
                live.close()
    print_runs(folder, records, as_json)
    raise_errors(records)


@command.command()
@click.argument("folder", type=FOLDER)
@click.argument("method")
@click.argument("values", metavar="KEY=VALUE...", nargs=-1, required=True)
@option("--workers", "Runs at once on this machine.", COUNT, default=1)
@events_option
@json_option
def extend(
    folder: Path, method: str, values: tuple[str, ...], workers: int, events: Path | None, as_json: bool
) -> None:
    """Add values to the grid of METHOD in FOLDER, if its best value is at the edge.

    KEY is learning_rate, weight_decay, or a numeric option of the method. Existing runs are kept. Final runs are
    repeated only if a different setting is selected. The values are added to the plan in FOLDER, not to your plan file.

    \b
    vpt bench extend smoke/ VPT learning_rate=2.5
    vpt bench extend smoke/ VPT length=50 weight_decay=0.1
    """
    from vpt.cli.progress import BenchProgress
    from vpt.experiments.grid_extension import extend_grid
    from vpt.experiments.running.local_executor import LocalExecutor
    from vpt.experiments.running.runner import raise_errors, run_experiment
    from vpt.experiments.store import Store
    from vpt.training import CallbackList
    from vpt.training.events import open_events

    experiment = Store(folder).load_experiment()
    for key, value in [_parse_value(text) for text in values]:  # a key may come with several values
        experiment = extend_grid(experiment, method, {key: value})
    with BenchProgress() as console, open_events(events) as event_writer:
        records = run_experiment(experiment, folder, LocalExecutor(workers), CallbackList([console, event_writer]))
    print_runs(folder, records, as_json)
    raise_errors(records)


def _parse_value(text: str) -> tuple[str, float]:
    """Return the key and the number of KEY=VALUE."""
    key, _, value = text.partition("=")
    try:
        return key, float(value)
    except ValueError as error:
        raise click.UsageError(f"{text!r} is no KEY=VALUE with a number; write learning_rate=2.5") from error


@command.command()
@click.argument("folder", type=FOLDER)
@option("--sample", "Percentage of runs to repeat, such as 5%.", percentage, default="5%")
@option("--seed", "Seed of the choice.", int, default=0)
@events_option
@json_option
def verify(folder: Path, sample: float, seed: int, events: Path | None, as_json: bool) -> None:
    """Repeat a random sample of the runs in FOLDER and compare the scores.

    The exit code is 1 if a score is outside the spread over seeds. FOLDER is only read; data and weights must be where
    they were.

    \b
    vpt bench verify smoke/ --sample 5%
    """
    from vpt.cli.progress import BenchProgress
    from vpt.experiments.running.verification import verify as verify_runs
    from vpt.training import CallbackList
    from vpt.training.events import open_events

    with BenchProgress() as console, open_events(events) as event_writer:
        found = verify_runs(folder, sample, seed, CallbackList([console, event_writer]))
    count = f"{len(found.runs)} of {found.total} runs done again, "
    within = sum(run.status == "within" for run in found.runs)
    lines = [*map(str, found.runs), f"{count}{within} within the spread, {len(found.runs) - within} not"]
    print_result(as_json, {**asdict(found), "confirmed": found.confirmed}, lines)
    if not found.confirmed:
        raise SystemExit(ExitCode.FAILED)


@command.command()
@click.argument("folder", type=FOLDER)
@json_option
def status(folder: Path, as_json: bool) -> None:
    """Show the progress of the comparison in FOLDER.

    \b
    vpt bench status smoke/
    """
    from vpt.experiments.reports.status import read_status

    found = read_status(folder)
    print_result(as_json, asdict(found), found.text(shutil.get_terminal_size().columns).splitlines())


@command.command()
@click.argument("folder", type=FOLDER)
@option("--csv", "The CSV file [default: stdout].", FILE)
@option("--parquet", "A Parquet file.", FILE)
def export(folder: Path, csv: Path | None, parquet: Path | None) -> None:
    """Write every run in FOLDER: a row for each run and metric.

    \b
    vpt bench export smoke/ --csv runs.csv
    vpt bench export smoke/ --parquet runs.parquet
    """
    from vpt.core.io import write_atomic
    from vpt.experiments.reports.run_table import to_csv, to_parquet

    if parquet is not None:
        write_atomic(parquet, to_parquet(folder))
    if csv is not None:
        write_atomic(csv, to_csv(folder).encode())
    elif parquet is None:
        click.echo(to_csv(folder), nl=False)


@command.command()
@click.argument("folder", type=FOLDER)
@click.argument("sql")
@json_option
def query(folder: Path, sql: str, as_json: bool) -> None:
    """Run a SELECT statement on the runs in FOLDER, as CSV.

    The table `runs` has a row for each run; `metrics` is that of `vpt bench export`.

    \b
    vpt bench query smoke/ "SELECT method, avg(top1) FROM runs WHERE stage = 'final' GROUP BY method"
    """
    from vpt.experiments.reports import run_table
    from vpt.experiments.reports.table import to_csv

    columns, rows = run_table.query(folder, sql)
    if as_json:
        print_json({"columns": columns, "rows": rows})
    else:
        click.echo(to_csv(columns, rows), nl=False)


@command.command()
@click.argument("folders", metavar="FOLDER...", type=FOLDER, nargs=-1, required=True)
@option("--out", "Folder of the report [default: report/ in the first FOLDER].", FOLDER)
@json_option
def report(folders: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Write the tables and charts of FOLDER: report.html, report.md, and each table as CSV and LaTeX.

    Several folders are shown side by side; they must have the same protocol, tasks and backbone.

    \b
    vpt bench report smoke/
    """
    from vpt.experiments.reports.cell_verdicts import judge_cells
    from vpt.experiments.reports.report import write_report
    from vpt.experiments.results import load_results
    from vpt.experiments.store import Store

    files = [str(path) for path in write_report(folders[0], out or folders[0] / "report", *folders[1:])]
    verdicts = judge_cells(load_results(*map(Store, folders)))
    values = {"files": files, "verdicts": [asdict(verdict) for verdict in verdicts]}
    print_result(as_json, values, [*files, *map(str, verdicts)])
