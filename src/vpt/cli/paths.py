"""Paths that commands take: files, folders, tuned files, and outputs that must not replace an input."""

import os
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import click


class TunedFilePath(click.Path):
    """The path of a tuned file. An address on the Hugging Face Hub, `hf://owner/name`, becomes that of its download."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path; what the Hub refuses raises TunedFileError."""
        if str(value).startswith("hf:/"):
            from vpt.core.hub import local_path

            value = local_path(str(value))
        return super().convert(value, param, ctx)


class NamedPath(click.Path):
    """The path of a file or a folder. An empty text, which as a path is the current folder, is refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        if not str(value).strip():
            self.fail("the path is empty; give a file or a folder (`.` is the current folder)", param, ctx)
        return super().convert(value, param, ctx)


PATH = NamedPath(path_type=Path)
TUNED_FILE = TunedFilePath(path_type=Path)
TUNED_FILES = TunedFilePath(path_type=Path, exists=True)
FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)


def require_other_output(out: Path, inputs: Iterable[Path | None], written: Iterable[Path] = ()) -> None:
    """Refuse an output that replaces an input of the command, or lies in a folder that is one.

    Args:
        out: The output.
        inputs: The files and folders that the command reads; None stands for one that is not given.
        written: The files that are written, where `out` is their folder. Default: `out` itself.

    Raises:
        click.UsageError: The output is an input, under whatever name, or lies in one.
    """
    for path, given in product(tuple(written) or (out,), inputs):
        if given is None:
            continue
        read, target = (Path(os.path.realpath(one)) for one in (given, path))  # `resolve` fails on links in a circle
        is_same = read == target or (given.exists() and path.exists() and given.samefile(path))
        if is_same or read in target.parents:
            what = "would overwrite" if is_same else "lies in"
            raise click.UsageError(f"--out {out} {what} {given}, which is read; choose another name")
