"""The pictures and the report in a run directory."""

from vpt.core.text import format_bytes, format_duration
from vpt.plots import figures
from vpt.tasks.drawing import draw_evaluation
from vpt.tasks.evaluation import Evaluation
from vpt.tasks.prepared_data import PreparedData
from vpt.tasks.registry import TASKS
from vpt.tasks.report import Report, check_command, write_report
from vpt.training import Callback
from vpt.training.job import Job, RunResult
from vpt.training.verdicts import judge_result


def draw_run(job: Job, data: PreparedData, result: RunResult, evaluation: Evaluation, callback: Callback) -> None:
    """Draw the pictures of a run. One that fails becomes a note, as the result is complete without it.

    Args:
        job: The job.
        data: Its data.
        result: Its result.
        evaluation: The scores of its model.
        callback: Receiver of notes.
    """
    title = ", ".join(filter(None, (result.method, result.head))) + f" on {result.data}"
    split_title = f"{result.data} {evaluation.split}" if result.head is None else f"{title}, {evaluation.split}"
    curve, examples = (job.run_dir / f"{name}.png" for name in ("curve", "examples"))
    try:
        if result.history:
            xlabel, labels = TASKS[result.task].curve_xlabel(job.config), TASKS[result.task].metrics
            figures.training_curves(curve, result.history, title, xlabel=xlabel, labels=labels)
        picture = "confusion" if evaluation.scores is None else evaluation.scores.picture
        draw_evaluation(job.run_dir / f"{picture}.png", evaluation, data.classes, split_title)
        figures.class_examples(examples, data.examples(), f"Training images of {result.data}")
    except Exception as error:
        callback.on_note(f"pictures in {job.run_dir} could not be drawn: {error}; the result is complete without them")


def report_run(job: Job, data: PreparedData, result: RunResult, evaluation: Evaluation, callback: Callback) -> None:
    """Write the report of a run. A failure becomes a note, as the result is complete without it.

    Args:
        job: The job.
        data: Its data.
        result: Its result.
        evaluation: The scores of its model.
        callback: Receiver of notes.
    """
    path, task = job.run_dir / "report.html", TASKS[result.task]
    seconds = result.seconds if result.search is None else result.search["seconds"]
    trained = f"{result.trainable_parameters:,} of {result.total_parameters:,} parameters"
    facts = [
        ("data", f"{result.data}: " + ", ".join(f"{count:,} {split}" for split, count in result.images.items())),
        ("method", ", ".join(filter(None, (result.method, result.head)))),
        ("backbone", result.backbone),
        ("trained", f"{trained}, in {format_duration(seconds)}"),
        ("file", f"{result.file}, {format_bytes(result.file_bytes)}"),
        ("machine", "; ".join(f"{name} {version}" for name, version in result.environment["versions"].items())),
        *(("note", note) for note in result.notes),
    ]
    try:
        title = f"{result.data}: {result.method}"
        check = check_command(job.data, result.job) if isinstance(job.data, str) else ""
        xlabel, verdicts = task.curve_xlabel(job.config), judge_result(result)
        contents = (result.history, xlabel, data.examples(), result.search, verdicts, job)
        report = Report(title, result.file, check, facts, *contents)
        write_report(path, report, evaluation, task)
    except Exception as error:
        callback.on_note(f"{path} could not be written: {error}; the result is complete without it")
