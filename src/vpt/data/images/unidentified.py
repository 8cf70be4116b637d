"""Files that Pillow cannot open as images."""

from collections.abc import Sequence
from typing import IO

from vpt.core.foreign_files import HEAD_SIZE, describe_foreign_file
from vpt.core.optional import install_hint

_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")


def describe_unidentified(file: IO[bytes], formats: Sequence[str]) -> str:
    """Return what a file is that Pillow cannot open, and what to do.

    Args:
        file: The file.
        formats: Names of the formats that Pillow can open.

    Returns:
        The reason, for the end of an error message.
    """
    file.seek(0)
    head = file.read(HEAD_SIZE)
    if head[4:8] == b"ftyp" and b"avif" in head[8:40]:
        return "an AVIF image, which Pillow reads from version 11.3 on; pip install -U pillow"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS:
        return f"a HEIC image, which needs pillow-heif; {install_hint('heif')}"
    foreign = describe_foreign_file(head)
    if foreign is not None:
        return f"not an image but {foreign}"
    return f"not an image of a known format ({', '.join(formats)})"
