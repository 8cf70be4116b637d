"""The selection of settings on val, and the runs that can be done now."""

from collections.abc import Iterator, Mapping, Sequence

from vpt.experiments.design import MethodRow, Setting, Task
from vpt.experiments.experiment import Experiment, Run
from vpt.experiments.store import Record

Records = Mapping[str, Record]


def best_setting(experiment: Experiment, task: Task, row: MethodRow, records: Records) -> Setting | None:
    """Return the setting with the highest score of the last epoch on val.

    Ties go to the lower peak learning rate (paper, appendix A), where the protocol does not say "order", and then to
    the order of the plan. Runs that diverged are passed over.

    Args:
        experiment: The experiment.
        task: Task of the cell.
        row: Method of the cell.
        records: Records by run id.

    Returns:
        The setting; None while search runs are missing, where all of them diverged, and for a row that has no runs.
    """
    if row.refusal:
        return None
    if row.ensemble_of:
        return best_setting(experiment, task, experiment.row(row.ensemble_of), records)
    task = experiment.selecting_task(task)
    settings, runs = row.settings_for(task), experiment.search_runs(task, row)
    if not runs:
        return settings[0]
    tried: list[tuple[float, float, int]] = []
    for index, run in enumerate(runs):
        record = records.get(run.id)
        if record is None or record.status == "error":
            return None
        if record.score is not None:
            rate = run.setting.config.training.peak_lr if experiment.protocol.ties == "smaller_rate" else 0.0
            tried.append((-record.score, rate, index))
    return settings[min(tried)[2]] if tried else None


def cell_runs(experiment: Experiment, task: Task, row: MethodRow, records: Records) -> tuple[list[Run], list[Run]]:
    """Return the search runs of a cell, and its final runs as far as they are known.

    Args:
        experiment: The experiment.
        task: Task of the cell.
        row: Method of the cell.
        records: Records by run id.

    Returns:
        The search runs of a cell, and its final runs as far as they are known.
    """
    setting = best_setting(experiment, task, row, records)
    return experiment.search_runs(task, row), [] if setting is None else experiment.final_runs(task, row, setting)


def resolved_runs(experiment: Experiment, records: Records) -> dict[str, Run]:
    """Return all runs that are known so far by id, in the order of the plan.

    Args:
        experiment: The experiment.
        records: Records by run id.

    Returns:
        All runs that are known so far by id, in the order of the plan.
    """
    return {run.id: run for runs in _stages(experiment, records) for run in runs}


def runnable_runs(experiment: Experiment, records: Records) -> list[Run]:
    """Return the runs without a record that can be done now; an ensemble can when all its members are done.

    Args:
        experiment: The experiment.
        records: Records by run id.

    Returns:
        The runs without a record that can be done now.
    """
    missing = [run for run_id, run in resolved_runs(experiment, records).items() if run_id not in records]
    return [run for run in missing if _members_done(run, records)]


def run_batches(experiment: Experiment, records: Records) -> list[tuple[Run, ...]]:
    """Return the runs that can be done now, in batches of runs that train at once.

    A batch is one run, or all runs of a stage of a cell where only heads train. Such a batch is whole, whichever of its
    runs have a record, so that no result depends on where an experiment was interrupted. After an error in it, the
    other runs are batches of their own.

    Args:
        experiment: The experiment.
        records: Records by run id.

    Returns:
        The runs that can be done now, in batches of runs that train at once.
    """
    batches: dict[str, tuple[Run, ...]] = {}  # by the first run: two rows may consist of the same runs
    for runs in _stages(experiment, records):
        missing = [run for run in runs if run.id not in records and _members_done(run, records)]
        if missing and _trains_at_once(experiment, runs, records):
            batches.setdefault(runs[0].id, tuple(runs))
        else:
            for run in missing:
                batches.setdefault(run.id, (run,))
    return list(batches.values())


def batch_of(experiment: Experiment, run: Run, records: Records) -> tuple[Run, ...]:
    """Return the batch that a run with a record was done in, as `run_batches` makes them.

    Args:
        experiment: The experiment.
        run: The run.
        records: Records by run id.

    Returns:
        The run alone, or all runs of its stage of its cell.
    """
    stage = next(runs for runs in _stages(experiment, records) if any(each.id == run.id for each in runs))
    return tuple(stage) if _trains_at_once(experiment, stage, records) else (run,)


def remaining_runs(experiment: Experiment, records: Records) -> list[Run | None]:
    """Return all runs that are still to be done, and None for each final run that waits for other runs.

    Args:
        experiment: The experiment.
        records: Records by run id.

    Returns:
        All runs that are still to be done, and None for each final run that waits for other runs.
    """
    waiting = 0
    for task, row in experiment.cells():
        of = experiment.row(row.ensemble_of) if row.ensemble_of else row
        search = experiment.search_runs(experiment.selecting_task(task), of)
        _, final = cell_runs(experiment, task, of, records)
        if any(run.id not in records for run in (*search, *(final if row.ensemble_of else ()))):
            waiting += experiment.num_final_runs(row)
    return [*runnable_runs(experiment, records), *[None] * waiting]


def count_runs(experiment: Experiment, records: Records) -> tuple[int, int]:
    """Return the number of runs that have a record, and that of all runs.

    Args:
        experiment: The experiment.
        records: Records by run id.

    Returns:
        The number of runs that have a record, and that of all runs.
    """
    done = sum(run_id in records for run_id in resolved_runs(experiment, records))
    return done, done + len(remaining_runs(experiment, records))


def _stages(experiment: Experiment, records: Records) -> Iterator[list[Run]]:
    """Yield the runs of each stage of each cell."""
    for task, row in experiment.cells():
        yield from cell_runs(experiment, task, row, records)


def _trains_at_once(experiment: Experiment, runs: Sequence[Run], records: Records) -> bool:
    """Return whether the runs of a stage of a cell are one batch."""
    error = any(run.id in records and records[run.id].status == "error" for run in runs)
    return not error and experiment.is_head_grid(runs[0].task, experiment.row(runs[0].method), runs)


def _members_done(run: Run, records: Records) -> bool:
    return all(run_id in records and records[run_id].status == "done" for run_id in run.members)
