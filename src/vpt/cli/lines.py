"""Lines for people on standard output, and notes on standard error."""

import sys

import click

from vpt.core.terminal import fit_width


def echo_line(text: str, *, whole: bool = False) -> None:
    """Print a line, broken at the width of the terminal.

    Args:
        text: The line.
        whole: True does not break it, as commands are copied. Default: False.
    """
    # Without a file, click writes UTF-8 to streams of ASCII, which then cannot be read.
    click.echo(text if whole else fit_width(text, sys.stdout), file=sys.stdout)


def echo_note(text: str) -> None:
    """Print a note on standard error, broken at the width of the terminal.

    Args:
        text: The note, without "note: " before it.
    """
    click.echo(fit_width(f"note: {text}", sys.stderr), err=True)
