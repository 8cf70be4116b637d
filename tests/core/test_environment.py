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


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="limits of containers are read on Linux")
def test_available_memory_is_what_the_limit_of_a_container_leaves(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "groups"
    for folder in (proc / "self", groups / "app" / "job"):
        folder.mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    8000 kB\n")
    (proc / "self" / "cgroup").write_text("4:memory:/old\n0::/app/job\n")
    monkeypatch.setattr(environment, "_PROC", proc)
    monkeypatch.setattr(environment, "_CGROUPS", groups)
    assert environment.available_memory() == 8000 * 1024
    for folder, limit, used in ((groups / "app", "500000", 300000), (groups / "app" / "job", "max", 200000)):
        (folder / "memory.max").write_text(limit)
        (folder / "memory.current").write_text(str(used))
        (folder / "memory.stat").write_text("anon 1\ninactive_file 50000\nactive_file 3\n")
    assert environment.available_memory() == 500000 - 300000 + 50000
