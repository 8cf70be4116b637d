"""`vpt show`."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(file: Path, as_json: bool) -> None:
    """Print what a tuned FILE says of itself. Only its header is read.

    \b
    vpt show photos.safetensors
    """
    from vpt.artifact import inspect
    from vpt.cli.units import size

    header = inspect(file)
    if as_json:
        click.echo(json.dumps(json.loads(header.to_json()), indent=1))
        return
    pre = header.preprocessing
    click.echo(f"file          {file}, {size(file.stat().st_size)}, {header.storage}, format {header.format}")
    click.echo(f"method        {header.method}")
    if header.head is not None:
        click.echo(f"head          {header.head}: {header.parts['head']:,} parameters trained")
        click.echo(f"beside it     {header.parts['method']:,} parameters trained by the method")
    click.echo(f"backbone      {header.backbone}")
    click.echo(f"fingerprint   {header.fingerprint}")
    click.echo(f"input         {pre.size} px, {pre.resize}, {pre.interpolation}, mean {pre.mean}, std {pre.std}")
    names = (
        ", ".join(header.classes[:12]) + (" ..." if len(header.classes) > 12 else "") if header.classes else "unnamed"
    )
    click.echo(f"classes       {header.num_classes}: {names}")
    for name, value in header.scores.items():
        click.echo(f"{name:<14}{value:.4f}" if isinstance(value, float) else f"{name:<14}{value}")
    click.echo("made with     " + ", ".join(f"{name} {version}" for name, version in header.versions.items()))
