"""Damaged files: what a parser raises becomes an error that names the file and says what to do."""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError

from vpt.core.input_files import require_regular_file
from vpt.errors import VptError

# What reading a file, and values of other types than expected, raise. An error of vpt is none of these. numpy reads the
# header of an array as text of Python.
FAULTS = (
    OSError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError,
    TokenError,
)  # fmt: skip


@contextmanager
def damage_named(path: Path, kind: str, advice: str, error: type[VptError]) -> Iterator[None]:
    """Raise an error that names the file, if the `with` block cannot make sense of it.

    Args:
        path: The file.
        kind: What the file is to be, such as "record".
        advice: What to do.
        error: Class of the error.

    Yields:
        Nothing.

    Raises:
        error: There is no regular file, or the block raised what damaged contents raise.
    """
    require_regular_file(path, kind, advice, error)
    try:
        yield
    except VptError:
        raise
    except FAULTS as reason:
        raise error(f"the {kind} {path} is damaged ({type(reason).__name__}: {reason}); {advice}") from reason


def forward_members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Return the members of a tar file. Where a forged size leads back, tarfile would never end.

    Args:
        archive: The open file.

    Yields:
        The members in their order.

    Raises:
        tarfile.ReadError: A member has a size below 0, or does not lie behind the one before.
    """
    last = -1
    for member in archive:
        if member.size < 0 or member.offset <= last:
            raise tarfile.ReadError(f"the size of {member.name}, or of the member before, is below 0")
        last = member.offset
        yield member
