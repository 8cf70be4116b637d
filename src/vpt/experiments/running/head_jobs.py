"""Jobs that train heads alone, all at once."""

import shutil
from collections.abc import Sequence
from dataclasses import replace

from vpt.core import environment
from vpt.errors import SpecError, TrainingError
from vpt.tasks.classification.prepared_data import ClassificationData
from vpt.tasks.registry import TASKS
from vpt.training import Callback, distributed, train_head_grid
from vpt.training.job import Job, RunResult
from vpt.tuning import save_result


def tune_heads(jobs: Sequence[Job], callback: Callback | None = None) -> list[RunResult | TrainingError]:
    """Run jobs at once that train heads alone and differ in options that `train_head_grid` lets differ.

    Each result is that of `run_job` to rounding. There are no run directories: an interrupted call starts anew.

    Args:
        jobs: The jobs, of classification.
        callback: Receiver of progress. Default: none.

    Returns:
        The result of each job, or the error of its loss that diverged.

    Raises:
        SpecError: The jobs cannot run at once.
    """
    callback, base_job = callback or Callback(), jobs[0]
    for job in jobs:
        if replace(job, out=base_job.out, config=base_job.config) != base_job or job.split_seed is None:
            raise SpecError(
                "jobs that are done at once may differ in their files and configurations alone, on one split"
            )
        part = {name: job.to_dict()[name] for name in ("train_fraction", "images_per_class")}
        whole = part == {"train_fraction": 1, "images_per_class": None}
        if not whole and job.config.training.seed != base_job.config.training.seed:
            raise SpecError(f"with {part} each seed has images of its own; do these jobs one by one")
    environment.keep_freed_memory()
    target, task = distributed.resolve_device(), TASKS[base_job.config.task]
    try:
        data = task.prepare(base_job, callback)
        assert isinstance(data, ClassificationData)
        model = task.attach(base_job, data).to(target)
        train, val, configs = data.decoded["train"], data.decoded.get("val"), [job.config for job in jobs]
        grid = train_head_grid(model, train, configs, validation=val, cache=data.cache)
        results: list[RunResult | TrainingError] = []
        for job, head_result in zip(jobs, grid, strict=True):
            if head_result.error is not None:
                results.append(head_result.error)
                continue
            model.head = head_result.head
            evaluation, peak_memory = data.score(model, Callback()), environment.peak_memory(target)
            results.append(save_result(job, data, model, head_result.history, evaluation, peak_memory))
    finally:
        shutil.rmtree(base_job.run_dir, ignore_errors=True)
    return results
