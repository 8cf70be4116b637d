"""The batch size of a job whose user leaves it to the memory of the machine."""

from dataclasses import replace
from typing import Any

import torch

from vpt.tasks.base import PreparedData, Task
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
    values: dict[str, Any] = {"config": job.config.replace(batch_size=size), "notes": notes}
    return replace(job, config=values["config"]), replace(data, **values)
