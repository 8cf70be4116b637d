"""Requests that schemathesis makes of the OpenAPI description, to a server of this machine.

    python benchmarks/openapi.py
    python benchmarks/openapi.py --examples 20 --dry-run

It needs the extra `fuzz`. All checks of schemathesis are on: answers of every operation are compared with the
description, valid requests must be taken, and invalid ones refused. Three tasks of the embedded backbone are served;
others are added, replaced and removed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from local_server import TOKEN, running_server
from report import write_between_marks, write_section
from vpt import attach, load_backbone, save

TASKS = {"animals": ("vpt(length=3)", None), "probe": ("linear", None), "scenes": ("vpt(length=2)", "linear")}


def make_files(served: Path, sent: Path) -> None:
    """Write the files of the tasks, and what requests send."""
    backbone = load_backbone()
    for name, (method, head) in TASKS.items():
        save(attach(backbone, method, 2, classes=("cat", "dog"), head=head), served / f"{name}.safetensors")
    (sent / "0.tuned").write_bytes((served / "animals.safetensors").read_bytes())
    (sent / "1.tuned").write_bytes((served / "scenes.safetensors").read_bytes())
    (sent / "tasks.json").write_text(json.dumps(list(TASKS)))
    rng = np.random.default_rng(0)
    for number, (side, form) in enumerate([(48, "png"), (9, "png"), (70, "jpeg")]):
        image = Image.fromarray(rng.integers(0, 255, (side, side, 3), dtype=np.uint8))
        image.save(sent / f"{number}.image", form)


def run(examples: int, seed: int) -> dict[str, Any]:
    """Run schemathesis, and return its counts and findings."""
    with tempfile.TemporaryDirectory() as tmp:
        served, sent = Path(tmp) / "served", Path(tmp) / "sent"
        served.mkdir()
        sent.mkdir()
        make_files(served, sent)
        description = sent / "openapi.json"
        description.write_bytes(files("vpt.serving").joinpath("openapi.json").read_bytes())
        with running_server(served, log=Path(tmp) / "errors") as port:
            command = [
                *(sys.executable, "-m", "schemathesis.cli", "--no-color", "run", str(description)),
                *("--url", f"http://127.0.0.1:{port}", "--header", f"Authorization: Bearer {TOKEN}"),
                *("--checks", "all", "--mode", "all", "--max-examples", str(examples), "--seed", str(seed)),
                *("--continue-on-failure", "--generation-database", "none", "--request-timeout", "60"),
                *("--suppress-health-check", "all", "--output-truncate", "true"),
            ]
            hooks = str(Path(__file__).with_name("openapi_hooks.py"))
            variables = {**os.environ, "OPENAPI_FOLDER": str(sent), "SCHEMATHESIS_HOOKS": hooks}
            start = time.perf_counter()
            done = subprocess.run(command, cwd=tmp, env=variables, capture_output=True, text=True, check=False)
            seconds = time.perf_counter() - start
        print(done.stdout, done.stderr, sep="\n")
        counts = json.loads((sent / "counts.json").read_text())
        errors = (Path(tmp) / "errors").read_text()
    answers: dict[str, dict[str, int]] = defaultdict(dict)
    for key, count in sorted(counts.items()):
        operation, _, status = key.rpartition(" ")
        answers[operation][status] = count
    return {
        "exit_code": done.returncode, "findings": re.findall(r"^- (.+)$", done.stdout, re.MULTILINE),
        "tracebacks": errors.count("Traceback"), "answers": answers, "examples": examples, "seed": seed,
        "seconds": seconds, "schemathesis": version("schemathesis"),
    }  # fmt: skip


def format_table(found: dict[str, Any]) -> str:
    """The counts as Markdown."""
    total = sum(sum(statuses.values()) for statuses in found["answers"].values())
    rows = [
        f"| `{operation}` | {sum(statuses.values()):,} | {', '.join(f'{c:,} x {s}' for s, c in statuses.items())} |"
        for operation, statuses in found["answers"].items()
    ]
    return "\n".join(
        [
            f"**OpenAPI**: schemathesis {found['schemathesis']}, all checks, {found['examples']} examples an "
            f"operation: {total:,} requests, {len(found['findings'])} findings.",
            "",
            "| operation | requests | answers by status |",
            "|---|---:|---|",
            *rows,
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=200, help="requests of each kind for each operation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry-run", action="store_true", help="write no figures")
    options = parser.parse_args()
    if importlib.util.find_spec("schemathesis") is None:
        parser.error("schemathesis is not installed: pip install 'visual-prompt-tuning[fuzz]'")
    found = run(options.examples, options.seed)
    table = format_table(found)
    print(table)
    if not options.dry_run:
        command = f"python benchmarks/openapi.py --examples {options.examples} --seed {options.seed}"
        write_section("openapi", "openapi", found, command, table)
        write_between_marks(Path(__file__).parents[1] / "docs" / "reliability.md", "openapi", table)
    sys.exit(found["exit_code"] or bool(found["tracebacks"]))


if __name__ == "__main__":
    main()
