"""`vpt embed`."""

from __future__ import annotations

from pathlib import Path

import click

from vpt.cli.common_options import backbone_option, device_option, weights_option


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("data")
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="test", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Picture, .png or .svg.  [default: FILE-SPLIT.png]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the layout and the choice.")
@click.option("--limit", type=click.IntRange(min=5), default=2000, show_default=True, help="Images at most.")
@backbone_option
@weights_option
@device_option
def command(
    file: Path,
    data: str,
    split: str,
    out: Path | None,
    seed: int,
    limit: int,
    backbone: str | None,
    weights: Path | None,
    device: str,
) -> None:
    """Draw the features of labeled images in two dimensions (t-SNE), before and after tuning FILE.

    DATA is what `vpt tune` takes. The points are also written as a table (.csv) beside the picture.

    \b
    vpt embed photos.safetensors photos/
    vpt embed photos.safetensors photos/ --split train --out photos.svg
    """
    from vpt.analysis.embeddings import draw, embed, write_table
    from vpt.cli.tuned_files import load_tuned_model
    from vpt.data.loading import load_dataset
    from vpt.model.tuned_file import inspect
    from vpt.plots import figures
    from vpt.training.progress import ConsoleCallback

    out = out or Path(f"{file.stem}-{split}.png")
    figures.check_plot_path(out)
    dataset = load_dataset(data, **inspect(file).split_options)
    model = load_tuned_model(file, backbone, weights, device)
    with ConsoleCallback() as callback:
        embedding = embed(
            model,
            dataset,
            split,
            seed=seed,
            limit=limit,
            on_image=lambda done, n: callback.on_data_progress(split, done, n),
        )
    write_table(embedding, out.with_suffix(".csv"))
    draw(embedding, out)
    click.echo(f"{len(embedding.labels)} {split} images; of the class of their 5 nearest, in all dimensions:")
    click.echo(f"  before tuning  {100 * embedding.before.top1:.1f} %")
    click.echo(f"  after          {100 * embedding.after.top1:.1f} %")
    click.echo(f"table: {out.with_suffix('.csv')}")
    click.echo(f"picture: {out}" if figures.is_available() else figures.MATPLOTLIB_MISSING)
