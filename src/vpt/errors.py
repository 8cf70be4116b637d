"""Errors that vpt raises on purpose.

Each message says what was given, why it cannot be used, and what to do. The class attribute `exit_code` is the exit
code of the command line for that error.
"""

import unicodedata
from enum import IntEnum

_TURNING = ("LRE", "LRO", "RLE", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")  # directions, by `unicodedata`
_MARKS = "\u200e\u200f\u061c"  # invisible letters of a direction
_MAX_LINE, _MAX_LINES = 700, 60  # of a message: what a stranger wrote in a file may be of any length


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
    HANGUP = 129  # SIGHUP: the terminal was closed; commands that train go on
    INTERRUPTED = 130  # SIGINT, Ctrl-C; the same command resumes
    TERMINATED = 143  # SIGTERM; the same command resumes


class VptError(Exception):
    """Base class of all errors that vpt raises on purpose.

    A message may quote files of strangers. It is cut to a length that people read, and control characters in it are
    written as escapes, so that it changes nothing on a terminal.

    Args:
        message: The message.
    """

    exit_code: ExitCode = ExitCode.FAILED

    def __init__(self, message: object = "") -> None:
        lines = str(message).split("\n", _MAX_LINES)
        more = ["..."] * (len(lines) > _MAX_LINES)
        shown = [_shorten(printable(_shorten(line))) for line in lines[:_MAX_LINES]]
        super().__init__("\n".join(shown + more))


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


def printable(text: str) -> str:
    r"""Return text from a user's disk with control characters, and bytes of no encoding, as escapes such as "\x1b".

    Characters that turn the direction of a line, or end it, are escapes, too.

    Args:
        text: The text, such as a file name.

    Returns:
        Text that changes neither the terminal nor the line, and that has an encoding.
    """
    if text.isprintable():  # as nearly all are
        return text
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        or unicodedata.bidirectional(character) in _TURNING
        or character in _MARKS
        else character
        for character in text
    )


def _shorten(line: str) -> str:
    """Return a line without its middle if it is long: the end says what to do."""
    return line if len(line) <= _MAX_LINE else f"{line[: _MAX_LINE - 300]} ... {line[-290:]}"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out. Only torch's error for GPUs has a class; others are found by their text.

    Args:
        error: A caught error.

    Returns:
        True for errors of allocators.
    """
    message = str(error).lower()
    phrases = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or any(phrase in message for phrase in phrases)
