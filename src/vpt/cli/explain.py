"""`vpt explain`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Picture, .png or .svg.  [default: IMAGE-explained.png]")
@click.option("--block", type=int, help="Which block's attention, from 1.  [default: the last]")
@click.option("--backbone", help="The backbone's name, if it is not to be taken from FILE.")
@click.option("--weights", type=click.Path(path_type=Path), help="Local weights of the backbone.")
def command(
    file: Path, image: Path, out: Path | None, block: int | None, backbone: str | None, weights: Path | None
) -> None:
    """Draw where a tuned FILE looks in IMAGE, beside its frozen backbone, and what goes to and from the prompts.

    Attention shows what a block reads, not what decides the answer.

    \b
    vpt explain photos.safetensors new.jpg
    vpt explain photos.safetensors new.jpg --block 6 --out new.svg
    """
    from vpt.analysis.attention_maps import draw, explain
    from vpt.cli.tuned_files import load_tuned
    from vpt.plots import figures

    out = out or Path(f"{image.stem}-explained.png")
    figures.demand(out)
    if out.exists() and image.exists() and out.samefile(image):
        raise click.UsageError(f"--out is {out}, the image itself, which would be lost; choose another name")
    found = explain(load_tuned(file, backbone, weights), image, block)
    draw(found, out)
    name, share = found.answer
    click.echo(f"{image}: {name} {100 * share:.1f} %")
    click.echo(f"the {found.asked} in block {found.block} attends to:")
    for who, gaze in (("frozen backbone", found.frozen), ("tuned", found.tuned)):
        parts = {"patches": gaze.attention.sum(), "class token and registers": gaze.prefix}
        if len(gaze.prompts):
            parts["prompts"] = gaze.prompts.sum()
        click.echo(f"  {who:<17}" + ", ".join(f"{part} {100 * taken:.1f} %" for part, taken in parts.items()))
    if len(found.tuned.prompts):
        each = ", ".join(f"{100 * taken:.1f}" for taken in found.tuned.prompts)
        click.echo(f"  {'each prompt, %':<17}{each}")
    click.echo(f"picture: {out}")
