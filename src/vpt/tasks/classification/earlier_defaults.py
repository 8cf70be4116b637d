"""Runs that an earlier version began, whose defaults were others: they go on as they began."""

from dataclasses import replace
from typing import Any

from vpt.methods.registry import parse_method
from vpt.tasks.classification.config import ClassificationConfig, ClassificationOptions, default_steps
from vpt.training.config import TrainingConfig
from vpt.training.job import Job
from vpt.training.run_directory import read_job_record


def as_begun(job: Job) -> Job:
    """Return a job with the defaults of the version that began its run.

    Earlier versions had no ridge head by default, batches of 64 images for every method, one rate for all tensors, and
    rates that follow the batch size.

    Args:
        job: The job.

    Returns:
        The job, with the defaults of an earlier version where its run directory holds a run of one, or folds of one.
    """
    config, options = job.config, job.options
    if not isinstance(config, ClassificationConfig) or not isinstance(options, ClassificationOptions):
        return job
    folds = [replace(job, out=path.with_suffix(".safetensors")) for path in job.run_dir.glob("fold-*.run")]
    records = (read_job_record(begun) for begun in (job, *folds))  # of a cross-validation, the folds come first
    record = next((found for found in records if found is not None), None)
    if options.penalty is not None or record is None or record["job"].get("ridge") is not None:
        return job
    training, recorded, method = config.training, record["job"]["config"], parse_method(job.method)
    given: dict[str, Any] = {"grad_accum_steps": training.grad_accum_steps, "probe_epochs": config.probe_epochs}
    today = default_steps(method, {**given, "optimizer": training.optimizer}, fresh_head=options.init is None)
    at_its_size = default_steps(method, {**given, "optimizer": training.optimizer, "batch_size": training.batch_size})
    today["learning_rate"] = at_its_size.get("learning_rate")
    earlier = {
        "learning_rate": method.learning_rate,
        "batch_size": TrainingConfig.batch_size,
        "head_lr_scale": TrainingConfig.head_lr_scale,
    }
    changes = {
        name: value
        for name, value in earlier.items()
        if recorded.get(name, value) == value and getattr(training, name) == today.get(name)
    }
    return replace(job, config=config.replace(**changes), options=replace(options, ridge=None))


def note_on_defaults(job: Job) -> str:
    """Return the note on a run that goes on with the defaults of an earlier version.

    Args:
        job: The job.

    Returns:
        The note.
    """
    return f"{job.run_dir} was begun by an earlier version and goes on with the defaults of that one"
