"""What the machine tells of itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vpt.core import environment

CPU = torch.device("cpu")


def test_energy_joules_sums_processors_and_is_none_if_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "_POWERCAP", tmp_path)
    assert environment.energy_joules(CPU) is None
    for number, used in enumerate((1_500_000, 2_000_000)):
        (tmp_path / f"intel-rapl:{number}").mkdir()
        (tmp_path / f"intel-rapl:{number}" / "energy_uj").write_text(f"{used}\n")
    (tmp_path / "intel-rapl:0:0").mkdir()  # a part of the first
    assert environment.energy_joules(CPU) == 3.5
    (tmp_path / "intel-rapl:1" / "energy_uj").unlink()
    assert environment.energy_joules(CPU) is None
