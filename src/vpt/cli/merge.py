"""`vpt merge`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vpt.cli import options as common
from vpt.cli.options import json_option, option, print_result
from vpt.cli.paths import FILE, TUNED_FILE, require_other_output

if TYPE_CHECKING:
    from vpt.backbones import Backbone

_SETTINGS = "vpt-settings"  # entry of the metadata; "vpt" is that of a tuned file
_TRANSFORM = "timm.data.create_transform(**timm.data.resolve_model_data_config(model))"


@click.command()
@click.argument("file", type=TUNED_FILE)
@option("--out", "The weights under timm's names, .safetensors.", FILE, required=True)
@common.backbone_option("The backbone's name, if it is not to be taken from FILE.")
@common.weights_option
@json_option
def command(file: Path, out: Path, backbone: str | None, weights: Path | None, as_json: bool) -> None:
    """Write the model of a tuned FILE as a whole weights file for plain timm.

    This needs a method that changes weights alone: lora, ssf, bias, norm, partial, full, class_token or linear. The
    file has every weight of the backbone and the head as timm's classifier. Classes, kind of labels,
    preprocessing, scores and license are in its metadata.

    \b
    vpt merge photos.safetensors --out timm.safetensors
    """
    import safetensors.torch

    from vpt.api.models import open_model
    from vpt.conversion.settings import settings_json
    from vpt.core.io import write_atomic
    from vpt.core.text import format_bytes
    from vpt.model.header import inspect
    from vpt.model.merging import loading_call

    if out.suffix != ".safetensors":
        raise click.UsageError(f"--out {out}: the weights are a file .safetensors")
    require_other_output(out, (file, weights))
    model = open_model(file, backbone, weights, "cpu")
    header = inspect(file)
    record = {name: getattr(header, name) for name in ("scores", "protocol", "license")}
    metadata = {"format": "pt", _SETTINGS: settings_json(model, **record).decode()}
    write_atomic(out, safetensors.torch.save(model.merge(), metadata))
    what, size = f"{model.method} on {model.backbone.name}", out.stat().st_size
    lines = [f"{out}: {what}, {format_bytes(size)}"]
    call = loading_call(model.backbone, model.num_classes, out)
    if call is not None:
        overlay = _preprocessing_for_timm(model.backbone)
        if overlay:
            values = ", ".join(f"{name}={value!r}" for name, value in overlay.items())
            call = f"{call.removesuffix(')')}, pretrained_cfg_overlay=dict({values}))"
        lines.append(call)
        if overlay.get("crop_mode") == "squash":
            lines.append(
                "timm's own transform of this backbone crops the center of images; with this call, it squashes them to "
                f"a square, as training did: {_TRANSFORM}"
            )
    print_result(as_json, {"file": str(out), "model": what, "file_bytes": size, "load": call}, lines)


def _preprocessing_for_timm(backbone: "Backbone") -> dict[str, Any]:
    """Return the preprocessing where timm's own for the backbone is another one, by the names of timm."""
    own: Mapping[str, Any] = getattr(backbone.module, "pretrained_cfg", {})
    used = backbone.preprocessing
    wanted = {
        "input_size": (used.channels, used.size, used.size),
        "interpolation": used.interpolation,
        "mean": used.mean,
        "std": used.std,
        "crop_pct": used.crop_fraction if used.resize == "crop" else 1.0,
        "crop_mode": "center" if used.resize == "crop" else "squash",
    }
    return {name: value for name, value in wanted.items() if value != own.get(name)}
