"""Text as LaTeX that pdflatex compiles as it is."""

import re

_ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--", "<": r"$<$", ">": r"$>$",
    "|": r"\textbar{}", "×": r"$\times$", '"': "''", "−": "$-$", "†": r"$\dagger$", "°": r"$^\circ$", "…": r"\ldots{}",
    "→": r"$\rightarrow$", "²": "$^2$", "µ": r"$\mu$", "’": "'", "“": "``", "”": "''",
    "\0": "{}", "[": "{[}", "]": "{]}", "*": "{*}",  # behind the end of a row they would be its options
}  # fmt: skip
_NEGATIVE = re.compile(r"(?<![\w.)-])-(?=\d)")
_NOT_IN_OT1 = "ÐÞðþ"


def escape(text: str) -> str:
    """Return a text as LaTeX: every character is shown, and a negative number has a true minus sign.

    A character that the fonts of pdflatex lack, and a control character, is written as its code point, such as U+4E2D.

    Args:
        text: The text; runs of white space become one space.

    Returns:
        LaTeX for text mode.
    """
    one_line = _NEGATIVE.sub("−", " ".join(text.split()))
    apart = re.sub("-(?=-)", "-\0", one_line)  # two hyphens would become a dash
    return "".join(map(_escape_character, apart))


def label(*words: str) -> str:
    """Return words as the name of a label, of letters, digits and hyphens."""
    return "-".join(filter(None, (re.sub(r"[^A-Za-z0-9]+", "-", word).strip("-").lower() for word in words)))


def _escape_character(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if (character.isascii() and character.isprintable()) or (
        character.isalpha() and character <= "ÿ" and character not in _NOT_IN_OT1
    ):
        return character
    return rf"\texttt{{U+{ord(character):04X}}}"
