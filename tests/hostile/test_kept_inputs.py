"""Inputs that fuzzing kept, as they reached new code, raise errors of vpt alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostile import targets


@pytest.mark.parametrize("name", targets.TARGETS)
def test_kept_inputs_raise_errors_of_vpt_alone(name: str, tmp_path: Path) -> None:
    inputs = targets.kept_inputs(name)
    assert len(inputs) >= 10
    targets.use_folder(tmp_path)
    for data in inputs:
        targets.TARGETS[name](data)
