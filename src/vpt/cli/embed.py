"""`vpt embed`."""

from pathlib import Path
from typing import Any

import click

from vpt.cli.options import NATURAL, PATH, model_options, option, split_option


@click.command()
@click.argument("file", type=PATH)
@click.argument("data")
@split_option
@option("--out", "Picture, .png or .svg [default: FILE-SPLIT.png].", PATH)
@option("--seed", "Of the layout and the choice.", NATURAL, default=0)
@option("--limit", "Images at most.", click.IntRange(min=5), default=2000)
@model_options
def command(file: Path, data: str, split: Any, out: Path | None, **options: Any) -> None:
    """Draw features of labeled images (t-SNE) before and after tuning.

    DATA is what `vpt tune` takes. The points are also written as a table (.csv) beside the picture.

    \b
    vpt embed photos.safetensors photos/
    vpt embed photos.safetensors photos/ --split train --out photos.svg
    """
    from vpt.api import embed
    from vpt.api.progress import ConsoleCallback

    out = out or Path(f"{file.stem}-{split}.png")
    with ConsoleCallback() as callback:
        embedding = embed(file, data, split=split, out=out, callback=callback, **options)
    click.echo(f"{len(embedding.labels)} {split} images; of the class of their 5 nearest, in all dimensions:")
    click.echo(f"  before tuning  {100 * embedding.before.top1:.1f} %")
    click.echo(f"  after          {100 * embedding.after.top1:.1f} %")
    click.echo(f"table: {out.with_suffix('.csv')}")
    click.echo(f"picture: {out}")
