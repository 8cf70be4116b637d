"""`vpt embed`."""

from pathlib import Path
from typing import Any

import click

from vpt.cli.options import NATURAL, PATH, model_options, option


@click.command()
@click.argument("file", type=PATH)
@click.argument("data")
@option("--split", "Split of DATA; all: for a table.", ["train", "val", "test", "all"], default="test")
@option("--out", "Picture, .png or .svg, or table, .csv, .jsonl, .parquet or .npz [default: FILE-SPLIT.png].", PATH)
@option("--seed", "Of the layout and the choice, for a picture [default: 0].", NATURAL)
@option("--limit", "Images at most, for a picture [default: 2000].", click.IntRange(min=5))
@model_options
def command(
    file: Path, data: str, split: Any, out: Path | None, seed: int | None, limit: int | None, **options: Any
) -> None:
    """Draw features of labeled images (t-SNE) before and after tuning, or write them to a table.

    DATA is what `vpt tune` takes. The points of a picture are also written as a table (.csv) beside it. A table has the
    features themselves, a row for each image.

    \b
    vpt embed photos.safetensors photos/
    vpt embed photos.safetensors photos/ --split train --out photos.svg
    vpt embed photos.safetensors photos/ --split all --out features.parquet
    """
    from vpt.analysis.features import FEATURE_SUFFIXES
    from vpt.api import embed, embed_to_file
    from vpt.api.progress import ConsoleCallback
    from vpt.core.text import pluralize

    out = out or Path(f"{file.stem}-{split}.png")
    given = {"seed": seed, "limit": limit}
    drawing: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if out.suffix in FEATURE_SUFFIXES:
        if drawing:
            flags = ", ".join(f"--{name}" for name in drawing)
            raise click.UsageError(f"{flags}: for a picture, and {out} is a table of all images; leave it out")
        with ConsoleCallback() as callback:
            table = embed_to_file(file, data, out, split=split, callback=callback, **options)
        click.echo(f"{table.file}: {pluralize(table.images, 'image')}, features of {table.width} numbers")
        return
    if split == "all":
        raise click.UsageError(f"--split all: for a table, and {out} is a picture; give a split")
    with ConsoleCallback() as callback:
        embedding = embed(file, data, split=split, out=out, callback=callback, **drawing, **options)
    click.echo(f"{len(embedding.labels)} {split} images; of the class of their 5 nearest, in all dimensions:")
    click.echo(f"  before tuning  {100 * embedding.before.top1:.1f} %")
    click.echo(f"  after          {100 * embedding.after.top1:.1f} %")
    click.echo(f"table: {out.with_suffix('.csv')}")
    click.echo(f"picture: {out}")
