"""`vpt summary`."""

from __future__ import annotations

import json

import click


@click.command()
@click.argument("backbone")
@click.argument("method", default="vpt")
@click.option("--classes", type=int, required=True, help="Outputs of the head.")
@click.option("--image-size", type=int, help="Side in pixels, if not the backbone's own.")
@click.option("--head", help="multi_block(blocks=last4), or a head for segmentation: setr_pup, linear, fpn.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(backbone: str, method: str, classes: int, image_size: int | None, head: str | None, as_json: bool) -> None:
    """Show where METHOD is injected into BACKBONE, and count parameters. No weights are loaded.

    \b
    vpt summary vit_base_patch16_224 "vpt(length=100)" --classes 6
    vpt summary vit_large_patch16_384 "vpt + bias" --classes 150 --head setr_pup --image-size 512
    """
    from vpt.analysis.summary import summarize
    from vpt.core.units import format_bytes

    summary = summarize(backbone, method, classes, image_size, head)
    if as_json:
        click.echo(json.dumps(summary.to_dict(), indent=1))
        return
    paths = ", ".join(summary.injected_modules[:3]) + (
        f", ... ({len(summary.injected_modules)} modules)" if len(summary.injected_modules) > 3 else ""
    )
    named_head = "" if head is None else f", {head}"
    click.echo(
        f"method    {summary.method}{named_head} on {summary.backbone}, {summary.image_size} px, {classes} classes"
    )
    click.echo(f"injected  {paths or 'nothing: ' + summary.computation}")
    if summary.injected_modules:
        click.echo(f"computed  {summary.computation}")
    click.echo(f"total     {summary.total:,} parameters")
    click.echo(
        f"trainable {summary.trainable:,} ({100 * summary.trainable_fraction:.2f} %), of which head {summary.head:,}"
    )
    click.echo(f"file      {format_bytes(summary.file_bytes)} (half with --save-dtype fp16)")
