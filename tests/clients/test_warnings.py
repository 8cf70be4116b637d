"""The warning filters of this folder."""

from __future__ import annotations

import warnings

import pytest


@pytest.mark.parametrize("module", ["vpt", "vpt.model.tuned_model"])
def test_warning_of_vpt_is_an_error(module: str) -> None:
    with pytest.raises(DeprecationWarning, match="old"):
        warnings.warn_explicit("old", DeprecationWarning, "any.py", 1, module)


@pytest.mark.parametrize("module", ["lightning.pytorch", "transformers", "vptools"])
def test_warning_of_another_library_is_no_error(module: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.warn_explicit("old", DeprecationWarning, "any.py", 1, module)
    assert [str(warning.message) for warning in caught] == ["old"]
