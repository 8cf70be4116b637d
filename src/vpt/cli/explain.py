"""`vpt explain`."""

from pathlib import Path
from typing import Any

import click

from vpt.cli.options import PATH, model_options, option


@click.command()
@click.argument("file", type=PATH)
@click.argument("image", type=PATH)
@option("--out", "Picture, .png or .svg [default: IMAGE-explained.png].", PATH)
@option("--block", "Which block's attention, from 1 [default: the last].", int)
@model_options
def command(file: Path, image: Path, out: Path | None, **options: Any) -> None:
    """Draw where a tuned FILE looks in IMAGE, beside its frozen backbone.

    The picture also shows what goes to and from the prompts. Attention shows what a block reads, not what decides the
    answer.

    \b
    vpt explain photos.safetensors new.jpg
    vpt explain photos.safetensors new.jpg --block 6 --out new.svg
    """
    from vpt.api import explain

    out = out or Path(f"{image.stem}-explained.png")
    explanation = explain(file, image, out=out, **options)
    name, probability = explanation.prediction
    click.echo(f"{image}: {name} {100 * probability:.1f} %")
    click.echo(f"the {explanation.query} in block {explanation.block} attends to:")
    for label, maps in (("frozen backbone", explanation.frozen), ("tuned", explanation.tuned)):
        fractions = {"patches": maps.attention.sum(), "class token and registers": maps.prefix}
        if len(maps.prompts):
            fractions["prompts"] = maps.prompts.sum()
        text = ", ".join(f"{target} {100 * fraction:.1f} %" for target, fraction in fractions.items())
        click.echo(f"  {label:<17}{text}")
    if len(explanation.tuned.prompts):
        each = ", ".join(f"{100 * fraction:.1f}" for fraction in explanation.tuned.prompts)
        click.echo(f"  {'each prompt, %':<17}{each}")
    click.echo(f"picture: {out}")
