"""Requests that schemathesis makes of the OpenAPI description, to a server of this machine.

    python benchmarks/openapi.py
    python benchmarks/openapi.py --examples 20 --dry-run

It needs the extra `fuzz`. All checks of schemathesis are on: answers of every operation are compared with the
description, valid requests must be taken, and invalid ones refused. Three tasks of the embedded backbone are served;
others are added, replaced and removed. An operation gets at most `--examples` drawn requests, and fewer where few
differ; rounds with other seeds follow for those that got fewer.
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
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from local_server import TOKEN, running_server
from report import write_between_marks, write_section
from vpt import attach, load_backbone, save

ADD, REMOVE = "PUT /tasks/{task}", "DELETE /tasks/{task}"
FEW, MAX_ROUNDS = 10, 60  # examples of the later rounds, which repeat what is not drawn
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
    """Run schemathesis until every operation got as many requests as `examples`; the counts and findings."""
    answers: Counter[str] = Counter()
    findings: list[str] = []
    exit_code, rounds, lacking = 0, 0, list[str]()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as tmp:
        served, sent, log = Path(tmp) / "served", Path(tmp) / "sent", Path(tmp) / "errors"
        served.mkdir()
        sent.mkdir()
        make_files(served, sent)
        (sent / "openapi.json").write_bytes(files("vpt.serving").joinpath("openapi.json").read_bytes())
        with running_server(served, log=log) as port:
            while rounds == 0 or (lacking and not exit_code and rounds < MAX_ROUNDS):
                done = ask(port, sent, examples if rounds == 0 else FEW, seed + rounds, lacking)
                rounds, exit_code = rounds + 1, done.returncode
                print(done.stdout, done.stderr, sep="\n")
                findings += re.findall(r"^- (.+)$", done.stdout, re.MULTILINE)
                answers.update(json.loads((sent / "counts.json").read_text()))
                totals = by_operation(answers)
                lacking = [name for name, statuses in totals.items() if sum(statuses.values()) < examples]
        errors = log.read_text()
    return {
        "exit_code": exit_code, "findings": findings, "tracebacks": errors.count("Traceback"),
        "answers": by_operation(answers), "examples": examples, "seed": seed, "rounds": rounds,
        "seconds": time.perf_counter() - start, "schemathesis": version("schemathesis"),
    }  # fmt: skip


def ask(
    port: int, folder: Path, examples: int, seed: int, operations: Sequence[str]
) -> subprocess.CompletedProcess[str]:
    """Run schemathesis once, on all operations or some; tasks are added where some are to be removed."""
    names = [*operations, *([ADD] if REMOVE in operations and ADD not in operations else [])]
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--no-color", "run", str(folder / "openapi.json")),
        *("--url", f"http://127.0.0.1:{port}", "--header", f"Authorization: Bearer {TOKEN}"),
        *("--checks", "all", "--mode", "all", "--max-examples", str(examples), "--seed", str(seed)),
        *("--continue-on-failure", "--generation-database", "none", "--request-timeout", "60"),
        *("--suppress-health-check", "all", "--output-truncate", "true"),
        *(word for name in names for word in ("--include-name", name)),
        *(("--phases", "examples,coverage,fuzzing") if names else ()),  # links between some operations lead nowhere
    ]
    hooks = str(Path(__file__).with_name("openapi_hooks.py"))
    variables = {**os.environ, "OPENAPI_FOLDER": str(folder), "SCHEMATHESIS_HOOKS": hooks}
    return subprocess.run(command, cwd=folder.parent, env=variables, capture_output=True, text=True, check=False)


def by_operation(counts: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Return operation -> status -> number of answers."""
    answers: dict[str, dict[str, int]] = defaultdict(dict)
    for key, count in sorted(counts.items()):
        operation, _, status = key.rpartition(" ")
        answers[operation][status] = count
    return dict(answers)


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
            f"operation, {found['rounds']} rounds: {total:,} requests, {len(found['findings'])} findings.",
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
