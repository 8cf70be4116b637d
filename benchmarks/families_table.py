"""The results of families.py as a table: what works, what is refused and whether that is expected, and faults."""

from __future__ import annotations

import re
import string
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator
from fnmatch import fnmatch
from typing import Any

from report import BENCHMARKS_DIR

METHODS = ("vpt", "linear", "bias", "lora", "lora(targets=all)", "adapter", "ssf", "full")
COLUMNS = (*METHODS, "merge")
REFUSALS = tomllib.loads((BENCHMARKS_DIR / "families.toml").read_text(encoding="utf-8"))["refusal"]
LETTERS = string.ascii_lowercase


def expected_refusal(model: str, family: str, method: str, cell: dict[str, Any]) -> str | None:
    """The letter of the rule of families.toml that lists this refusal; None where none does.

    What contradicts a refusal is listed, too: `despite` of the rule says it.
    """
    for letter, rule in zip(LETTERS, REFUSALS, strict=False):
        is_of_model = any(fnmatch(model, pattern) or fnmatch(family, pattern) for pattern in rule["models"])
        known = re.search(rule["reason"], cell["reason"]) and re.match(rule.get("despite", "$"), cell["false"] or "")
        if is_of_model and method in rule["methods"] and known:
            return letter
    return None


def list_outcomes(models: dict[str, dict[str, Any]]) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Family, model, column and cell; merging is a column of its own, where one refusal counts for all methods."""
    for name, entry in models.items():
        merged = [cell["merge"] for cell in entry["cells"].values() if "merge" in cell]
        worst = min(merged, key=lambda cell: ("crash", "refused", "works").index(cell["outcome"]), default=None)
        for column, cell in (*entry["cells"].items(), *([("merge", worst)] if worst else [])):
            yield entry["family"], name, column, cell


def find_faults(models: dict[str, dict[str, Any]]) -> list[str]:
    """Crashes, false refusals and refusals that nobody expects, a line each."""
    faults = []
    for family, name, column, cell in list_outcomes(models):
        if cell["outcome"] == "crash":
            faults.append(f"crash: {name}, {column}: {cell['reason']}")
        elif cell["outcome"] == "refused" and not expected_refusal(name, family, column, cell):
            contradicted = f"{cell['false']} contradicts " if cell["false"] else ""
            faults.append(
                f"{'false' if contradicted else 'unexpected'}: {name}, {column}: {contradicted}{cell['reason']}"
            )
    return faults


def make_table(models: dict[str, dict[str, Any]]) -> str:
    """A row for each family: what works, the letter of a refusal, and faults."""
    cells: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for family, name, column, cell in list_outcomes(models):
        letter = cell["outcome"] == "refused" and expected_refusal(name, family, column, cell)
        mark = {"works": "✓", "crash": "crash", "refused": f"<sup>{letter}</sup>" if letter else "?"}
        cells[family, column][mark[cell["outcome"]]] += 1
    lines = [f"| family | models | {' | '.join(f'`{column}`' for column in COLUMNS)} |"]
    lines.append(f"|---|---:|{':-:|' * len(COLUMNS)}")
    for family in dict.fromkeys(family for family, _ in cells):
        names = [name for name, entry in models.items() if entry["family"] == family]
        marks = [_join_marks(cells[family, column]) for column in COLUMNS]
        shown = f"`{names[0]}`" if len(names) == 1 else str(len(names))
        lines.append(f"| {family} | {shown} | {' | '.join(marks)} |")
    used = {letter for count in cells.values() for mark in count for letter in re.findall(r"<sup>(\w)", mark)}
    notes = [f"| {x} | {rule['why']} |" for x, rule in zip(LETTERS, REFUSALS, strict=False) if x in used]
    return "\n".join([*lines, "", "| refused | because |", "|:-:|---|", *notes] if notes else lines)


def _join_marks(marks: Counter[str]) -> str:
    if len(marks) == 1:
        return next(iter(marks))
    return ", ".join(f"{mark} {count}" for mark, count in marks.most_common())


def summarize(models: dict[str, dict[str, Any]], faults: list[str]) -> str:
    kinds = Counter(fault.partition(":")[0] for fault in faults)
    run = sum(entry["device"] == "cpu" for entry in models.values())
    return (
        f"{len(models)} models, {run} of them run and the others built on the meta device: {kinds['crash']} crashes, "
        f"{kinds['false']} false\nrefusals, {kinds['unexpected']} refusals that are not expected."
    )
