"""Standard output and error that may be closed, full, or read by nobody: they never end a training."""

import io
import os
import sys

from vpt.errors import StorageError


class ReaderGoneError(Exception):
    """The reader of standard output has left, as `head` does."""


class _Output(io.FileIO):
    """Standard output. The first failure is raised, once; then the output goes nowhere."""

    def write(self, data: object, /) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError as error:
            _silence(self.fileno())
            if isinstance(error, BrokenPipeError):
                raise ReaderGoneError from error
            raise StorageError(
                f"standard output could not be written: {error.strerror}; files that the command wrote are kept"
            ) from error


class _Messages(io.FileIO):
    """Standard error. Messages that nobody can read are dropped."""

    def write(self, data: object, /) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError:
            _silence(self.fileno())
            return super().write(data)  # type: ignore[arg-type]


def guard_streams() -> None:
    """Keep standard output and error usable when they are closed, full or unread.

    A closed stream goes nowhere, and no file that is opened later gets its number. A character that a stream cannot
    show is written as its code. Streams that are not the process's own, as in tests, only get that.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # opening takes the lowest free number
    for name, number, kind in (("stdout", 1, _Output), ("stderr", 2, _Messages)):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, _open(kind(number, "w", closefd=False), "utf-8", line_buffering=True))
        elif stream is getattr(sys, f"__{name}__") and not (os.name == "nt" and stream.isatty()):
            raw = kind(stream.fileno(), "w", closefd=False)
            setattr(sys, name, _open(raw, stream.encoding, line_buffering=stream.line_buffering))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _open(raw: io.FileIO, encoding: str, *, line_buffering: bool) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=line_buffering)


def _silence(number: int) -> None:
    """Let a file descriptor go nowhere, so that what is still buffered raises nothing at the exit."""
    handle = os.open(os.devnull, os.O_WRONLY)
    os.dup2(handle, number)
    os.close(handle)
