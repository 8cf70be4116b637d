"""The table of tasks in docs/how-to/benchmark-data.md. To update it: python tests/docs/test_task_table.py"""

from __future__ import annotations

from pathlib import Path

from vpt.datasets.catalog import TASKS

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "benchmark-data.md"
BEGIN, END = "<!-- tasks -->\n", "<!-- /tasks -->"


def table() -> str:
    """The table of the tasks in Markdown."""
    lines = ["| task | group | classes | images | label | terms | source |", "|---|---|---|---|---|---|---|"]
    for task in TASKS.values():
        cells = (task.name, task.group, str(task.classes), task.sizes_text, task.label_description, task.source.terms)
        lines.append(f"| {' | '.join(cells)} | [{task.source.citation}]({task.source.homepage}) |")
    return "\n".join(lines) + "\n"


def test_task_table_equals_the_catalog() -> None:
    assert PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0] == table()


if __name__ == "__main__":
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    PAGE.write_text(before + BEGIN + table() + END + rest.split(END)[1], encoding="utf-8")
