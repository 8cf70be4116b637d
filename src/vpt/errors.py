"""Errors that vpt raises on purpose.

Each message says what was given, why it cannot be used, and what to do. The class attribute `exit_code` is the exit
code of the command line for that error.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the `vpt` command."""

    OK = 0
    FAILED = 1  # an unexpected error
    USAGE = 2  # an invalid command line or method
    DATA = 3  # invalid images, labels or lists
    BACKBONE = 4  # a backbone or its weights cannot be used
    UNSUPPORTED = 5  # a method does not support the backbone
    TUNED_FILE = 6  # a tuned file is damaged, altered, or belongs to another backbone
    TRAINING = 7  # training diverged
    STORAGE = 8  # a file could not be written
    MEMORY = 9  # the machine or its GPU is out of memory
    INTERRUPTED = 130  # Ctrl-C; the same command resumes


class VptError(Exception):
    """Base class of all errors that vpt raises on purpose."""

    exit_code: ExitCode = ExitCode.FAILED


class SpecError(VptError, ValueError):
    """The text of a method or an option that cannot be read, or a value out of range."""

    exit_code = ExitCode.USAGE


class DataError(VptError, ValueError):
    """Images, labels or lists that cannot be used. The message names every fault."""

    exit_code = ExitCode.DATA


class BackboneError(VptError, ValueError):
    """An unknown backbone, or weights that do not fit it."""

    exit_code = ExitCode.BACKBONE


class UnsupportedError(VptError, ValueError):
    """A method that does not support the backbone, or an injected module that never ran."""

    exit_code = ExitCode.UNSUPPORTED


class TunedFileError(VptError, ValueError):
    """A tuned file that is truncated, altered, of an unknown version, or made for another backbone."""

    exit_code = ExitCode.TUNED_FILE


class TrainingError(VptError, ArithmeticError):
    """A training run that diverged: the loss is NaN or infinite."""

    exit_code = ExitCode.TRAINING


class StorageError(VptError, OSError):
    """A file that cannot be written because the disk is full or the folder is read-only."""

    exit_code = ExitCode.STORAGE
