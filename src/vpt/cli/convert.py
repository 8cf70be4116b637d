"""`vpt convert`."""

from pathlib import Path

import click

from vpt.cli import options as common
from vpt.cli.options import json_option, option, print_result
from vpt.cli.paths import PATH, TUNED_FILE, require_other_output


@click.command()
@click.argument("source", type=TUNED_FILE)
@option("--out", "The tuned file; or, for a tuned file with LoRA, the folder for PEFT.", PATH, required=True)
@common.backbone_option("Name of the backbone [default: the one that SOURCE names].")
@common.weights_option
@option("--classes", "Names of the classes with commas, or a text file with one a line.")
@json_option
def command(
    source: Path, out: Path, backbone: str | None, weights: Path | None, classes: str | None, as_json: bool
) -> None:
    """Convert SOURCE to a tuned file, or a tuned file to a LoRA of PEFT.

    SOURCE is a prompt_ep*.pth of the paper's code, whose prompts are a start of training (`vpt tune --init`), or the
    folder of a LoRA that PEFT saved for a timm model, or for a ViT of transformers whose weights timm has, too; no
    pickle is read. A tuned file with the method lora becomes such a folder.

    \b
    vpt convert prompt_ep100.pth --backbone vit_base_patch16_224 --classes cat,dog --out start.safetensors
    vpt convert lora_folder/ --backbone vit_base_patch16_224.augreg_in21k --out photos.safetensors
    vpt convert photos.safetensors --out lora_folder
    """
    from vpt.api.models import open_model
    from vpt.backbones import load_backbone
    from vpt.conversion import read_official_prompts, read_peft, write_peft
    from vpt.conversion.peft import FILES, TENSORS, read_config
    from vpt.conversion.settings import read_settings
    from vpt.core.text import format_bytes
    from vpt.model.header import inspect
    from vpt.model.named_backbone import load_backbone_of_size
    from vpt.model.tuned_file import save

    class_file = None if classes is None else _class_file(classes)
    names = _read_names(class_file) if class_file else None if classes is None else _split_names(classes)
    require_other_output(out, (source, weights, class_file))
    if source.is_dir():
        name = backbone or read_config(source).get("base_model_name_or_path")
        if not isinstance(name, str) or (backbone is None and ":" in name):
            raise click.UsageError(f"{source} names no backbone of timm's own list; give --backbone")
        settings = read_settings(source)
        size = None if settings is None else settings.preprocessing.size
        loaded = load_backbone_of_size(name, size, weights) if size else load_backbone(name, weights=weights)
        model = read_peft(source, loaded, names)
        written = save(model, out, **(settings.record() if settings else {}))
    elif source.suffix in (".pth", ".pt"):
        if backbone is None or names is None:
            raise click.UsageError(f"{source} names no backbone and no classes; give --backbone and --classes")
        model = read_official_prompts(source, load_backbone(backbone, weights=weights), names)
        written = save(model, out)
    else:
        if names is not None:
            raise click.UsageError("--classes: for a SOURCE of another library, and a tuned file has its classes")
        model = open_model(source, backbone, weights, "cpu")
        require_other_output(out, (source, weights), [out / name for name in FILES])
        header = inspect(source)
        record = {name: getattr(header, name) for name in ("scores", "split_options", "protocol", "license")}
        write_peft(model, out, **record)
        written = out / TENSORS
    what, size = f"{model.method} on {model.backbone.name}", written.stat().st_size
    print_result(
        as_json, {"file": str(written), "model": what, "file_bytes": size}, [f"{written}: {what}, {format_bytes(size)}"]
    )


def _class_file(classes: str) -> Path | None:
    """Return the file that a text names, or None where it is a list of names."""
    try:
        return Path(classes) if Path(classes).is_file() else None
    except (OSError, ValueError):  # a long list is no name of a file
        return None


def _read_names(file: Path) -> list[str]:
    """Return the lines of a file that are not empty."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise click.UsageError(f"--classes {file} cannot be read as text: {error}") from error
    return [line.strip() for line in lines if line.strip()]


def _split_names(classes: str) -> list[str]:
    """Return the names of a text with commas."""
    names = [name.strip() for name in classes.split(",")]
    if "" in names:
        raise click.UsageError(f"--classes {classes!r} has a comma without a name; write names such as cat,dog")
    return names
