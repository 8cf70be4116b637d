"""How far a comparison is, read from its folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vpt.experiments.search import chosen, known, left
from vpt.experiments.store import Store


@dataclass(frozen=True)
class Status:
    """Runs by what became of them. rows: for each cell, how many of its runs are done. troubles: what was said."""

    name: str
    total: int
    done: int
    failed: int
    error: int
    at_work: int
    rows: tuple[tuple[str, str, int, int], ...]
    troubles: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def text(self) -> str:
        """The same for people."""
        wide, names = max(len(row[0]) for row in self.rows), max(len(row[1]) for row in self.rows)
        head = f"{self.name}: {self.done} of {self.total} runs done, {self.failed} diverged, {self.error} in error, "
        lines = [f"{head}{self.at_work} at work"]
        lines += [f"  {task:<{wide}}  {method:<{names}}  {done}/{all_}" for task, method, done, all_ in self.rows]
        return "".join(f"{line}\n" for line in [*lines, *self.troubles])


def status(folder: Path) -> Status:
    """Read the plan and the records in `folder`. Raises DataError where there is no comparison."""
    store = Store(folder)
    plan, records = store.plan(), store.records()
    runs = known(plan, records)
    mine = [records[run_id] for run_id in runs if run_id in records]
    count = {state: sum(record.status == state for record in mine) for state in ("done", "failed", "error")}
    rows = []
    for task, entry in plan.cells():
        candidate = chosen(plan, task, entry, records)
        here = plan.choosing(task, entry)
        all_ = len(here) + plan.protocol.seeds
        here += [] if candidate is None else plan.final(task, entry, candidate)
        rows.append((task.name, entry.name, sum(run.id in records for run in here), all_))
    return Status(
        name=plan.name,
        total=len(mine) + len(left(plan, records)),
        done=count["done"],
        failed=count["failed"],
        error=count["error"],
        at_work=len(store.claims.held()),
        rows=tuple(rows),
        troubles=tuple(f"{runs[r.id].label}  {r.status}: {r.error}" for r in mine if r.error),
    )
