"""Executors of the runs of a comparison, by the options of the command."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vpt.experiments.running.runner import Executor


def make_executor(
    workers: int | None, executor: str | None, cpus: float | None, gpus: float | None, verbose: bool
) -> "Executor":
    """Return the executor that the options of `vpt bench run` name, if it can be used.

    Args:
        workers: Runs at once on this machine.
        executor: "ray", or the address of a cluster; None for this machine.
        cpus: CPU cores for a run on a cluster.
        gpus: GPUs for a run on a cluster.
        verbose: True shows the log lines of a cluster.

    Returns:
        The executor.

    Raises:
        UsageError: The options contradict each other.
        SpecError: The text of `executor` is neither "ray" nor an address.
        VptError: Ray is not installed, or nothing responds at the address.
    """
    from vpt.core.ray_cluster import cluster_address
    from vpt.experiments.running.local_executor import LocalExecutor
    from vpt.experiments.running.ray_executor import RayExecutor

    if executor is None:
        if cpus is not None or gpus is not None or verbose:
            raise click.UsageError("--cpus, --gpus and -v are for a cluster; add --executor ray, or leave them out")
        return LocalExecutor(workers or 1)
    if workers is not None:
        raise click.UsageError("--workers is for this machine; a cluster does as many runs as it has room for")
    address = cluster_address(executor)
    return RayExecutor(address, cpus=1.0 if cpus is None else cpus, gpus=gpus or 0.0, verbose=verbose)
