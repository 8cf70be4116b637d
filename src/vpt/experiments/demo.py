"""The demo: the shipped plan `demo` and its picture."""

from pathlib import Path
from typing import Any

from vpt.experiments.local_executor import InlineExecutor, LocalExecutor
from vpt.experiments.plan_file import find_plan_file, load_experiment
from vpt.experiments.results import ExperimentResults, load_results
from vpt.experiments.runner import raise_errors, run_experiment
from vpt.experiments.store import Store
from vpt.plots import figures
from vpt.training.callbacks import Callback


def run_demo(
    folder: Path,
    *,
    task: str | None = None,
    seeds: int | None = None,
    workers: int = 1,
    callback: Callback | None = None,
    overwrite: bool = False,
) -> ExperimentResults:
    """Run the plan `demo`, or resume it, and draw comparison.png.

    Args:
        folder: Folder of the runs and of the picture.
        task: Built-in task; None takes that of the plan.
        seeds: Number of runs of each method; None takes that of the plan.
        workers: Number of runs at once, each in a process of its own if there are several. Default: 1.
        callback: Callback that receives the events of the runs.
        overwrite: Do all runs again. Default: False.

    Returns:
        The results.

    Raises:
        VptError: A run ended in an error.
    """
    changes: dict[str, Any] = {} if seeds is None else {"seeds": seeds}
    if task is not None:
        changes["tasks"] = [{"name": task}]
    experiment = load_experiment(find_plan_file("demo"), **changes)
    executor = InlineExecutor() if workers == 1 else LocalExecutor(workers)
    raise_errors(run_experiment(experiment, folder, executor, callback, overwrite=overwrite))
    results = load_results(Store(folder))
    runs = {cell.method: cell.scores for cell in results.cells.values() if cell.scores}
    figures.method_comparison(folder / "comparison.png", runs, experiment.tasks[0].name)
    return results
