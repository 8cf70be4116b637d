"""`vpt export`."""

from pathlib import Path

import click

from vpt.cli import options as common
from vpt.cli.options import json_option, option, print_result
from vpt.cli.paths import FILE, require_other_output


@click.command()
@click.argument("source", metavar="FILE")
@option("--out", "The graph, .onnx or .pt2; or .task.safetensors, for --shared's.", FILE, required=True)
@option("--shared", "Write the graph of a backbone for any number of tasks; FILE is its name.", is_flag=True)
@option("--pixels", "Put the preprocessing into the graph, which then reads pixels of any size.", is_flag=True)
@option("--half", "Convert weights and computation to float16.", is_flag=True)
@option("--image-size", "Side of the input in pixels, with --shared [default: the backbone's own].", common.COUNT)
@common.backbone_option("The backbone's name, if it is not to be taken from FILE.")
@common.weights_option
@json_option
def command(
    source: str,
    out: Path,
    shared: bool,
    pixels: bool,
    half: bool,
    image_size: int | None,
    backbone: str | None,
    weights: Path | None,
    as_json: bool,
) -> None:
    """Write the model of a tuned FILE as one graph that runs without this library.

    The graph takes any batch size. It is run and compared with the model before it is written.

    With --shared the graph is that of a backbone. A file of keys and values, .task.safetensors, then adds a task to
    it, and images of different tasks share a pass.

    \b
    vpt export photos.safetensors --out photos.onnx
    vpt export vit_small_patch16_224 --shared --out backbone.onnx
    vpt export photos.safetensors --out photos.task.safetensors
    """
    from vpt.api.models import open_model
    from vpt.backbones import load_backbone
    from vpt.core.text import format_bytes
    from vpt.export import export_backbone, export_task

    used = {"--image-size"} if shared else {"--backbone"}
    if not shared and out.suffix != ".safetensors":
        used |= {"--pixels", "--half"}
    given = {"--pixels": pixels, "--half": half, "--image-size": image_size, "--backbone": backbone}
    for name, value in given.items():
        if value and name not in used:
            raise click.UsageError(f"{name} has no effect on this export; leave it out")
    require_other_output(out, (None if shared else Path(source), weights))
    if not shared and out.suffix == ".safetensors" and not out.name.endswith(".task.safetensors"):
        raise click.UsageError(f"--out {out}: a file that adds a task to a graph ends in .task.safetensors")
    if shared:
        if out.suffix.casefold() != ".onnx":
            raise click.UsageError(f"--out {out}: the graph of a backbone is a file .onnx")
        made = load_backbone(source, weights=weights, image_size=image_size)
        export_backbone(made, out)
        what = made.name
    else:
        model = open_model(source, backbone, weights, "cpu")
        if out.suffix == ".safetensors":
            export_task(model, out)
        else:
            model.export(out, pixels=pixels, half=half)
        what = f"{model.method} on {model.backbone.name}"
    size = out.stat().st_size
    print_result(
        as_json, {"file": str(out), "model": what, "file_bytes": size}, [f"{out}: {what}, {format_bytes(size)}"]
    )
