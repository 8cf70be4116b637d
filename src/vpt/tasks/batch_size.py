"""The batch size of a job whose user leaves it to the memory of the machine."""

from dataclasses import replace
from typing import Any

import torch

from vpt.methods.registry import parse_method
from vpt.tasks.base import Task
from vpt.tasks.classification.config import ClassificationConfig, default_steps
from vpt.tasks.prepared_data import PreparedData
from vpt.training import distributed
from vpt.training.batch_size import find_batch_size
from vpt.training.job import Job


def with_largest_batch(task: Task, job: Job, data: PreparedData, device: torch.device) -> tuple[Job, PreparedData]:
    """Return a job and its data with the largest batch size that fits into memory, and a note about it.

    Args:
        task: The task.
        job: The job, whose batch size is the largest on a CPU.
        data: Its data.
        device: Device of the model.

    Returns:
        The job and the data. Of several processes, the first decides.
    """
    size, notes = 0, list(data.notes)
    if distributed.rank() == 0:
        model = task.attach(job, data).to(device)
        size, reason = find_batch_size(model, job.config.training, data.images["train"])
        notes.append(f"the batch size is {size * distributed.world_size()}: {reason}")
    size = int(distributed.all_reduce_sum(size)) * distributed.world_size()
    job = with_batch_size(job, size)
    values: dict[str, Any] = {"config": job.config, "notes": notes}
    return job, replace(data, **values)


def with_batch_size(job: Job, size: int) -> Job:
    """Return a job with another batch size. A rate that is the default of `vpt tune` keeps its peak.

    Args:
        job: The job.
        size: Images per step.

    Returns:
        The job.
    """
    config, method, training = job.config, parse_method(job.method), job.config.training
    steps: dict[str, Any] = {"batch_size": size}
    default = default_steps(method, {"grad_accum_steps": training.grad_accum_steps, "optimizer": training.optimizer})
    before = {name: getattr(training, name) for name in ("batch_size", "learning_rate")}
    # A batch size that is found leaves no other trace of a rate that was given than the batch size of `--lr`.
    if isinstance(config, ClassificationConfig) and before.items() <= default.items():
        steps["learning_rate"] = default_steps(method, steps)["learning_rate"]
    return replace(job, config=config.replace(**steps))
