"""`vpt demo`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vpt.experiments.demo import DemoRow


@click.command()
@click.option("--task", help="A built-in task [default: the demo's own; see `vpt list tasks`].")
@click.option("--seeds", type=click.IntRange(min=1), help="Runs per method [default: 3].")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("vpt-demo"), show_default=True)
@click.option("--overwrite", is_flag=True, help="Do all runs again.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
def command(task: str | None, seeds: int | None, out: Path, overwrite: bool, as_json: bool) -> None:
    """Compare linear, VPT-shallow, VPT-deep and full fine-tuning on a built-in task.

    Nothing is downloaded; about two minutes on two CPU cores. Stopped, the same command goes on.
    """
    import time

    from vpt.cli.series_progress import SeriesProgress
    from vpt.experiments import demo

    start = time.monotonic()
    task = task or demo.TASK
    seeds = seeds or demo.SEEDS
    with SeriesProgress() as callback:
        rows = demo.run_demo(out, task=task, seeds=seeds, callback=callback, overwrite=overwrite)
    if as_json:
        scores = [
            {"method": row.method, "mean": row.mean, "std": row.std, "top1": [run.score for run in row.runs],
             "trainable_parameters": row.runs[0].trainable_parameters, "file_bytes": row.runs[0].file_bytes}
            for row in rows
        ]  # fmt: skip
        click.echo(
            json.dumps(
                {"task": task, "seeds": seeds, "rows": scores, "environment": rows[0].runs[0].environment}, indent=1
            )
        )
        return
    _table(rows, task, seeds)
    from vpt.cli.units import format_duration
    from vpt.plots import figures

    click.echo(f"\npicture: {out / 'comparison.png'}" if figures.is_available() else f"\n{figures.MATPLOTLIB_MISSING}")
    click.echo(f"tuned files and their runs: {out}/   ({format_duration(time.monotonic() - start)})")


def _table(rows: list[DemoRow], task: str, seeds: int) -> None:
    from rich.console import Console
    from rich.table import Table

    from vpt.cli.units import format_bytes, format_duration

    first = rows[0].runs[0]
    console = Console(highlight=False, width=max(110, Console().width))
    images = f"{first.images['train']} training and {first.images[first.eval_split]} {first.eval_split} images"
    table = Table(title=f"{task}: {images}, backbone {first.backbone}", title_justify="left")
    for name in ("method", "trained", "share", "file", "training", f"top-1, mean ± sd of {seeds}"):
        table.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
    best = max(row.mean for row in rows)
    for row in rows:
        run = row.runs[0]
        top1_text = f"{100 * row.mean:.1f} ± {100 * row.std:.1f} %"
        table.add_row(
            row.method,
            f"{run.trainable_parameters:,}",
            f"{100 * run.trainable_fraction:.2f} %",
            format_bytes(run.file_bytes),
            format_duration(sum(r.seconds for r in row.runs) / len(row.runs)),
            f"[bold]{top1_text}[/bold]" if row.mean == best else top1_text,
        )
    console.print(table)
    bar = Table.grid(padding=(0, 1))
    for row in rows:
        bar.add_row(row.method, "█" * round(60 * row.mean), f"{100 * row.mean:.1f} %")
    console.print(bar)
