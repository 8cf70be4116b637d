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
