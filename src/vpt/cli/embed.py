"""`vpt embed`."""

from pathlib import Path
from typing import Any

import click

from vpt.cli.options import (
    NATURAL,
    events_option,
    json_option,
    model_options,
    option,
    print_result,
    skip_corrupt_option,
)
from vpt.cli.paths import PATH, TUNED_FILE


@click.command()
@click.argument("file", type=TUNED_FILE)
@click.argument("data")
@option("--split", "Split of DATA; all: for a table.", ["train", "val", "test", "all"], default="test")
@option(
    "--out",
    "Picture, .png or .svg, page, .html, or table, .csv, .jsonl, .parquet or .npz [default: FILE-SPLIT.png].",
    PATH,
)
@option("--seed", "Seed of the layout and of the choice of images, for a picture [default: 0].", NATURAL)
@option("--limit", "Images at most, for a picture [default: 2000].", click.IntRange(min=5))
@events_option
@skip_corrupt_option
@model_options
@json_option
def command(
    file: Path,
    data: str,
    split: Any,
    out: Path | None,
    seed: int | None,
    limit: int | None,
    events: Path | None,
    skip_corrupt: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Draw features of labeled images (t-SNE) before and after tuning, or write them to a table.

    DATA is what `vpt tune` takes. The HTML page shows image, label and prediction of the selected point. Points are
    also saved as CSV, next to the picture or page. A table has the features themselves, one row per image.

    \b
    vpt embed photos.safetensors photos/
    vpt embed photos.safetensors photos/ --split train --out photos.svg
    vpt embed photos.safetensors photos/ --out photos.html
    vpt embed photos.safetensors photos/ --split all --out features.parquet
    """
    from vpt.analysis.features import FEATURE_SUFFIXES
    from vpt.api.analyzing import embed, embed_to_file
    from vpt.api.progress import ConsoleCallback
    from vpt.core.text import pluralize
    from vpt.training.callbacks import CallbackList
    from vpt.training.events import open_events

    out = out or Path(f"{file.stem}-{split}.png")
    given = {"seed": seed, "limit": limit}
    drawing: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if out.suffix.casefold() in FEATURE_SUFFIXES:
        if drawing:
            flags = ", ".join(f"--{name}" for name in drawing)
            raise click.UsageError(f"{flags}: for a picture, and {out} is a table of all images; leave it out")
        with ConsoleCallback() as console, open_events(events) as event_writer:
            callback = CallbackList([console, event_writer])
            table = embed_to_file(file, data, out, split=split, skip_corrupt=skip_corrupt, callback=callback, **options)
        left_out = f", {table.dropped} left out" if table.dropped else ""
        line = f"{table.file}: {pluralize(table.images, 'image')}, features of {table.width} numbers{left_out}"
        print_result(as_json, vars(table), [line])
        return
    if split == "all":
        raise click.UsageError(f"--split all: for a table, and {out} is a picture; give a split")
    with ConsoleCallback() as console, open_events(events) as event_writer:
        callback = CallbackList([console, event_writer])
        embedding = embed(
            file, data, split=split, out=out, skip_corrupt=skip_corrupt, callback=callback, **drawing, **options
        )
    values = {
        "split": split,
        "images": len(embedding.labels),
        "before_top1": embedding.before.top1,
        "after_top1": embedding.after.top1,
        "table": str(out.with_suffix(".csv")),
        "picture": str(out),
    }
    lines = [
        f"{values['images']} {split} images; top-1 by the 5 nearest features, in all dimensions:",
        f"  before tuning  {100 * embedding.before.top1:.1f} %",
        f"  after          {100 * embedding.after.top1:.1f} %",
        f"table: {values['table']}",
        f"picture: {out}",
    ]
    print_result(as_json, values, lines)
