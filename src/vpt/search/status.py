"""How the trial of a candidate ended."""

from enum import StrEnum


class Status(StrEnum):
    """Word for what became of a candidate; the "reason" of its row says more."""

    TRIED = "tried"
    PLANNED = "planned"
    NO_TIME = "no_time"  # not begun: it does not fit the time left
    SKIPPED = "skipped"  # not begun for any other reason
    DROPPED = "dropped"
    STOPPED = "stopped"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"


NOT_BEGUN = (Status.NO_TIME, Status.SKIPPED)


def end(status: Status, reason: str) -> dict[str, str]:
    """Return the fields of a row that say how a trial ended.

    Args:
        status: The status.
        reason: Why, in words.

    Returns:
        "status" and "reason".
    """
    return {"status": status.value, "reason": reason}


SLOWER_THAN_PLANNED = end(Status.STOPPED, "slower than planned")
OUT_OF_MEMORY = end(Status.OUT_OF_MEMORY, "give a smaller --batch-size")
KILLED = end(Status.STOPPED, "the process was killed twice here, as where memory is short; give a smaller --batch-size")
