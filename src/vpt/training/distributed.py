"""Data-parallel training of one task in the processes of `torchrun`.

The trainable parameters take about a megabyte, so one all-reduce of one flat buffer per step is enough, without a
wrapper around the model. Each process takes every world-size-th image of the same batch, and the loss is divided by the
size of the whole batch, so that two processes compute the same as one.
"""

import os

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn

from vpt.core.text import did_you_mean
from vpt.errors import SpecError

DEVICES = ("auto", "cpu", "cuda", "mps")


def init_process_group() -> None:
    """Join the process group that `torchrun` announces in the environment, if there is one."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")  # for either device


def rank() -> int:
    """Return the rank of this process. Rank 0 prints and writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def resolve_device(name: str = "auto") -> torch.device:
    """Return the device of a name.

    Args:
        name: "auto" for the GPU of this process if there is one, "cpu", "cuda" or "mps". Default: "auto".

    Returns:
        The device. A process of several gets a GPU of its own.

    Raises:
        SpecError: The name is unknown, or this machine has no such device.
    """
    if name not in DEVICES:
        raise SpecError(f"device is {name!r}; {did_you_mean(name, DEVICES)}")
    available = {"auto": True, "cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[name]:
        found = ", ".join(device for device, is_there in available.items() if is_there and device != "auto")
        raise SpecError(f"device is {name!r}, which torch does not find on this machine; use one of: {found}, or auto")
    if name == "auto":
        name = "cuda" if available["cuda"] else "cpu"
    return torch.device(name, int(os.environ.get("LOCAL_RANK", "0"))) if name == "cuda" else torch.device(name)


def local_shard(indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return this process's shard of a batch.

    Args:
        indices: Indices of the whole batch.

    Returns:
        The indices of the shard, possibly none.
    """
    return indices[rank() :: world_size()]


def all_reduce_gradients(parameters: list[nn.Parameter]) -> None:
    """Sum the gradients over all processes, in one message.

    Args:
        parameters: The parameters, whose gradients are replaced.
    """
    if world_size() == 1:
        return
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    for parameter, chunk in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = chunk.view_as(parameter)


def all_reduce_sum(value: float) -> float:
    """Return the sum of a number over all processes.

    Args:
        value: The number of this process.

    Returns:
        The sum.
    """
    if world_size() == 1:
        return value
    total = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(total)
    return float(total)
