"""What the choosing stage decides, and which runs can be done now."""

from __future__ import annotations

from collections.abc import Mapping

from vpt.experiments.experiment import Experiment, MethodRow, Run, Setting, Task
from vpt.experiments.store import Record

Records = Mapping[str, Record]


def best_setting(experiment: Experiment, task: Task, row: MethodRow, records: Records) -> Setting | None:
    """The setting with the highest last-epoch score on val; None while runs are missing, or where all have failed.

    Ties go to the smaller step size (paper, appendix A), and then to what stands first in the plan. Runs that
    diverged are passed over; they stay in the store and in the report.
    """
    runs = experiment.search_runs(task, row)
    if not runs:
        return row.settings[0]
    tried: list[tuple[float, float, int]] = []
    for position, run in enumerate(runs):
        record = records.get(run.id)
        if record is None or record.status == "error":
            return None
        if record.score is not None:
            tried.append((-record.score, run.setting.lr, position))
    return row.settings[min(tried)[2]] if tried else None


def resolved_runs(experiment: Experiment, records: Records) -> dict[str, Run]:
    """The runs that are settled so far, by id, in the order of the plan: those of a cell, then its final ones."""
    found: dict[str, Run] = {}
    for task, row in experiment.cells():
        setting = best_setting(experiment, task, row, records)
        runs = experiment.search_runs(task, row) + (
            [] if setting is None else experiment.final_runs(task, row, setting)
        )
        found.update({run.id: run for run in runs})
    return found


def runnable_runs(experiment: Experiment, records: Records) -> list[Run]:
    """The runs that can be done now: settled, and without a record."""
    return [run for run_id, run in resolved_runs(experiment, records).items() if run_id not in records]


def run_batches(experiment: Experiment, records: Records) -> list[tuple[Run, ...]]:
    """The same, as they are done: one by one, or, where only heads train, all those of a cell's stage at once.

    Such a bundle is whole, whatever of it has a record, so that no figure depends on where a comparison was stopped.
    After an error in it, the rest is done one by one.
    """
    found: list[tuple[Run, ...]] = []
    for task, row in experiment.cells():
        setting = best_setting(experiment, task, row, records)
        for runs in (
            experiment.search_runs(task, row),
            [] if setting is None else experiment.final_runs(task, row, setting),
        ):
            missing = [run for run in runs if run.id not in records]
            error = any(run.id in records and records[run.id].status == "error" for run in runs)
            if experiment.is_head_grid(task, row, runs) and missing and not error:
                found.append(tuple(runs))
            else:
                found += [(run,) for run in missing]
    return found


def remaining_runs(experiment: Experiment, records: Records) -> list[Run | None]:
    """All that is still to come: the runs of `ready`, and None for each final run that waits for a choice."""
    waiting = 0
    for task, row in experiment.cells():
        if any(run.id not in records for run in experiment.search_runs(task, row)):
            waiting += experiment.protocol.seeds
    return [*runnable_runs(experiment, records), *[None] * waiting]
