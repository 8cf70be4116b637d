"""The command `vpt ablate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vpt.cli.tune import command as tune

if TYPE_CHECKING:
    from vpt.experiments.ablation_report import Ablation

# Options of `vpt tune` that mean the same here; the others would be at odds with a series.
_TUNE_OPTIONS = (
    "weights", "epochs", "batch_size", "learning_rate", "weight_decay", "optimizer", "warmup_epochs", "augment",
    "grad_accum_steps", "precision", "probe_epochs", "head_lr_scale", "train_on", "val_fraction", "test_fraction",
    "train_fraction", "image_size", "resize", "interpolation", "skip_corrupt", "overwrite", "as_json",
)  # fmt: skip


@click.command(params=[option for option in tune.params if option.name in _TUNE_OPTIONS])
@click.argument("name", required=False)
@click.argument("data", required=False)
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="The folder of the series [default: DATA-NAME]."
)
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Runs per point.")
@click.option("--workers", type=click.IntRange(min=1), help="Runs at once, each in a process of its own [default: 1].")
@click.option(
    "--method",
    default="vpt",
    show_default=True,
    help="Base method: the series keeps its fields except those that it varies.",
)
@click.option("--backbone", "backbones", multiple=True,
              help="A timm name [default: the embedded one]; several for the series `backbone`.")  # fmt: skip
def command(
    name: str | None,
    data: str | None,
    out: Path | None,
    seeds: int,
    workers: int | None,
    method: str,
    backbones: tuple[str, ...],
    overwrite: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Run the ablation NAME of the paper on DATA; without a NAME, list them.

    The same command resumes an interrupted series. --lr, --optimizer and --weight-decay are for the base and its
    variants; other methods that a series compares train with their own.

    \b
    vpt ablate
    vpt ablate length photos/ --epochs 30
    vpt ablate sharing photos/ --method "vpt(length=50)" --backbone vit_base_patch16_224.augreg_in21k
    """
    from vpt.experiments.ablation_series import SERIES, find_series

    if name is None:
        lines = {series.name: f"{series.title} ({series.source})" for series in SERIES.values()}
        width = max(map(len, lines))
        text = "\n".join(f"{known:<{width}}  {line}" for known, line in lines.items())
        click.echo(json.dumps(lines, indent=1) if as_json else text)
        return
    series = find_series(name)
    if data is None:
        raise click.UsageError(f"DATA is missing; write it like: vpt ablate {name} photos/")

    from vpt.backbones import DEFAULT
    from vpt.cli.series_progress import SeriesProgress
    from vpt.experiments.ablation import ablate
    from vpt.experiments.local_executor import InlineExecutor, LocalExecutor
    from vpt.tasks.classification.config import ClassificationConfig

    names = ClassificationConfig.option_names()
    folder = out or Path(f"{Path(data).name or 'data'}-{name}")
    with SeriesProgress() as callback:
        ablation = ablate(
            series,
            data,
            folder,
            method=method,
            backbones=backbones or (DEFAULT,),
            seeds=seeds,
            config_options={key: value for key, value in options.items() if key in names},
            job_options={key: value for key, value in options.items() if key not in names},
            executor=InlineExecutor() if workers is None else LocalExecutor(workers),
            callback=callback,
            overwrite=overwrite,
        )
    for note in ablation.notes:
        click.echo(f"note: {note}", err=True)
    if as_json:
        click.echo(json.dumps(ablation.to_dict(), indent=1))
    else:
        _show(ablation, folder)


def _show(ablation: Ablation, folder: Path) -> None:
    from rich.console import Console

    from vpt.cli.console_table import to_console
    from vpt.experiments.table import markdown_rows

    console = Console(highlight=False)
    if console.is_terminal:
        console.print(to_console(ablation.table))
    else:
        click.echo(markdown_rows(ablation.table), nl=False)
    click.echo(f"\npicture: {folder / ablation.series.name}.png")
    click.echo(f"table, results and runs: {folder}/table.md, results.json\nnext: vpt bench report {folder}")
