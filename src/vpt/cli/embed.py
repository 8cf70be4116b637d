"""`vpt embed`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vpt.cli.common_options import backbone_option, device_option, weights_option

if TYPE_CHECKING:
    from vpt.api.options import Device, SplitName


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("data")
@click.option(
    "--split", type=click.Choice(["train", "val", "test"]), default="test", show_default=True, help="Split to draw."
)
@click.option("--out", type=click.Path(path_type=Path), help="Picture, .png or .svg.  [default: FILE-SPLIT.png]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the layout and the choice.")
@click.option("--limit", type=click.IntRange(min=5), default=2000, show_default=True, help="Images at most.")
@backbone_option
@weights_option
@device_option
def command(
    file: Path,
    data: str,
    split: SplitName,
    out: Path | None,
    seed: int,
    limit: int,
    backbone: str | None,
    weights: Path | None,
    device: Device,
) -> None:
    """Draw the features of labeled images in two dimensions (t-SNE), before and after tuning FILE.

    DATA is what `vpt tune` takes. The points are also written as a table (.csv) beside the picture.

    \b
    vpt embed photos.safetensors photos/
    vpt embed photos.safetensors photos/ --split train --out photos.svg
    """
    from vpt.api import embed
    from vpt.api.progress import ConsoleCallback

    out = out or Path(f"{file.stem}-{split}.png")
    with ConsoleCallback() as callback:
        embedding = embed(
            file, data, split=split, out=out, seed=seed, limit=limit, backbone=backbone, weights=weights,
            device=device, callback=callback,
        )  # fmt: skip
    click.echo(f"{len(embedding.labels)} {split} images; of the class of their 5 nearest, in all dimensions:")
    click.echo(f"  before tuning  {100 * embedding.before.top1:.1f} %")
    click.echo(f"  after          {100 * embedding.after.top1:.1f} %")
    click.echo(f"table: {out.with_suffix('.csv')}")
    click.echo(f"picture: {out}")
