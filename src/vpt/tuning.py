"""One job for every task: data and a frozen backbone in, one small tuned file out.

A run leaves everything besides the tuned file in its run directory (`pets.safetensors` -> `pets.run/`): job.json,
run.toml, checkpoint.safetensors, metrics.jsonl, result.json, report.html, curve.png, confusion.png. The same job again
resumes where it stopped; a finished one is only read.
"""

import os
from contextlib import nullcontext
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch

from vpt.core import environment
from vpt.data.dataset import Dataset
from vpt.data.tables.listings import name_of_source
from vpt.errors import SpecError, TrainingError
from vpt.methods.registry import parse_method
from vpt.model import tuned_file
from vpt.model.tuned_model import TunedModel
from vpt.tasks.base import Task
from vpt.tasks.batch_size import with_batch_size, with_largest_batch
from vpt.tasks.classification.continuation import init_options
from vpt.tasks.classification.earlier_defaults import as_begun, note_on_defaults
from vpt.tasks.evaluation import Evaluation
from vpt.tasks.prepared_data import PreparedData
from vpt.tasks.registry import TASKS, find_task
from vpt.tasks.run_pictures import draw_run, report_run
from vpt.training import Callback, CallbackList, EpochMetrics, distributed
from vpt.training.callbacks import LoggingCallback
from vpt.training.job import Job, RunResult
from vpt.training.output_lock import lock_run, remove_pixels
from vpt.training.run_directory import (
    MetricsRecorder,
    files_may_differ,
    open_run,
    recorded_batch_size,
    write_failure,
    write_job,
    write_result,
)


def make_job(
    data: str | Path | Dataset,
    out: str | Path | None = None,
    *,
    task: str = "auto",
    method: str | None = None,
    **options: Any,
) -> Job:
    """Return the job of options by name.

    Args:
        data: A folder, tables of labels, the name of a built-in task, or a dataset in memory.
        out: The tuned file. Default: the name of the folder, table or task with the suffix ".safetensors".
        task: "classification", "segmentation" or "auto". Default: "auto".
        method: Text of a method. Default: that of the file `init`, or "vpt".
        **options: Options of `vpt.training.TrainingConfig`, of `vpt.training.job.Job` and of the task. None leaves the
            default. A batch size of "auto" leaves it to `run_job`.

    Returns:
        The job.

    Raises:
        SpecError: An option is unknown, out of range, or one of another task, and so the head; or a dataset in memory
            comes without `out`.
    """
    if out is None and isinstance(data, Dataset):
        raise SpecError(
            "the data are in memory, so the tuned file has no name; give one, such as out='pets.safetensors'"
        )
    given = {name: value for name, value in options.items() if value is not None}
    found = find_task(task, str(data), given)
    known = _option_names(found) | {option.name for option in fields(Job)}
    for other in TASKS.values():
        foreign = sorted((_option_names(other) - known) & given.keys())
        if foreign:
            raise SpecError(f"{', '.join(foreign)}: for {other.name}, and {data} is for {found.name}; leave it out")
    given = init_options(given)
    if "head" in given and found.parse_head(given["head"]).spec() is None:
        del given["head"]  # the default by name is the same job
    method = None if method is None else str(method)
    if method is None:
        method = tuned_file.read_header(given["init"]).method if "init" in given else "vpt"
    chosen = {name: given.pop(name) for name in found.config_class.option_names() & given.keys()}
    if chosen.get("batch_size") == "auto":
        del chosen["batch_size"]  # which the run finds
    parsed = parse_method(method)
    config, given = found.configure(data, parsed, chosen, given)
    if "optimizer" in chosen and "learning_rate" not in chosen:
        optimizer = config.training.optimizer
        usual = found.configure(data, parsed, {**chosen, "optimizer": None}, given)[0].training.optimizer
        if optimizer != usual:
            raise SpecError(
                f"optimizer is {optimizer}, and the default learning rate of {method} is for {usual}; give a "
                "learning_rate"
            )
    out = Path(out or f"{name_of_source(str(data)) or 'tuned'}.safetensors")
    if "init" in given and os.path.realpath(out) == os.path.realpath(given["init"]):
        raise SpecError(f"init and out are {out}; give another --out, as the file that training starts from stays")
    return Job.create(data, out, config, method=method, **given)


def run_job(
    job: Job,
    callback: Callback | None = None,
    *,
    overwrite: bool = False,
    draw: bool = True,
    device: str = "auto",
    auto_batch_size: bool = False,
    evaluation: Evaluation | None = None,
    lock: bool = True,
) -> RunResult:
    """Run a job, resume it, or read its result.

    A SpecError is raised if the run directory belongs to a job with other settings, and a DataError for images that
    cannot be used, before any training.

    Args:
        job: The job.
        callback: Receiver of progress. Default: none.
        overwrite: True begins anew; the tuned file stays until another one replaces it. Default: False.
        draw: True draws curve.png and confusion.png. Default: True.
        device: "auto", "cpu", "cuda" or "mps". Default: "auto".
        auto_batch_size: True finds the largest batch size that fits into memory, or takes that of the run that it
            resumes, instead of the job's. Default: False.
        evaluation: Scores that are recorded as those of the model. Default: the model is scored.
        lock: False leaves out the lock on the output, as the caller holds one. Default: True.

    Returns:
        The result.

    Raises:
        StorageError: Another process writes this output, or a file cannot be written.
        TrainingError: The loss diverged; result.json records the failure.
    """
    with lock_run(job) if lock else nullcontext():
        callback = CallbackList([LoggingCallback(), callback or Callback()])
        target = distributed.resolve_device(device)
        asked = job
        if not overwrite:
            job = as_begun(job)
        recorded = recorded_batch_size(job) if auto_batch_size and not overwrite else None
        if recorded is not None:
            asked, job = with_batch_size(asked, recorded), with_batch_size(job, recorded)
        finished = open_run(job, callback, overwrite=overwrite)
        if finished is None and job != asked:
            callback.on_note(note_on_defaults(job))
        if finished is not None and not files_may_differ(job):
            return finished

        is_main = distributed.rank() == 0
        data = TASKS[job.config.task].prepare(job, callback)
        if auto_batch_size and recorded is None:
            job, data = with_largest_batch(TASKS[job.config.task], job, data, target)
        for note in data.notes:
            callback.on_note(note)
        if is_main:
            write_job(job, data.digest())  # refuses other images
        if finished is not None:
            return finished
        recorder = MetricsRecorder(job.run_dir / "metrics.jsonl")
        try:
            model, history = train_model(job, data, CallbackList([recorder, callback]), target, job.checkpoint)
        except TrainingError as error:
            if is_main:
                write_failure(job, error)
            raise
        peak_memory = environment.peak_memory(target)
        if evaluation is None:
            evaluation = data.score(model, callback)
        else:
            data = replace(data, images={**data.images, evaluation.split: evaluation.images})
        return finish_job(job, data, model, history, evaluation, callback, peak_memory, draw=draw)


