"""Names from a user's disk as matplotlib draws them: as they are."""

from vpt.core.text import printable


def literal(text: str, max_length: int | None = None) -> str:
    """Return text that matplotlib draws as it is: no mathematics between dollars, no entry hidden by an underscore.

    Args:
        text: The text, such as the name of a class.
        max_length: Number of characters from which on the text is cut. Default: no limit.

    Returns:
        The escaped text.
    """
    if max_length is not None and len(text) > max_length:
        text = f"{text[: max_length - 1]}\N{HORIZONTAL ELLIPSIS}"
    escaped = "\n".join(map(printable, text.split("\n"))).replace("$", r"\$")
    return f"\N{ZERO WIDTH SPACE}{escaped}" if escaped.startswith("_") else escaped
