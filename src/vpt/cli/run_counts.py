"""The end of a command that did the runs of a comparison: how many there are, and the verdicts on its cells."""

import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from vpt.cli.options import print_result

if TYPE_CHECKING:
    from vpt.experiments.store import Record


def print_runs(folder: Path, records: "Mapping[str, Record]", as_json: bool) -> None:
    """Print the number of runs, and the verdicts on the cells.

    Args:
        folder: Folder of the comparison.
        records: Records by run id.
        as_json: True prints JSON.
    """
    from vpt.experiments.reports.cell_verdicts import judge_cells
    from vpt.experiments.results import load_results
    from vpt.experiments.store import Store

    counts, verdicts = Counter(record.status for record in records.values()), judge_cells(load_results(Store(folder)))
    num_failed = len(records) - counts["done"]
    lines = [
        f"{len(records)} runs in {folder}/" + (f", {num_failed} of them without a result" if num_failed else ""),
        *map(str, verdicts),
        f"next: vpt bench report {shlex.quote(str(folder))}",
    ]
    values = {
        "folder": str(folder),
        "runs": len(records),
        "done": counts["done"],
        "failed": counts["failed"],
        "errors": counts["error"],
        "verdicts": [asdict(verdict) for verdict in verdicts],
    }
    print_result(as_json, values, lines)
