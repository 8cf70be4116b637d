"""Commands as a user types them, in this process or in one of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial

import click
import pytest

from vpt.cli import app, main

SMALL = ["--epochs", "4", "--batch-size", "8", "--method", "vpt(length=2)", "--lr", "0.5"]


def vpt(*args: object) -> None:
    """Run a command in this process; a failure leaves by SystemExit."""
    main([str(arg) for arg in args])


def exit_code(*args: object) -> int:
    """Run a command that fails; its exit code."""
    with pytest.raises(SystemExit) as left:
        vpt(*args)
    return int(left.value.code or 0)


def command_names(group: click.Group = app, *path: str) -> Iterator[list[str]]:
    """Each command as words, and each command of a group."""
    for name, command in group.commands.items():
        yield [*path, name]
        if isinstance(command, click.Group):
            yield from command_names(command, *path, name)


def start_command(*args: object, **options: object) -> subprocess.Popen[str]:
    """A command in a process of its own."""
    line = [sys.executable, "-c", "from vpt.cli import main; main()", *map(str, args)]
    pipe = subprocess.PIPE
    # A shell's background job ignores Ctrl-C, and what it starts inherits that: here the signal must be heard.
    options = {
        "preexec_fn": partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        "env": {**os.environ, "OMP_NUM_THREADS": "1"},
        **options,
    }
    return subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True, **options)  # type: ignore[call-overload,no-any-return]
