"""The files that a run reads: its data, local weights of the backbone, and the tuned file that it begins with."""

import hashlib
from pathlib import Path

from vpt.data.folders.walk import stamp_files
from vpt.data.tables.columns import TableColumns
from vpt.data.tables.listings import listed_files
from vpt.training.job import Job


def stamp_data(job: Job) -> str:
    """Return a hash of the files of the data of a job: their names, sizes and times of change.

    Args:
        job: The job.

    Returns:
        The hash; "" for data in memory and built-in tasks.
    """
    if not isinstance(job.data, str):
        return ""
    columns = TableColumns.of(vars(job.options))
    listed = listed_files(job.data, columns) if job.config.task == "classification" else []
    return stamp_files(Path(job.data), listed)


def stamp_inputs(job: Job) -> str:
    """Return hashes of all files that a job reads: their names, sizes and times of change.

    Args:
        job: The job.

    Returns:
        The hashes; "" where there are no files.
    """
    return stamp_data(job) + "".join(stamp_files(path, [path]) for path in input_files(job).values())


def input_files(job: Job) -> dict[str, Path]:
    """Return the files besides the data that a job reads.

    Args:
        job: The job.

    Returns:
        Name of the option to the file.
    """
    given = {"weights": job.weights, "init": getattr(job.options, "init", None)}
    return {name: Path(path) for name, path in given.items() if path is not None}


def digest_inputs(job: Job) -> dict[str, str]:
    """Return the SHA-256 of the files besides the data that a job reads.

    Args:
        job: The job.

    Returns:
        Name of the option to the hash of the content.
    """
    digests = {}
    for name, path in input_files(job).items():
        with path.open("rb") as file:
            digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests
