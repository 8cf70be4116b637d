"""Runs that an earlier version began, whose defaults were others: they go on as they began."""

from dataclasses import replace

from vpt.methods.registry import parse_method
from vpt.tasks.classification.config import ClassificationOptions, default_steps
from vpt.training.callbacks import Callback
from vpt.training.config import TrainingConfig
from vpt.training.job import Job
from vpt.training.run_directory import read_job_record


def as_begun(job: Job, callback: Callback) -> Job:
    """Return a job with the defaults of the version that began its run.

    Earlier versions had no ridge head by default, batches of 64 images for every method, and one rate for all tensors.

    Args:
        job: The job.
        callback: Receiver of a note, if the run is not finished.

    Returns:
        The job, with the defaults of an earlier version where its run directory holds a run of one, or folds of one.
    """
    options = job.options
    if not isinstance(options, ClassificationOptions) or options.ridge != "default":
        return job
    folds = [replace(job, out=path.with_suffix(".safetensors")) for path in job.run_dir.glob("fold-*.run")]
    records = (read_job_record(begun) for begun in (job, *folds))  # of a cross-validation, the folds come first
    record = next((found for found in records if found is not None), None)
    if record is None or record["job"].get("ridge") is not None:
        return job
    if not (job.run_dir / "result.json").exists():
        callback.on_note(f"{job.run_dir} was begun by an earlier version and goes on with the defaults of that one")
    config, method = job.config, parse_method(job.method)
    steps = default_steps(method, {})
    earlier = {**{name: getattr(TrainingConfig, name) for name in steps}, "learning_rate": method.learning_rate}
    is_default = all(getattr(config.training, name) == value for name, value in steps.items())
    if is_default and earlier.items() <= record["job"]["config"].items():
        config = config.replace(**earlier)
    return replace(job, config=config, options=replace(options, ridge=None))
