"""`vpt inspect`."""

import json
from pathlib import Path

import click

from vpt.cli.options import json_option, print_result
from vpt.cli.paths import TUNED_FILE


@click.command()
@click.argument("file", type=TUNED_FILE)
@json_option
def command(file: Path, as_json: bool) -> None:
    """Print the header of a tuned FILE. No weights are read.

    \b
    vpt inspect photos.safetensors
    """
    from vpt.core.text import format_bytes, printable
    from vpt.model.header import inspect

    header = inspect(file)
    pre, names = header.preprocessing, header.classes or ("unnamed",)
    size = format_bytes(file.stat().st_size)
    rows = {"file": f"{file}, {size}, {header.save_dtype}, format {header.format}", "method": header.method}
    if header.head is not None:
        rows["head"] = f"{header.head}: {header.parameter_counts['head']:,} parameters trained"
        rows["beside it"] = f"{header.parameter_counts['method']:,} parameters trained by the method"
    rows |= {
        "backbone": header.backbone,
        "fingerprint": header.fingerprint,
        "input": f"{pre.size} px, {pre.resize}, {pre.interpolation}, mean {pre.mean}, std {pre.std}",
        "classes": f"{header.num_classes}: {', '.join(names[:12])}" + (" ..." if len(names) > 12 else ""),
        **{name: f"{value:.4f}" if isinstance(value, float) else str(value) for name, value in header.scores.items()},
        "made with": ", ".join(f"{name} {version}" for name, version in header.versions.items()),
    }
    width = max(map(len, rows)) + 2
    print_result(
        as_json, json.loads(header.to_json()), (f"{name:<{width}}{printable(text)}" for name, text in rows.items())
    )
