"""`vpt predict`."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("images", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--top", type=click.IntRange(min=1), default=3, show_default=True, help="How many classes to name.")
@click.option("--skip-corrupt", is_flag=True, help="Leave unreadable images out instead of refusing.")
@click.option("--backbone", help="The backbone's name, if it is not to be taken from FILE.")
@click.option("--weights", type=click.Path(path_type=Path), help="Local weights of the backbone.")
@click.option("--scales", default="1", show_default=True, help="Segmentation: scales to average, such as 0.75,1,1.25.")
@click.option("--flip", is_flag=True, help="Segmentation: average with the mirrored image.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("predicted"), show_default=True,
              help="Segmentation: folder for masks and overlays.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per image and line.")
def command(
    file: Path,
    images: tuple[Path, ...],
    top: int,
    skip_corrupt: bool,
    backbone: str | None,
    weights: Path | None,
    scales: str,
    flip: bool,
    out: Path,
    as_json: bool,
) -> None:
    """Classify IMAGES (files or whole folders) with a tuned FILE; or, of a segmentation, write masks and overlays.

    \b
    vpt predict photos.safetensors new.jpg
    vpt predict photos.safetensors inbox/ --json > predictions.jsonl
    """
    from vpt.cli.progress import ConsoleCallback
    from vpt.cli.segment_options import CLASSIFICATION_OPTIONS, SEGMENTATION_OPTIONS, parse_inference, reject_options
    from vpt.cli.tuned_files import load_tuned_model
    from vpt.tasks.classification.prediction import find_images, predict

    image_paths = find_images(images)
    model = load_tuned_model(file, backbone, weights)
    if model.is_dense:
        from vpt.cli.segment import predict_command

        reject_options(CLASSIFICATION_OPTIONS, f"for classification, and {file} is of a segmentation")
        with ConsoleCallback() as callback:
            predict_command(model, image_paths, out, parse_inference(scales, flip), callback, as_json)
        return
    reject_options(SEGMENTATION_OPTIONS | {"out"}, f"for segmentation, and {file} is of a classification")
    with ConsoleCallback() as callback:
        predictions = predict(
            model,
            image_paths,
            top=top,
            skip_corrupt=skip_corrupt,
            on_image=lambda done, n: callback.on_data_progress("images", done, n),
            on_note=callback.on_note,
        )
    for prediction in predictions:
        if as_json:
            pairs = [{"class": name, "probability": probability} for name, probability in prediction.top]
            click.echo(json.dumps({"image": prediction.image, "top": pairs}))
        else:
            click.echo(
                f"{prediction.image}: "
                + ", ".join(f"{name} {100 * probability:.1f} %" for name, probability in prediction.top)
            )
