"""Errors."""

from __future__ import annotations

import pytest

from vpt import errors


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.SpecError, ValueError),
        (errors.DataError, ValueError),
        (errors.BackboneError, ValueError),
        (errors.UnsupportedError, ValueError),
        (errors.TunedFileError, ValueError),
        (errors.TrainingError, ArithmeticError),
        (errors.StorageError, OSError),
    ],
)
def test_error_is_caught_as_its_builtin_and_keeps_its_text(
    error: type[errors.VptError], builtin: type[Exception]
) -> None:
    with pytest.raises(builtin) as caught:
        raise error("what happened")
    assert isinstance(caught.value, errors.VptError) and str(caught.value) == "what happened"


@pytest.mark.parametrize("character", ["\x1b", "\u202e", "\u2066", "\u200e", "\u200f", "\u061c", "\u2028", "\udcff"])
def test_character_that_is_not_shown_is_an_escape(character: str) -> None:
    assert errors.printable(f"a{character}b") == f"a{character.encode('unicode_escape').decode()}b"


def test_letters_of_any_language_are_kept() -> None:
    text = "כלב قطة 猫 naïve 🌼 नमस्\u200dते"  # also a joiner, which changes the shape of letters
    assert errors.printable(text) == text
