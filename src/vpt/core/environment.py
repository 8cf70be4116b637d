"""Hardware, package versions, memory and energy of the machine that runs a job."""

import ctypes
import importlib
import os
import platform
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from vpt._version import __version__

_PROC = Path("/proc")
_POWERCAP = Path("/sys/class/powercap")
_CGROUPS = Path("/sys/fs/cgroup")


def describe() -> dict[str, Any]:
    """Return the hardware and the package versions.

    Returns:
        Values that JSON can hold: processor, cores, threads, gpus, system and versions.
    """
    return {
        "processor": _proc_value("cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions(),
    }


def peak_memory(device: torch.device) -> int:
    """Return the peak memory use so far.

    Args:
        device: A CUDA device for GPU memory allocated by PyTorch; any other device for memory of this process.

    Returns:
        Bytes, or 0 if the system does not report them.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak_kib = _proc_value("self/status", "VmHWM")
    if peak_kib is not None:  # getrusage also counts the parent's memory, which a forked process starts with
        return int(peak_kib.split()[0]) * 1024
    peak = 0
    if sys.platform != "win32":
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return peak


def available_memory() -> int:
    """Return the memory that this process can still take without swapping, in bytes, or that of the machine.

    Returns:
        Bytes: on Linux, what the kernel and the limits of a container leave; elsewhere all physical memory, or 4 GiB if
        the system does not report it.
    """
    available_kib = _proc_value("meminfo", "MemAvailable")
    if available_kib is not None:
        return min([int(available_kib.split()[0]) * 1024, *_room_in_cgroups()])
    memory = 4 * 2**30
    if sys.platform != "win32":
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return memory


def _room_in_cgroups() -> list[int]:
    """Return the bytes that each limit of a control group (version 2) of this process leaves, as in a container."""
    group, room = (_proc_value("self/cgroup", "0") or "").removeprefix(":").strip("/"), list[int]()
    for folder in (_CGROUPS / group, *(_CGROUPS / group).parents):
        if not folder.is_relative_to(_CGROUPS):
            break
        with suppress(OSError, ValueError):  # "max" is no limit
            limit, used = (int((folder / f"memory.{name}").read_text()) for name in ("max", "current"))
            files = [
                line for line in (folder / "memory.stat").read_text().splitlines() if line.startswith("inactive_file")
            ]
            room.append(max(0, limit - used + sum(int(line.split()[1]) for line in files)))  # which the kernel drops
    return room


def reset_peak_memory(device: torch.device) -> None:
    """Reset the peak that `peak_memory` reports, on CUDA devices and on Linux.

    Args:
        device: The device whose peak is reset.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def energy_joules(device: torch.device) -> float | None:
    """Return the energy that a device has used since an arbitrary start.

    GPUs report it through NVML (package nvidia-ml-py). Processors report it through the Linux power capping framework,
    often to root only. All processes on the device are included.

    Args:
        device: A CUDA device for that GPU; any other device for the processors.

    Returns:
        Joules, or None if the device does not report its energy.
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
    """Keep freed memory in this process instead of returning it to the system, if the C library is glibc.

    By default glibc returns large blocks to the system. Each training step on a CPU then requests its activations
    again, page by page.
    """
    trim_threshold, mmap_max = -1, -4  # names of malloc.h
    with suppress(OSError, AttributeError, TypeError):
        set_option = ctypes.CDLL(None).mallopt
        set_option(trim_threshold, 2**31 - 1)
        set_option(mmap_max, 0)


def _proc_value(file: str, key: str) -> str | None:
    """Return the first value of a key in a file of /proc, or None where it is missing."""
    with suppress(OSError):
        fields = (line.partition(":") for line in (_PROC / file).read_text().splitlines())
        return next((value.strip() for name, _, value in fields if name.strip() == key), None)
    return None


def versions() -> dict[str, str]:
    """Return the versions of the packages that affect results.

    Returns:
        Package name to version.
    """
    packages = {"torch": torch.__version__, "timm": version("timm"), "numpy": version("numpy")}
    return {"vpt": __version__, **packages, "python": platform.python_version()}
