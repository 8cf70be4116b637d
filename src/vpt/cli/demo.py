"""The command `vpt demo`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vpt.cli.lines import echo_line
from vpt.cli.options import COUNT, events_option, json_option, option, print_json
from vpt.cli.paths import FOLDER

if TYPE_CHECKING:
    from vpt.experiments.demo import PairedDifference
    from vpt.experiments.reports.table import Table
    from vpt.experiments.results import Cell, ExperimentResults


@click.command()
@option("--task", "A built-in task [default: the demo's own; see `vpt list tasks`].")
@option("--draws", "Draws of the images, each with a run per method [default: 3].", COUNT)
@option("--workers", "Runs at once [default: one a core, at most 4].", COUNT)
@option("--out", "Folder of the comparison.", FOLDER, default=Path("vpt-demo"))
@option("--overwrite", "Discard earlier runs and start from scratch.", is_flag=True)
@events_option
@json_option
def command(
    task: str | None,
    draws: int | None,
    workers: int | None,
    out: Path,
    overwrite: bool,
    events: Path | None,
    as_json: bool,
) -> None:
    """Compare prompts, probes and full fine-tuning on a built-in task.

    Nothing is downloaded and every run is trained now; about a minute on two CPU cores. A draw decides the images, the
    initialization and the order. The same command resumes an interrupted demo.
    """
    import os
    import sys
    import time

    from rich.console import Console
    from rich.table import Table as Grid

    from vpt.cli.console_table import to_console
    from vpt.cli.progress import BenchProgress, SeriesProgress
    from vpt.core.terminal import has_width
    from vpt.core.text import format_duration
    from vpt.experiments.demo import compare_prompts, run_demo
    from vpt.training.callbacks import CallbackList
    from vpt.training.events import open_events

    start, workers = time.monotonic(), workers or min(4, os.cpu_count() or 1)
    with SeriesProgress() if workers == 1 else BenchProgress() as progress, open_events(events) as event_writer:
        callback = CallbackList([progress, event_writer])
        results = run_demo(out, task=task, draws=draws, workers=workers, callback=callback, overwrite=overwrite)
    experiment, cells = results.experiment, list(results.cells.values())
    comparisons = compare_prompts(results)
    if as_json:
        rows = [
            {"method": cell.method, "mean": cell.mean, "std": cell.std, "top1": cell.scores,
             "trainable_parameters": cell.trainable_parameters,
             "file_bytes": cell.final_records[0].cost.get("file_bytes")}
            for cell in cells
        ]  # fmt: skip
        values = {"task": experiment.tasks[0].name, "draws": experiment.protocol.seeds, "rows": rows,
                  "comparisons": [asdict(one) for one in comparisons],
                  "seconds": time.monotonic() - start, "workers": workers}  # fmt: skip
        print_json({**values, "environment": cells[0].final_records[0].provenance})
        return
    console = Console(highlight=False, width=None if has_width(sys.stdout) else 110)
    longest = max(10, min(60, console.width - 40))
    console.print(to_console(_demo_table(results)))
    bars = Grid.grid(padding=(0, 1))
    for cell in cells:
        if cell.mean is not None:
            bars.add_row(cell.method, "█" * round(longest * cell.mean), f"{100 * cell.mean:.1f} %")
    console.print(bars)
    click.echo()
    for one in comparisons:
        echo_line(_describe(one))
    echo_line(f"picture: {out / 'comparison.png'}")
    echo_line(f"tuned files: {out / 'tuned'}/   ({format_duration(time.monotonic() - start)})")
    echo_line(f"next: vpt bench report {out}", whole=True)


def _describe(one: "PairedDifference") -> str:
    text = f"{one.method} - {one.baseline}: {100 * one.difference:+.1f} points"
    if one.interval is None:
        return text
    low, high = (f"{100 * bound:+.1f}" for bound in one.interval)
    return f"{text}, 95 % interval {low} to {high}, paired over draws"


def _demo_table(results: "ExperimentResults") -> "Table":
    """Return the table: a row for each method with its cost and its accuracy."""
    from vpt.core.text import pluralize
    from vpt.experiments.reports.table import Table

    task, cells = results.experiment.tasks[0], list(results.cells.values())
    images, seeds = cells[0].final_records[0].images, results.experiment.protocol.seeds
    counts = f"{images['train']} training and {images['test']} test images"
    title = f"{task.name}: {counts}, {pluralize(seeds, 'draw')}, backbone {results.experiment.backbone}"
    header = ("method", "trained", "share", "file", "training", "top-1" + " ± sd" * (seeds > 1))
    best = max(range(len(cells)), key=lambda index: cells[index].mean or 0.0)
    return Table("demo", title, header, tuple(map(_row, cells)), best_row=best)


def _row(cell: "Cell") -> tuple[str, ...]:
    from vpt.core.text import format_bytes, format_duration
    from vpt.experiments.reports.table import format_mean_std

    record = cell.final_records[0]
    if not record.parameters:
        return (cell.method, "", "", "", "", record.status)
    return (
        cell.method,
        f"{record.parameters['trainable']:,}",
        f"{100 * record.parameters['trainable'] / record.parameters['total']:.2f} %",
        format_bytes(record.cost["file_bytes"]),
        format_duration(sum(run.cost["seconds"] for run in cell.final_records) / len(cell.final_records)),
        f"{format_mean_std(cell.mean, cell.std, digits=1)} %",
    )