def train_model(
    job: Job, data: PreparedData, callback: Callback, device: torch.device, checkpoint: Path | None = None
) -> tuple[TunedModel, list[EpochMetrics]]:
    """Train the model of a job.

    Args:
        job: The job.
        data: Its data.
        callback: Receiver of progress.
        device: Device of the model.
        checkpoint: File that is written after each epoch, and resumed from if it exists. Default: no checkpoint.

    Returns:
        The model, and the metrics of each epoch. The errors are those of `vpt.training.fit`.
    """
    torch.manual_seed(job.config.training.seed)
    model = TASKS[job.config.task].attach(job, data).to(device)
    environment.reset_peak_memory(device)
    return data.train(model, job.config, callback, checkpoint)


def finish_job(
    job: Job,
    data: PreparedData,
    model: TunedModel,
    history: list[EpochMetrics],
    evaluation: Evaluation,
    callback: Callback,
    peak_memory: int,
    *,
    draw: bool = True,
    search: dict[str, Any] | None = None,
) -> RunResult:
    """Write the tuned file, the pictures and the result of a job, in the main process.

    Args:
        job: The job.
        data: Its data.
        model: Its trained model.
        history: Metrics of each epoch.
        evaluation: Scores of the model.
        callback: Receiver of the end.
        peak_memory: Peak memory of training in bytes.
        draw: True draws curve.png and confusion.png. Default: True.
        search: The search that chose the job. Default: none.

    Returns:
        The result.
    """
    result = save_result(job, data, model, history, evaluation, peak_memory)
    result = replace(result, search=search, init=data.measure_init(model))
    if distributed.rank() == 0:
        if draw:
            draw_run(job, data, result, evaluation, callback)
        if draw or search is not None:
            report_run(job, data, result, evaluation, callback)
        write_result(job, result)  # last, as it marks the job as finished
    distributed.all_reduce_sum(0.0)  # from here on, all processes may read the files, and none needs decoded images
    if distributed.rank() == 0:
        remove_pixels(job)
    callback.on_train_end(result.metrics)
    return result


def marked_splits(job: Job, data: PreparedData) -> dict[str, Any]:
    """Return the options of the split of a job, with marks of its training images, or the digest of data in memory.

    Args:
        job: The job.
        data: Its data.

    Returns:
        What a tuned file records, so that later commands read labels as training did and score no training image.
    """
    marks: dict[str, Any] = {"trained_on": data.trained_on} if data.trained_on else {}
    if isinstance(job.data, Dataset) and job.data.digest:
        marks["digest"] = job.data.digest
    if job.train_on != "train":
        marks["train_on"] = job.train_on
    return {**job.split_options, **data.reading, **marks}


def _option_names(task: Task) -> frozenset[str]:
    """Names of all options that a task takes besides the attributes of `Job`."""
    return task.config_class.option_names() | {option.name for option in fields(task.config_class.options_class)}


def save_result(
    job: Job, data: PreparedData, model: TunedModel, history: list[EpochMetrics], scores: Evaluation, peak_memory: int
) -> RunResult:
    """Write the tuned file in the main process, and return the result of a job.

    Args:
        job: The job.
        data: Its data.
        model: Its trained model.
        history: Metrics of each epoch.
        scores: Scores of the model.
        peak_memory: Peak memory of training in bytes.

    Returns:
        The result.
    """
    metrics = {f"{scores.split}_{name}": value for name, value in scores.metrics.items()}
    is_main, counts = distributed.rank() == 0, model.counts()
    if is_main:
        options = marked_splits(job, data)
        tuned_file.save(model, job.out, scores=metrics, split_options=options, save_dtype=job.save_dtype)
    return RunResult(
        task=job.config.task,
        data=data.name,
        method=str(model.method),
        backbone=model.backbone.name,
        head=model.readout.spec(),
        eval_split=scores.split,
        metric=next(iter(metrics)),
        metrics=metrics,
        per_class=scores.per_class,
        images=data.images,
        total_parameters=counts.total,
        trainable_parameters=counts.trainable,
        head_parameters=sum(weight.numel() for weight in model.head.parameters()),
        file=str(job.out),
        run_dir=str(job.run_dir),
        file_bytes=job.out.stat().st_size if is_main else 0,
        seconds=sum(epoch.seconds for epoch in history),
        peak_memory_bytes=peak_memory,
        notes=data.notes,
        history=[asdict(epoch) for epoch in history],
        job=job.to_dict(),
        environment=environment.describe(),
    )
