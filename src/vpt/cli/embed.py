"""`vpt embed`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("data")
@click.option("--part", type=click.Choice(["train", "val", "test"]), default="test", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Picture, .png or .svg.  [default: FILE-PART.png]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the layout and the choice.")
@click.option("--limit", type=click.IntRange(min=5), default=2000, show_default=True, help="Images at most.")
@click.option("--backbone", help="The backbone's name, if it is not to be taken from FILE.")
@click.option("--weights", type=click.Path(path_type=Path), help="Local weights of the backbone.")
def command(
    file: Path,
    data: str,
    part: str,
    out: Path | None,
    seed: int,
    limit: int,
    backbone: str | None,
    weights: Path | None,
) -> None:
    """Draw the features of labelled images in two dimensions (t-SNE), before and after tuning FILE.

    DATA is what `vpt tune` takes. The points are also written as a table (.csv) beside the picture.

    \b
    vpt embed photos.safetensors photos/
    vpt embed photos.safetensors photos/ --part train --out photos.svg
    """
    from vpt.analysis.embeddings import draw, embed, write_table
    from vpt.cli.progress import ConsoleListener
    from vpt.cli.tuned_files import load_tuned
    from vpt.data.loading import read
    from vpt.model.tuned_file import inspect
    from vpt.plots import figures

    out = out or Path(f"{file.stem}-{part}.png")
    figures.check_name(out)
    dataset = read(data, **inspect(file).cut)
    model = load_tuned(file, backbone, weights)
    with ConsoleListener() as listener:
        found = embed(
            model,
            dataset,
            part,
            seed=seed,
            limit=limit,
            on_image=lambda done, n: listener.decoding(part, done, n),
        )
    write_table(found, out.with_suffix(".csv"))
    draw(found, out)
    click.echo(f"{len(found.labels)} {part} images; of the class of their 5 nearest, in all dimensions:")
    click.echo(f"  before tuning  {100 * found.before.top1:.1f} %")
    click.echo(f"  after          {100 * found.after.top1:.1f} %")
    click.echo(f"table: {out.with_suffix('.csv')}")
    click.echo(f"picture: {out}" if figures.available() else figures.MISSING)
