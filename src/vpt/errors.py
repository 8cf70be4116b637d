"""Every error vpt raises on purpose. Each says what happened, with the value, and what to do.

`exit_code` is what the command line returns for it; the codes follow `ExitCode`.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a `vpt` command returns to the shell."""

    OK = 0
    FAILED = 1  # something broke that vpt did not foresee
    USAGE = 2  # the command line or a method's text is wrong
    DATA = 3  # images, labels or lists are wrong
    BACKBONE = 4  # a backbone or its weights cannot be used
    UNSUPPORTED = 5  # a method does not fit this backbone
    TUNED_FILE = 6  # a tuned file is damaged, altered, or belongs to another backbone
    TRAINING = 7  # training diverged
    STORAGE = 8  # a file could not be written
    MEMORY = 9  # memory ran out, of the machine or of its GPU
    INTERRUPTED = 130  # Ctrl-C; the same command resumes


class VptError(Exception):
    """Base of all errors raised on purpose; catch this one to catch them all."""

    exit_code: ExitCode = ExitCode.FAILED


class SpecError(VptError, ValueError):
    """The text of a method or an option cannot be read, or a value is out of range."""

    exit_code = ExitCode.USAGE


class DataError(VptError, ValueError):
    """Images, labels or lists that cannot be used; names every fault at once."""

    exit_code = ExitCode.DATA


class BackboneError(VptError, ValueError):
    """A backbone is unknown or its weights do not fit."""

    exit_code = ExitCode.BACKBONE


class UnsupportedError(VptError, ValueError):
    """A method finds no place to hang on this backbone, or what it hung never ran."""

    exit_code = ExitCode.UNSUPPORTED


class TunedFileError(VptError, ValueError):
    """A tuned file is truncated, altered, of an unknown version, or made for another backbone."""

    exit_code = ExitCode.TUNED_FILE


class TrainingError(VptError, ArithmeticError):
    """Training diverged: the loss became NaN or infinite."""

    exit_code = ExitCode.TRAINING


class StorageError(VptError, OSError):
    """A file could not be written: the disk is full or the folder is read-only."""

    exit_code = ExitCode.STORAGE
