"""`vpt explain`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vpt.cli.common_options import backbone_option, device_option, weights_option

if TYPE_CHECKING:
    from vpt.api.options import Device


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Picture, .png or .svg.  [default: IMAGE-explained.png]")
@click.option("--block", type=int, help="Which block's attention, from 1.  [default: the last]")
@backbone_option
@weights_option
@device_option
def command(
    file: Path,
    image: Path,
    out: Path | None,
    block: int | None,
    backbone: str | None,
    weights: Path | None,
    device: Device,
) -> None:
    """Draw where a tuned FILE looks in IMAGE, beside its frozen backbone, and what goes to and from the prompts.

    Attention shows what a block reads, not what decides the answer.

    \b
    vpt explain photos.safetensors new.jpg
    vpt explain photos.safetensors new.jpg --block 6 --out new.svg
    """
    from vpt.api import explain

    out = out or Path(f"{image.stem}-explained.png")
    explanation = explain(file, image, block=block, out=out, backbone=backbone, weights=weights, device=device)
    name, probability = explanation.prediction
    click.echo(f"{image}: {name} {100 * probability:.1f} %")
    click.echo(f"the {explanation.query} in block {explanation.block} attends to:")
    for label, maps in (("frozen backbone", explanation.frozen), ("tuned", explanation.tuned)):
        fractions = {"patches": maps.attention.sum(), "class token and registers": maps.prefix}
        if len(maps.prompts):
            fractions["prompts"] = maps.prompts.sum()
        click.echo(
            f"  {label:<17}" + ", ".join(f"{target} {100 * fraction:.1f} %" for target, fraction in fractions.items())
        )
    if len(explanation.tuned.prompts):
        each = ", ".join(f"{100 * fraction:.1f}" for fraction in explanation.tuned.prompts)
        click.echo(f"  {'each prompt, %':<17}{each}")
    click.echo(f"picture: {out}")
