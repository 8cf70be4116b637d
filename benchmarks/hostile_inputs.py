"""Every hostile input at every entry. The suite tries a part of them.

    python benchmarks/hostile_inputs.py
    python benchmarks/hostile_inputs.py --kinds plans lists --dry-run

It runs `tests/hostile` with VPT_COMPLETE=1 in one process, and counts inputs, calls of an entry with one, and raw
errors: those that are no error of vpt, that name no file, are too long, or hold control characters.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from report import write_between_marks, write_section

ROOT = Path(__file__).parents[1]
FILES = ("test_hostile_inputs.py", "test_hostile_exports.py")


def run(kinds: list[str]) -> dict[str, Any]:
    """Run the tests, and return the counts of each kind of input."""
    with tempfile.TemporaryDirectory() as tmp:
        counts = Path(tmp) / "counts.json"
        variables = {**os.environ, "VPT_COMPLETE": "1", "VPT_HOSTILE_COUNTS": str(counts)}
        command = [sys.executable, "-m", "pytest", "-q", "-n0", "--durations=0"]
        command += [str(ROOT / "tests" / "hostile" / file) for file in FILES]
        command += ["-k", " or ".join(kinds)] if kinds else []
        start = time.perf_counter()
        done = subprocess.run(command, cwd=ROOT, env=variables, check=False)
        found = json.loads(counts.read_text())
    return {"exit_code": done.returncode, "seconds": time.perf_counter() - start, "kinds": found}


def format_table(found: dict[str, Any]) -> str:
    """The counts as Markdown."""
    kinds = dict(sorted(found["kinds"].items()))
    names = ("inputs", "calls", "raw")
    kinds["all"] = {name: sum(counts[name] for counts in kinds.values()) for name in names}
    rows = [f"| {kind} | {' | '.join(f'{counts[name]:,}' for name in names)} |" for kind, counts in kinds.items()]
    head = ["| kind | inputs | calls of an entry | raw |", "|---|---:|---:|---:|"]
    return "\n".join([f"**Hostile inputs**: all at all entries, {found['seconds'] / 60:.0f} min.", "", *head, *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=[], help="words in the names of tests, without figures")
    parser.add_argument("--dry-run", action="store_true", help="write no figures")
    options = parser.parse_args()
    found = run(options.kinds)
    table = format_table(found)
    print(table)
    if not options.dry_run and not options.kinds:  # a part would replace the whole
        write_section("hostile", "hostile", found, "python benchmarks/hostile_inputs.py", table)
        write_between_marks(ROOT / "docs" / "reliability.md", "hostile", table)
    sys.exit(found["exit_code"])


if __name__ == "__main__":
    main()
