"""Files that are not what their name says, known by their first bytes: pointers, web pages, archives."""

HEAD_SIZE = 512  # bytes that `describe_foreign_file` needs

_SIGNATURES = (
    (b"version https://git-lfs", "a pointer of Git LFS instead of the file itself; fetch it with `git lfs pull`"),
    (b"version https://hawser", "a pointer of Git LFS instead of the file itself; fetch it with `git lfs pull`"),
    (b"/annex/objects", "a pointer of git-annex instead of the file itself; fetch it with `git annex get`"),
    (b"\x1f\x8b", "a gzip archive; extract it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; extract it first"),
    (b"Rar!", "a RAR archive; extract it first"),
    (b"%PDF", "a PDF document"),
)
_PAGE_STARTS = (b"<!doctype html", b"<html", b"<head", b"<body", b"<?xml", b"<script")


def describe_foreign_file(head: bytes) -> str | None:
    """Return what a file is instead of weights or an image, and what to do.

    Args:
        head: The first bytes of the file, up to `HEAD_SIZE`.

    Returns:
        The description, or None if the bytes are none of the known kinds.
    """
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(_PAGE_STARTS):
        return "a web page instead of the file, such as an error or a login page; download the file itself"
    return next((kind for signature, kind in _SIGNATURES if head.startswith(signature)), None)
