"""Where figures go: results/NAME.json and results/NAME.md, and the part of README.md that is marked with NAME."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vpt.core import environment
from vpt.core.io import write_atomic
from vpt.core.text import pluralize

BENCHMARKS_DIR = Path(__file__).parent
RESULTS_DIR = BENCHMARKS_DIR / "results"
README = BENCHMARKS_DIR / "README.md"


def write_section(name: str, section: str, values: dict[str, Any], command: str, table: str) -> None:
    """Put one part of a benchmark's figures in its place; the other parts stay as they were measured.

    values: JSON values. table: Markdown. The hardware, the versions, the day and the command go with them.
    """
    RESULTS_DIR.mkdir(exist_ok=True)
    path = RESULTS_DIR / f"{name}.json"
    sections = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    environment_info = {**environment.describe(), "day": datetime.now(UTC).date().isoformat()}
    sections[section] = {"command": command, "environment": environment_info, "values": values, "table": table}
    write_atomic(path, json.dumps(sections, indent=1).encode())
    text = "\n\n".join(f"{entry['table']}\n\n{format_provenance(entry)}" for entry in sections.values())
    write_atomic(RESULTS_DIR / f"{name}.md", f"{text}\n".encode())
    write_between_marks(README, name, text)


def format_provenance(entry: dict[str, Any]) -> str:
    """One line: command, hardware, versions, day."""
    environment_info = entry["environment"]
    cpu = f"{environment_info['processor']}, {pluralize(environment_info['threads'], 'thread')}"
    devices = ", ".join(environment_info["gpus"]) or cpu
    versions = ", ".join(f"{name} {version}" for name, version in environment_info["versions"].items())
    return f"<sub>`{entry['command']}` · {devices} · {versions} · {environment_info['day']}</sub>"


def write_between_marks(page: Path, name: str, text: str) -> None:
    """Replace what a page has between the two marks of that name; a page without them stays as it is."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    if page.exists() and begin in (old := page.read_text(encoding="utf-8")):
        marked = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        write_atomic(page, marked.sub(lambda _: f"{begin}\n{text}\n{end}", old).encode())
