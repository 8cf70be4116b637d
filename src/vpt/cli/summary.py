"""`vpt summary`."""

import click

from vpt.cli.options import json_option, option, print_result


@click.command()
@click.argument("backbone")
@click.argument("method", default="vpt")
@option("--classes", "Outputs of the head.", int, required=True)
@option("--image-size", "Side in pixels, if not the backbone's own.", int)
@option("--head", "multi_block(blocks=last4), or a head for segmentation: setr_pup, linear, fpn.")
@json_option
def command(backbone: str, method: str, classes: int, image_size: int | None, head: str | None, as_json: bool) -> None:
    """Show where METHOD is injected into BACKBONE, and count parameters. No weights are loaded.

    \b
    vpt summary vit_base_patch16_224 "vpt(length=100)" --classes 6
    vpt summary vit_large_patch16_384 "vpt + bias" --classes 150 --head setr_pup --image-size 512
    """
    from vpt.analysis.summary import summarize
    from vpt.core.text import format_bytes

    summary = summarize(backbone, method, classes, image_size, head)
    method_and_head = summary.method if head is None else f"{summary.method}, {head}"
    modules, fraction = summary.injected_modules, f"{100 * summary.trainable_fraction:.2f} %"
    named = ", ".join(modules[:3]) + (f", ... ({len(modules)} modules)" if len(modules) > 3 else "")
    lines = [
        f"method    {method_and_head} on {summary.backbone}, {summary.image_size} px, {classes} classes",
        f"injected  {named or 'nothing: ' + summary.computation}",
        *([f"computed  {summary.computation}"] if modules else []),
        f"total     {summary.total:,} parameters",
        f"trainable {summary.trainable:,} ({fraction}), of which head {summary.head:,}",
        f"file      {format_bytes(summary.file_bytes)} (half with --save-dtype fp16)",
    ]
    print_result(as_json, summary.to_dict(), lines)
