"""What a figure was measured on."""

from __future__ import annotations

import ctypes
import importlib
import os
import platform
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vpt._version import __version__

_POWERCAP = Path("/sys/class/powercap")


def describe() -> dict[str, Any]:
    """Hardware and versions, as JSON values."""
    gpus = (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    return {
        "processor": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions(),
    }


def peak_memory(device: torch.device) -> int:
    """Highest memory use so far in bytes: of the GPU if `device` is one, else of this process; 0 where unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the process was before it began, as a copy of its parent
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_peak_memory(device: torch.device) -> None:
    """Let `peak_memory` count from here on, where the system can do that: on a GPU, and for a process on Linux."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def energy_joules(device: torch.device) -> float | None:
    """What the device has used since some moment in the past, in joules, whoever used it; None where it does not tell.

    A GPU tells through NVML (the package nvidia-ml-py), processors through Linux's powercap, often to root alone.
    """
    if device.type == "cuda":
        try:
            pynvml = importlib.import_module("pynvml")
            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
        except Exception:  # not installed, too old, or a card without a counter
            return None
    packages = sorted(_POWERCAP.glob("*-rapl:[0-9]"))
    try:
        return sum(int((package / "energy_uj").read_text()) for package in packages) / 1e6 if packages else None
    except (OSError, ValueError):
        return None


def keep_freed_memory() -> None:
    """Let this process keep the memory it frees, where its allocator is glibc's; elsewhere, do nothing.

    By default glibc hands large blocks back to the system, and each training step on a CPU fetches its activations
    anew, page by page.
    """
    trim_threshold, mmap_max = -1, -4  # names of malloc.h
    with suppress(OSError, AttributeError, TypeError):
        set_option = ctypes.CDLL(None).mallopt
        set_option(trim_threshold, 2**31 - 1)
        set_option(mmap_max, 0)


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of what decides a result."""
    return {
        "vpt": __version__,
        "torch": torch.__version__,
        "timm": version("timm"),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
