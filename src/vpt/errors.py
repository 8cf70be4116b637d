"""Every error vpt raises on purpose. Each says what happened, with the value, and what to do.

`exit_code` is what the command line returns for it; the codes follow `ExitCode`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """What a `vpt` command returns to the shell."""

    OK = 0
    FAILED = 1  # something broke that vpt did not foresee
    USAGE = 2  # the command line or a method's text is wrong
    DATA = 3  # images, labels or lists are wrong
    BACKBONE = 4  # a backbone or its weights cannot be used
    FIT = 5  # a method does not fit this backbone
    ARTIFACT = 6  # a tuned file is damaged, altered, or belongs to another backbone
    TRAINING = 7  # training diverged
    STORAGE = 8  # a file could not be written
    MEMORY = 9  # memory ran out, of the machine or of its GPU
    INTERRUPTED = 130  # Ctrl-C; the same command resumes


class VptError(Exception):
    """Base of all errors raised on purpose; catch this one to catch them all."""

    exit_code: ExitCode = ExitCode.FAILED


class SpecError(VptError):
    """The text of a method or an option cannot be read, or a value is out of range."""

    exit_code = ExitCode.USAGE


class DataError(VptError):
    """Images, labels or lists that cannot be used; names every fault at once."""

    exit_code = ExitCode.DATA


class BackboneError(VptError):
    """A backbone is unknown or its weights do not fit."""

    exit_code = ExitCode.BACKBONE


class FitError(VptError):
    """A method finds no place to hang on this backbone, or what it hung never ran."""

    exit_code = ExitCode.FIT


class ArtifactError(VptError):
    """A tuned file is truncated, altered, of an unknown version, or made for another backbone."""

    exit_code = ExitCode.ARTIFACT


class TrainingError(VptError):
    """Training diverged: the loss became NaN or infinite."""

    exit_code = ExitCode.TRAINING


class StorageError(VptError):
    """A file could not be written: the disk is full or the folder is read-only."""

    exit_code = ExitCode.STORAGE


_MOST = 100  # names in a hint


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint that ends an error about an unknown `word`: the nearest known one, then the others."""
    names = sorted(known)
    folded = {name.casefold(): name for name in names}
    close = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.5)
    hint = f"did you mean {folded[close[0]]!r}? " if close else ""
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return f"{hint}known: {', '.join(names[:_MOST])}{more}"
