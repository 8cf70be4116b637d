"""How long the command line takes to say anything, against an empty Python.

    python benchmarks/start.py

Every command is a process of its own; the forms take turns, every second round backwards.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from functools import partial

from measure import format_quartiles, summarize, time_paired
from report import write_section

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "python -c 'import click'": ["-c", "import click"],
    "vpt --version": ["-m", "vpt", "--version"],
    "vpt --help": ["-m", "vpt", "--help"],
    "vpt summary vit_base_patch16_224": ["-m", "vpt", "summary", "vit_base_patch16_224", "--classes", "10"],
    "python -c 'import torch, timm'": ["-c", "import torch, timm"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    run = partial(subprocess.run, check=True, capture_output=True)
    variants = {name: partial(run, [sys.executable, *arguments]) for name, arguments in COMMANDS.items()}
    figures = summarize(time_paired(variants, options.rounds), "python -c pass")
    lines = [
        f"**Start**: seconds, and times an empty Python; median and quartiles of {options.rounds} rounds.",
        "",
        "| command | seconds | times `python -c pass` |",
        "|---|---:|---:|",
        *(
            f"| `{name}` | {format_quartiles(f['seconds'])} | {format_quartiles(f['times_reference'], 1)} |"
            for name, f in figures.items()
        ),
    ]
    table = "\n".join(lines)
    write_section("start", "start", figures, f"python benchmarks/start.py --rounds {options.rounds}", table)
    print(table)


if __name__ == "__main__":
    main()
