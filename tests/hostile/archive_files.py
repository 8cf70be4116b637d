"""Hostile tar files of images and labels."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from typing import Any

from hostile.generators import DEEP, HOSTILE_TEXT, Writer, content, damaged, no_files


def archives(picture: bytes) -> Iterator[tuple[str, Writer]]:
    """Tar files of images and labels."""

    def pack(members: dict[str, bytes], **changes: Any) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                for key, value in changes.items():
                    setattr(info, key, value)
                tar.addfile(info, io.BytesIO(data))
        return buffer.getvalue()

    whole = pack({"0.png": picture, "0.cls": b"0", "1.png": picture, "1.cls": b"1"})
    yield from damaged(whole)
    yield from no_files()
    labels = (b"", b"\xff\xfe", b"9" * 5000, b"[" * DEEP, b"{}", b"null", HOSTILE_TEXT.encode(), b"a\nb", b"-1")
    for number, label in enumerate(labels):
        for kind in ("cls", "json"):
            yield f"label {number} in {kind}", content(pack({"0.png": picture, f"0.{kind}": label}))
    yield "pickle", content(pack({"0.png": picture, "0.pyd": b"x"}))
    yield "paths outside", content(pack({"../../etc/passwd.png": picture, "../../etc/passwd.cls": b"0"}))
    yield "links", content(pack({"0.png": b"", "0.cls": b""}, type=tarfile.SYMTYPE, linkname="/etc/passwd"))
    yield "devices", content(pack({"0.png": b"", "0.cls": b""}, type=tarfile.CHRTYPE))
    yield "no image", content(pack({"0.cls": b"0"}))
    yield "broken images", content(pack({"0.png": b"x", "0.cls": b"0", "1.png": picture[:40], "1.cls": b"1"}))
    lost = io.BytesIO()
    with tarfile.open(fileobj=lost, mode="w") as tar:
        link = tarfile.TarInfo("2.png")
        link.type, link.linkname = tarfile.LNKTYPE, "missing"
        tar.addfile(link)
    backward = _tar_header("2.cls", -512, tarfile.REGTYPE)
    yield (
        "a link to nothing before a size that leads back",
        content(lost.getvalue().rstrip(b"\0").ljust(512, b"\0") + backward + bytes(2048)),
    )
    for size in (-512, 2**62, 2**80):  # the first leads back to its own header
        for kind in (tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.GNUTYPE_SPARSE):
            member = _tar_header("2.cls", size, kind)
            yield f"size {size} of type {kind!r}", content(whole.rstrip(b"\0") + bytes(511) + member + bytes(2048))


def _tar_header(name: str, size: int, kind: bytes) -> bytes:
    """Return the header of a member whose size is written in binary, as GNU tar does for large ones."""
    info = tarfile.TarInfo(name)
    info.type = kind
    header = bytearray(info.tobuf())
    header[124:136] = (size % 2**96 if size < 0 else size + 2**95).to_bytes(12, "big")
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + sum(header[156:]) + 8 * ord(" "))
    return bytes(header)
