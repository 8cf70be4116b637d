"""Completion of names in a shell."""

import click
from click.shell_completion import CompletionItem


def complete_backbones(context: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the backbones whose names begin with a text, for the shell."""
    from vpt.cli.backbone_list import read_backbones

    return [CompletionItem(name) for name in read_backbones()[0] if name.startswith(incomplete)]


def complete_methods(context: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the methods whose names begin with a text, for the shell."""
    from vpt.cli.method_sources import read_methods

    return [CompletionItem(name) for name in read_methods() if name.startswith(incomplete)]
