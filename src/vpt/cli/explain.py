"""`vpt explain`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vpt.cli.lines import echo_line, echo_note
from vpt.cli.options import COUNT, model_options, option, print_json
from vpt.cli.paths import PATH, TUNED_FILE, require_other_output

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vpt.analysis.attention_maps import AttentionMaps, Explanation
    from vpt.analysis.occlusion import Occlusion


@click.command()
@click.argument("file", type=TUNED_FILE)
@click.argument("images", type=PATH, nargs=-1, required=True)
@option("--out", "Picture, .png or .svg [default: IMAGE-explained.png, of several images FILE-explained.png].", PATH)
@option(
    "--method",
    "attention of a block; occlusion: drop of the probability where the image is covered; auto: attention where the "
    "backbone is a plain transformer.",
    ["auto", "attention", "occlusion"],
    default="auto",
)
@option("--block", "Which block's attention, from 1 [default: the last].", int)
@option("--limit", "Images at most, evenly from all.", COUNT, default=8)
@model_options
@option("--json as_json", "Print JSON: of several images, one object per image and line.", is_flag=True)
def command(
    file: Path, images: tuple[Path, ...], out: Path | None, method: str, block: int | None, limit: int, as_json: bool,
    **options: Any,
) -> None:  # fmt: skip
    """Plot attention maps of a tuned FILE and its frozen backbone for IMAGES.

    IMAGES are files, folders or tables of images. One image has all its maps in the picture, also those to and from the
    prompts; several have a row each.

    Attention shows what a block reads, not what determines the prediction. Use occlusion to see which regions determine
    the prediction. It works on every backbone, and runs the model on 122 images.

    \b
    vpt explain photos.safetensors new.jpg
    vpt explain photos.safetensors new.jpg --block 6 --out new.svg
    vpt explain photos.safetensors inbox/ --limit 12
    vpt explain photos.safetensors new.jpg --method occlusion
    """
    import numpy as np

    from vpt.analysis.attention_maps import draw, explain, has_attention_maps
    from vpt.analysis.explanation_grid import draw_grid
    from vpt.analysis.occlusion import Occlusion, occlude
    from vpt.api.models import open_model
    from vpt.data.find_images import find_images
    from vpt.plots.canvas import check_plot_path

    paths = find_images(images, echo_note)
    several = len(paths) > 1
    out = out or Path(f"{(file if several else paths[0]).stem}-explained.png")
    check_plot_path(out)
    require_other_output(out, (file, options["weights"], *paths))
    model = open_model(file, **options)
    if method == "auto":
        method = "attention" if has_attention_maps(model.layout) else "occlusion"
    if method == "occlusion" and block is not None:
        raise click.UsageError(f"--block {block}: for attention, and this is occlusion; leave it out")
    chosen = np.linspace(0, len(paths) - 1, min(limit, len(paths))).round().astype(int)
    found: dict[str, Explanation | Occlusion] = {}
    for path in [paths[index] for index in chosen]:
        found[str(path)] = explain(model, path, block) if method == "attention" else occlude(model, path)
    first = next(iter(found.values()))
    if several or isinstance(first, Occlusion):
        draw_grid(found, out)
    else:
        draw(first, out)
    for image, each in found.items():
        if as_json:
            print_json(_values(image, each, out), one_line=several)
        else:
            for line in _lines(image, each):
                echo_line(line)
    if not as_json:
        if len(found) < len(paths):
            echo_line(f"{len(found)} of {len(paths)} images; --limit takes more")
        echo_line(f"picture: {out}")


def _lines(image: str, found: Explanation | Occlusion) -> Iterator[str]:
    from vpt.analysis.occlusion import Occlusion

    name, probability = found.prediction
    yield f"{image}: {name} {100 * probability:.1f} %"
    if isinstance(found, Occlusion):
        row, column = divmod(int(found.drops.argmax()), len(found.drops))
        yield (
            f"occlusion of {found.square} x {found.square} px takes at most {100 * found.drops.max():.1f} points, in "
            f"row {row + 1} and column {column + 1} of {len(found.drops)} x {len(found.drops)}"
        )
        return
    yield f"the {found.query} in block {found.block} attends to:"
    for label, maps in (("frozen backbone", found.frozen), ("tuned", found.tuned)):
        fractions = {"patches": maps.attention.sum(), "class token and registers": maps.prefix}
        if len(maps.prompts):
            fractions["prompts"] = maps.prompts.sum()
        text = ", ".join(f"{target} {100 * fraction:.1f} %" for target, fraction in fractions.items())
        yield f"  {label:<17}{text}"
    if len(found.tuned.prompts):
        each = ", ".join(f"{100 * fraction:.1f}" for fraction in found.tuned.prompts)
        yield f"  {'each prompt, %':<17}{each}"
        blocks = ", ".join(f"{100 * share:.1f}" for share in found.prompt_shares)
        yield f"  {'each block, %':<17}{blocks}"


def _values(image: str, found: Explanation | Occlusion, picture: Path) -> dict[str, Any]:
    from vpt.analysis.occlusion import Occlusion

    name, probability = found.prediction
    values = {"image": image, "class": name, "probability": probability, "picture": str(picture)}
    if isinstance(found, Occlusion):
        return values | {"square_px": found.square, "drops": found.drops.tolist()}
    return values | {
        "query": found.query,
        "block": found.block,
        "frozen": _fractions(found.frozen),
        "tuned": _fractions(found.tuned),
        "prompt_shares": list(found.prompt_shares),
    }


def _fractions(maps: AttentionMaps) -> dict[str, Any]:
    """Return the fractions of attention to patches, to class token and registers, and to each prompt."""
    return {"patches": float(maps.attention.sum()), "prefix": float(maps.prefix), "prompts": maps.prompts.tolist()}
