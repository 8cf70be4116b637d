"""The lock on what a job writes: its tuned file and its run directory."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from vpt.core.lock import lock_output
from vpt.training import distributed
from vpt.training.job import Job


@contextmanager
def lock_run(job: Job) -> Iterator[None]:
    """Hold the lock on the run directory and the tuned file of a job during a `with` block.

    It is taken before anything is read. What a killed process left there of files that it had not finished is removed.
    A StorageError is raised if another process holds the lock.

    Args:
        job: The job.
    """
    distributed.init_process_group()
    if distributed.rank() > 0:  # the lock of the first process holds for all
        yield
        return
    with lock_output(job.run_dir, job.out):
        remove_pixels(job)
        yield


def remove_pixels(job: Job) -> None:
    """Remove the decoded images of a job that do not fit into memory.

    Args:
        job: The job.
    """
    for folder in job.run_dir.glob("pixels-*"):
        shutil.rmtree(folder, ignore_errors=True)
