"""The command `vpt ablate`."""

from pathlib import Path
from typing import Any

import click

from vpt.cli.lines import echo_line, echo_note
from vpt.cli.options import COUNT, backbone_option, option, print_json, print_result
from vpt.cli.paths import FOLDER
from vpt.cli.tune import command as tune

# Options of `vpt tune` that mean the same here; the others would be at odds with a series.
_TUNE_OPTIONS = (
    "weights", "learning_rate", "weight_decay", "optimizer", "warmup_epochs", "augment",
    "grad_accum_steps", "precision", "probe_epochs", "head_lr_scale", "train_on", "val_fraction", "test_fraction",
    "train_fraction", "images_per_class", "image_size", "normalization", "value_range", "resize", "crop_fraction",
    "interpolation", "skip_corrupt", "decay", "overwrite", "events", "as_json",
)  # fmt: skip


@click.command(params=[option for option in tune.params if option.name in _TUNE_OPTIONS])
@click.argument("name", required=False)
@click.argument("data", required=False)
@option("--out", "The folder of the series [default: DATA-NAME].", FOLDER)
@option("--seeds", "Runs per point.", COUNT, default=3)
@option("--workers", "Runs at once, each in a process of its own [default: 1].", COUNT)
@option("--epochs", "Passes over the training images [default: 100].", COUNT)
@option("--batch-size", "Images per step [default: 64].", COUNT)
@option("--method", "Base method: the series keeps its fields except those that it varies.", default="vpt")
@backbone_option("A timm name [default: the embedded one]; several for the series `backbone`.", multiple=True)
def command(
    name: str | None,
    data: str | None,
    out: Path | None,
    seeds: int,
    workers: int | None,
    method: str,
    backbone: tuple[str, ...],
    overwrite: bool,
    events: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Run the ablation NAME of the paper on DATA, or list all of them.

    The same command resumes an interrupted series. --lr, --optimizer and --weight-decay are for the base and its
    variants; other methods that a series compares train with their own.

    \b
    vpt ablate
    vpt ablate length photos/ --epochs 30
    vpt ablate sharing photos/ --method "vpt(length=50)" --backbone vit_base_patch16_224.augreg_in21k
    """
    from vpt.experiments.ablations.series import SERIES, find_series

    if name is None:
        titles = {series.name: f"{series.title} ({series.source})" for series in SERIES.values()}
        width = max(map(len, titles))
        print_result(as_json, titles, (f"{known:<{width}}  {title}" for known, title in titles.items()))
        return
    series = find_series(name)
    if data is None:
        raise click.UsageError(f"DATA is missing; write it like: vpt ablate {name} photos/")

    from vpt.backbones import DEFAULT
    from vpt.cli.console_table import print_table
    from vpt.cli.progress import SeriesProgress
    from vpt.experiments.ablations.run import ablate
    from vpt.experiments.running.local_executor import InlineExecutor, LocalExecutor
    from vpt.training import CallbackList
    from vpt.training.events import open_events

    folder = out or Path(f"{Path(data).name or 'data'}-{name}")
    with SeriesProgress() as console, open_events(events) as event_writer:
        ablation = ablate(
            series,
            data,
            folder,
            method=method,
            backbones=backbone or (DEFAULT,),
            seeds=seeds,
            options=options,
            executor=InlineExecutor() if workers is None else LocalExecutor(workers),
            callback=CallbackList([console, event_writer]),
            overwrite=overwrite,
        )
    for note in ablation.notes:
        echo_note(note)
    if as_json:
        print_json(ablation.to_dict())
        return
    print_table(ablation.table)
    echo_line(f"\npicture: {folder / series.name}.png\ntable, results and runs: {folder}/table.md, results.json")
    echo_line(f"next: vpt bench report {folder}", whole=True)
