"""Published scores, for comparison under the protocol that they belong to."""

from vpt.datasets.catalog import TASKS
from vpt.experiments.design import Task
from vpt.experiments.experiment import Experiment
from vpt.protocols import load_protocol


def describe_published(experiment: Experiment) -> str:
    """Return the source of the published scores with all that tells how they were made; empty without a protocol."""
    if experiment.protocol_name is None:
        return ""
    values = load_protocol(experiment.protocol_name)["published"]
    kinds = ("checkpoint", "mean", "seeds", "selection", "origin")
    return f"{values['source']} ({'; '.join(f'{kind}: {values[kind]}' for kind in kinds)})"


def published_scores(experiment: Experiment, method: str) -> dict[str, float]:
    """Return the published top-1 of a method by task.

    Args:
        experiment: The experiment.
        method: Name of a row.

    Returns:
        Task to top-1 between 0 and 1, for the tasks that are those of the publication and that no departure of the
        plan concerns. It is empty without a protocol.
    """
    if experiment.protocol_name is None:
        return {}
    values = load_protocol(experiment.protocol_name)["published"]
    top1 = dict(zip(values["tasks"], values["top1"].get(method, ()), strict=False))
    return {
        task.name: round(top1[task.name] / 100, 6)
        for task in experiment.tasks
        if task.name in top1 and _is_same_task(task)
        and not any(departure.concerns(method, task.name) for departure in experiment.departures)
    }  # fmt: skip


def _is_same_task(task: Task) -> bool:
    """Return whether a task is the benchmark's: as many classes, as many images in each split, no other copy."""
    benchmark_task = TASKS.get(task.name)
    if benchmark_task is None or task.classes != benchmark_task.classes:
        return False
    if benchmark_task.remark and any(benchmark_task.remark in note for note in task.notes):
        return False
    return all(size is None or task.images[split] == size for split, size in benchmark_task.sizes.items())
