"""`vpt eval`."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command(name="eval")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("data")
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="test", show_default=True)
@click.option(
    "--seed", type=click.IntRange(min=0), help="Seed for splitting DATA when it has no such split [default: FILE's]."
)
@click.option("--skip-corrupt", is_flag=True, help="Leave unreadable images out.")
@click.option("--backbone", help="The backbone's name, if it is not to be taken from FILE.")
@click.option("--weights", type=click.Path(path_type=Path), help="Local weights of the backbone.")
@click.option("--scales", default="1", show_default=True, help="Segmentation: scales to average, such as 0.75,1,1.25.")
@click.option("--flip", is_flag=True, help="Segmentation: average with the mirrored image.")
@click.option("--labels", help="Segmentation: how masks are read [default: by layout].")
@click.option("--ignore-index", type=int, help="Segmentation: a further id in masks that stands for no class.")
@click.option("--reduce-zero-label", is_flag=True, help="Segmentation: id 0 stands for no class, 1 for the first.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    file: Path,
    data: str,
    split: str,
    skip_corrupt: bool,
    seed: int | None,
    backbone: str | None,
    weights: Path | None,
    scales: str,
    flip: bool,
    labels: str | None,
    ignore_index: int | None,
    reduce_zero_label: bool,
    as_json: bool,
) -> None:
    """Measure a tuned FILE on labeled images. DATA is what `vpt tune` takes.

    \b
    vpt eval photos.safetensors photos/
    """
    from vpt.cli.progress import ConsoleCallback
    from vpt.cli.segment_options import CLASSIFICATION_OPTIONS, SEGMENTATION_OPTIONS, parse_inference, reject_options
    from vpt.cli.tuned_files import load_tuned_model
    from vpt.data.loading import load_dataset
    from vpt.model.tuned_file import inspect
    from vpt.tasks.classification.prediction import evaluate

    header = inspect(file)
    split_options = {**header.split_options} if seed is None else {**header.split_options, "seed": seed}
    if header.head is not None:
        from vpt.cli.segment import eval_command

        reject_options(CLASSIFICATION_OPTIONS, f"for classification, and {file} is of a segmentation")
        model = load_tuned_model(file, backbone, weights)
        with ConsoleCallback() as callback:
            load_options = {
                "labels": labels or "auto",
                "ignore_index": ignore_index,
                "reduce_zero_label": reduce_zero_label,
                **split_options,
            }
            eval_command(model, data, split, parse_inference(scales, flip), load_options, callback, as_json)
        return
    reject_options(SEGMENTATION_OPTIONS, f"for segmentation, and {file} is of a classification")
    dataset = load_dataset(data, **split_options)
    model = load_tuned_model(file, backbone, weights)
    with ConsoleCallback() as callback:
        scores = evaluate(
            model,
            dataset,
            split,
            skip_corrupt=skip_corrupt,
            on_image=lambda done, n: callback.on_data_progress(split, done, n),
            on_note=callback.on_note,
        )
    names = model.classes or dataset.classes
    recalls = {n: None if v != v else float(v) for n, v in zip(names, scores.per_class, strict=True)}
    images = int(scores.confusion.sum())
    if as_json:
        metrics = {"top1": scores.top1, "mean_per_class": scores.mean_per_class, "loss": scores.loss}
        click.echo(json.dumps({"split": split, "images": images, **metrics, "per_class": recalls}, indent=1))
        return
    for name, value in recalls.items():
        click.echo(f"{name:<24}" + ("no image" if value is None else f"{100 * value:.1f} %"))
    click.echo(
        f"top-1 {100 * scores.top1:.2f} %, mean per class {100 * scores.mean_per_class:.2f} %, {images} {split} images"
    )
