"""The demo: the shipped plan `demo`, its comparisons and its picture."""

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpt.data.synthetic.tasks import generate_splits
from vpt.experiments.planning.file import find_plan_file, load_experiment
from vpt.experiments.results import Cell, ExperimentResults, load_results
from vpt.experiments.running.local_executor import InlineExecutor, LocalExecutor
from vpt.experiments.running.runner import raise_errors, run_experiment
from vpt.experiments.significance import paired_t_interval
from vpt.experiments.store import Store
from vpt.methods.registry import parse_method
from vpt.methods.vpt import VPT
from vpt.plots.method_comparison import method_comparison
from vpt.training.callbacks import Callback

_EXAMPLES = 10  # images in the picture


@dataclass(frozen=True)
class PairedDifference:
    """Prompts against another method on the same draws.

    Attributes:
        method: Name of the row of prompts.
        baseline: Name of the other row.
        difference: Mean difference of top-1, between -1 and 1.
        interval: Bounds of its 95 % interval over draws; None for one draw.
    """

    method: str
    baseline: str
    difference: float
    interval: tuple[float, float] | None


def run_demo(
    folder: Path,
    *,
    task: str | None = None,
    draws: int | None = None,
    workers: int = 1,
    callback: Callback | None = None,
    overwrite: bool = False,
) -> ExperimentResults:
    """Run the plan `demo`, or resume it, and draw comparison.png.

    Args:
        folder: Folder of the runs and of the picture.
        task: Built-in task; None takes that of the plan.
        draws: Number of draws of the images, each with a run of each method; None takes that of the plan.
        workers: Number of runs at once, each in a process of its own if there are several. Default: 1.
        callback: Callback that receives the events of the runs.
        overwrite: Do all runs again. Default: False.

    Returns:
        The results.

    Raises:
        VptError: A run ended in an error.
    """
    changes: dict[str, Any] = {} if draws is None else {"seeds": draws}
    if task is not None:
        changes["tasks"] = [{"name": task}]
    experiment = load_experiment(find_plan_file("demo"), **changes)
    executor = InlineExecutor() if workers == 1 else LocalExecutor(workers)
    raise_errors(run_experiment(experiment, folder, executor, callback, overwrite=overwrite))
    results = load_results(Store(folder))
    cells = [cell for cell in results.cells.values() if cell.scores]
    method_comparison(
        folder / "comparison.png",
        {cell.method: cell.scores for cell in cells},
        f"{experiment.tasks[0].name}, backbone {experiment.backbone}, draws: {experiment.protocol.seeds}",
        curves={cell.method: points for cell in cells if (points := _curve(cell))},
        examples=_example_images(experiment.tasks[0].data, experiment.protocol.first_seed),
        methods={cell.method: cell.setting.spec for cell in cells if cell.setting is not None},
    )
    return results


def compare_prompts(results: ExperimentResults) -> list[PairedDifference]:
    """Compare the first row of prompts with every row of another method, paired over draws.

    Args:
        results: Results of the demo.

    Returns:
        The comparisons, in the order of the rows; rows with a run that diverged have none.
    """
    cells = [cell for cell in results.cells.values() if cell.complete]
    prompts = next((cell for cell in cells if _is_prompts(cell)), None)
    if prompts is None:
        return []
    found = []
    for cell in cells:
        if not _is_prompts(cell):
            difference = statistics.fmean(prompts.scores) - statistics.fmean(cell.scores)
            interval = paired_t_interval(prompts.scores, cell.scores)
            found.append(PairedDifference(prompts.method, cell.method, difference, interval))
    return found


def _is_prompts(cell: Cell) -> bool:
    return cell.setting is not None and isinstance(parse_method(cell.setting.spec), VPT)


def _curve(cell: Cell) -> list[tuple[float, float]]:
    """Return the mean accuracy on the training images by the part of the epochs that is done."""
    histories = [record.history for record in cell.final_records if record.status == "done"]
    return [
        (epochs[0]["epoch"] / len(histories[0]), statistics.fmean(epoch["train_metric"] for epoch in epochs))
        for epochs in zip(*histories, strict=True)
    ]


def _example_images(task: str, seed: int) -> dict[str, NDArray[np.uint8]]:
    """Return a training image of each of the first classes."""
    images, labels = generate_splits(task, seed)["train"]
    found = {int(label): image for image, label in reversed(list(zip(images, labels, strict=True)))}
    return {str(label): found[label] for label in sorted(found)[:_EXAMPLES]}
