"""How the trial of a candidate ended."""

from collections.abc import Callable
from enum import StrEnum
from typing import Any

from vpt.errors import is_out_of_memory


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


def or_out_of_memory(carry_out: Callable[[], dict[str, Any]], otherwise: dict[str, Any]) -> dict[str, Any]:
    """Return the row of a candidate. One that does not fit into memory leaves the others to be tried.

    Args:
        carry_out: Function that returns the row.
        otherwise: What is known of the row where memory runs out.

    Returns:
        The row.
    """
    try:
        return carry_out()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    return {**otherwise, **OUT_OF_MEMORY}
