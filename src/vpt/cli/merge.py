"""`vpt merge`."""

from pathlib import Path

import click

from vpt.cli import options as common
from vpt.cli.options import json_option, option, print_result
from vpt.cli.paths import FILE, TUNED_FILE, require_other_output


@click.command()
@click.argument("file", type=TUNED_FILE)
@option("--out", "The weights under timm's names, .safetensors.", FILE, required=True)
@common.backbone_option("The backbone's name, if it is not to be taken from FILE.")
@common.weights_option
@json_option
def command(file: Path, out: Path, backbone: str | None, weights: Path | None, as_json: bool) -> None:
    """Write the model of a tuned FILE as a whole weights file for plain timm.

    This needs a method that changes weights alone: lora, ssf, bias, norm, partial, full, class_token or linear. The
    file has every weight of the backbone and the head as timm's classifier.

    \b
    vpt merge photos.safetensors --out timm.safetensors
    """
    import safetensors.torch

    from vpt.api.models import open_model
    from vpt.core.io import write_atomic
    from vpt.core.text import format_bytes
    from vpt.model.merging import loading_call

    if out.suffix != ".safetensors":
        raise click.UsageError(f"--out {out}: the weights are a file .safetensors")
    require_other_output(out, (file, weights))
    model = open_model(file, backbone, weights, "cpu")
    write_atomic(out, safetensors.torch.save(model.merge(), {"format": "pt"}))
    call = loading_call(model.backbone, model.num_classes, out)
    what, size = f"{model.method} on {model.backbone.name}", out.stat().st_size
    lines = [f"{out}: {what}, {format_bytes(size)}"] + ([] if call is None else [call])
    print_result(as_json, {"file": str(out), "model": what, "file_bytes": size, "load": call}, lines)
