"""Where figures go: results/NAME.json and results/NAME.md, and the part of README.md that is marked with NAME."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vpt.core import environment
from vpt.core.io import write_atomic

HERE = Path(__file__).parent
RESULTS = HERE / "results"
README = HERE / "README.md"


def write(name: str, part: str, values: dict[str, Any], command: str, table: str) -> None:
    """Put one part of a benchmark's figures in its place; the other parts stay as they were measured.

    values: JSON values. table: Markdown. The hardware, the versions, the day and the command go with them.
    """
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    parts = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    here = {**environment.describe(), "day": datetime.now(UTC).date().isoformat()}
    parts[part] = {"command": command, "machine": here, "values": values, "table": table}
    write_atomic(path, json.dumps(parts, indent=1).encode())
    text = "\n\n".join(f"{entry['table']}\n\n{provenance(entry)}" for entry in parts.values())
    write_atomic(RESULTS / f"{name}.md", f"{text}\n".encode())
    _refresh(name, text)


def provenance(entry: dict[str, Any]) -> str:
    """One line: command, hardware, versions, day."""
    machine = entry["machine"]
    devices = ", ".join(machine["gpus"]) or f"{machine['processor']}, {machine['threads']} threads"
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return f"<sub>`{entry['command']}` · {devices} · {versions} · {machine['day']}</sub>"


def _refresh(name: str, text: str) -> None:
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    if README.exists() and begin in (old := README.read_text(encoding="utf-8")):
        marked = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        write_atomic(README, marked.sub(lambda _: f"{begin}\n{text}\n{end}", old).encode())
