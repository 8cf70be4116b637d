"""`vpt check`."""

from __future__ import annotations

import json

import click


@click.command()
@click.argument("backbone")
@click.argument("method", default="vpt")
@click.option("--classes", type=int, required=True, help="Outputs of the head.")
@click.option("--image-size", type=int, help="Side in pixels, if not the backbone's own.")
@click.option("--head", help="Classify every pixel, with this head: setr_pup, linear, fpn(channels=64), ...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(backbone: str, method: str, classes: int, image_size: int | None, head: str | None, as_json: bool) -> None:
    """Show where METHOD hangs on BACKBONE, and count parameters. No weights are loaded.

    \b
    vpt check vit_base_patch16_224 "vpt(length=100)" --classes 6
    vpt check vit_large_patch16_384 "vpt + bias" --classes 150 --head setr_pup --image-size 512
    """
    from vpt.analysis.summary import check
    from vpt.cli.units import size

    found = check(backbone, method, classes, image_size, head)
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=1))
        return
    places = ", ".join(found.hangs_at[:3]) + (
        f", ... ({len(found.hangs_at)} places)" if len(found.hangs_at) > 3 else ""
    )
    click.echo(f"method    {found.method} on {found.backbone}, {found.image_size} px, {classes} classes")
    click.echo(f"hangs at  {places or 'nothing: ' + found.form}")
    if found.hangs_at:
        click.echo(f"computed  {found.form}")
    click.echo(f"total     {found.total:,} parameters")
    click.echo(f"trained   {found.trained:,} ({100 * found.share:.2f} %), of which head {found.head:,}")
    click.echo(f"file      {size(found.file_bytes)} (half with --storage fp16)")
