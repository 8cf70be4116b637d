"""`vpt eval`."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command(name="eval")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("data")
@click.option("--part", type=click.Choice(["train", "val", "test"]), default="test", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the cut, where DATA has no such part.")
@click.option("--backbone", help="The backbone's name, if it is not to be taken from FILE.")
@click.option("--weights", type=click.Path(path_type=Path), help="Local weights of the backbone.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    file: Path, data: str, part: str, seed: int, backbone: str | None, weights: Path | None, as_json: bool
) -> None:
    """Measure a tuned FILE on labelled images. DATA is what `vpt tune` takes.

    \b
    vpt eval photos.safetensors photos/
    """
    from vpt.cli.loading import load_tuned
    from vpt.cli.progress import ConsoleListener
    from vpt.data.read import read
    from vpt.predict import evaluate

    dataset = read(data, seed=seed)
    model = load_tuned(file, backbone, weights)
    with ConsoleListener() as listener:
        scores = evaluate(model, dataset, part, on_image=lambda done, n: listener.decoding(part, done, n))
    names = model.classes or dataset.classes
    recalls = {n: None if v != v else float(v) for n, v in zip(names, scores.per_class, strict=True)}
    images = int(scores.confusion.sum())
    if as_json:
        figures = {"top1": scores.top1, "mean_per_class": scores.mean_per_class, "loss": scores.loss}
        click.echo(json.dumps({"part": part, "images": images, **figures, "per_class": recalls}, indent=1))
        return
    for name, value in recalls.items():
        click.echo(f"{name:<24}" + ("no image" if value is None else f"{100 * value:.1f} %"))
    click.echo(
        f"top-1 {100 * scores.top1:.2f} %, mean per class {100 * scores.mean_per_class:.2f} %, {images} {part} images"
    )
