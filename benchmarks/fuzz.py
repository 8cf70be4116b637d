"""Coverage-guided fuzzing of what reads files and requests of strangers, by atheris.

    python benchmarks/fuzz.py --minutes 60 --corpus FOLDER
    python benchmarks/fuzz.py --minutes 1 --targets spec plan --dry-run

It needs the extra `fuzz`. The targets are those of `tests/hostile/targets.py`, each in a process of its own, which ends
after `--executions`; the time that is left is divided among the targets that follow. An exception that is no error of
vpt is a finding: it is printed with its input, and counted once for each place that raises it. Inputs that reach new
code are kept in the corpus, at most 1 MB of them. A run begins with those of `tests/hostile/corpus.zip`, and writes the
file again: a test gives them to the targets.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "tests" / "hostile" / "corpus.zip"
TARGETS = ("spec", "header", "list", "upload", "plan", "archive")  # fast ones first
INSTRUMENTED = ["vpt", "tomllib", "tarfile", "starlette", "python_multipart", "PIL"]
CORPUS_BYTES = 10**6  # of all targets together
# Longest input of each target: what reaches code is short, and long ones take long.
MAX_BYTES = {"spec": 1_000, "header": 5_000, "list": 2_000, "upload": 5_000, "plan": 2_000, "archive": 10_240}
MEMORY = Path("/dev/shm")  # a file system in memory, where Linux has one: targets write a file for each input


def fuzz(name: str, corpus: Path, work: Path, seconds: int, executions: int) -> None:
    """Run one target until its time is over. This does not return: libFuzzer ends the process."""
    import atheris
    import torch  # noqa: F401 (instrumented, it would take minutes to import)

    sys.path.insert(0, str(ROOT / "tests"))
    sys.modules.pop("tarfile", None)  # which torch has imported: it is instrumented when it is imported again
    with atheris.instrument_imports(include=INSTRUMENTED):
        from hostile import targets
    logging.disable()  # of what starlette finds wrong in forms
    target, found = targets.TARGETS[name], set[str]()
    targets.use_folder(work)

    def call(data: bytes) -> None:
        try:
            target(data)
        except Exception as error:  # of any kind: this is what is looked for
            place = traceback.extract_tb(error.__traceback__)[-1]
            key = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
            if key not in found:
                found.add(key)
                finding = {"place": key, "message": str(error)[:200], "input": data.hex()}
                with (work / "findings.jsonl").open("a", encoding="utf-8") as file:
                    file.write(f"{json.dumps(finding)}\n")

    corpus.mkdir(parents=True, exist_ok=True)
    for data in (*targets.seeds(name), *targets.kept_inputs(name)):
        (corpus / hashlib.sha1(data).hexdigest()).write_bytes(data)  # as libFuzzer names what it keeps
    options = {
        "max_total_time": seconds, "runs": executions, "max_len": MAX_BYTES[name], "timeout": 60, "rss_limit_mb": 4096,
        "print_final_stats": 1, "seed": 1, "artifact_prefix": f"{work}{os.sep}", "verbosity": 1,
    }  # fmt: skip
    atheris.Setup([sys.argv[0], *(f"-{key}={value}" for key, value in options.items()), str(corpus)], call)
    atheris.Fuzz()


def run(name: str, corpus: Path, seconds: int, executions: int) -> dict[str, Any]:
    """Run one target in a process of its own, and return its counts and findings."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as work:
        start = time.monotonic()
        command = [sys.executable, __file__, "--child", name, "--corpus", str(corpus), "--work", work]
        command += ["--seconds", str(seconds), "--executions", str(executions)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        findings = Path(work) / "findings.jsonl"
        lines = findings.read_text(encoding="utf-8").splitlines() if findings.exists() else []
    counts = read_counts(done.stderr)
    if done.returncode:  # a crash, a hang or too much memory, of which libFuzzer says more
        end = done.stderr[-1500:]
        lines.append(json.dumps({"place": f"exit code {done.returncode}", "message": end, "input": ""}))
    return {**counts, "seconds": time.monotonic() - start, "findings": [json.loads(line) for line in lines]}


def read_counts(log: str) -> dict[str, int]:
    """Read executions, covered edges and kept inputs from what libFuzzer prints."""
    executed = re.findall(r"stat::number_of_executed_units:\s*(\d+)", log) or re.findall(r"^#(\d+)", log, re.MULTILINE)
    covered = re.findall(r"\bcov: (\d+)", log)
    kept = re.findall(r"\bcorp: (\d+)", log)
    return {name: int(found[-1]) if found else 0 for name, found in
            {"executions": executed, "coverage": covered, "corpus": kept}.items()}  # fmt: skip


def prune(folder: Path, max_bytes: int) -> int:
    """Delete the largest inputs until the others fit; the bytes that are left."""
    files = sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    total = sum(path.stat().st_size for path in files)
    while total > max_bytes:
        largest = files.pop()
        total -= largest.stat().st_size
        largest.unlink()
    return total


def keep(folder: Path, path: Path) -> None:
    """Write the inputs of a folder to a file, whose bytes are the same for the same inputs."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        for each in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = zipfile.ZipInfo(each.relative_to(folder).as_posix())  # of a fixed date
            file.writestr(name, each.read_bytes(), zipfile.ZIP_DEFLATED)


def format_table(found: dict[str, dict[str, Any]], minutes: float, atheris: str, corpus_bytes: int) -> str:
    """The counts as Markdown."""
    rows = [
        f"| {name} | {one['executions']:,} | {one['seconds']:.0f} | {one['coverage']:,} | {one['corpus']:,} "
        f"| {len(one['findings'])} |"
        for name, one in found.items()
    ]
    return "\n".join(
        [
            f"**Fuzzing**: atheris {atheris}, at most {minutes:g} min of all targets together, one after the other; "
            f"the kept inputs have {corpus_bytes / 1000:,.0f} kB.",
            "",
            "| target | executions | seconds | coverage (edges) | inputs kept | findings |",
            "|---|---:|---:|---:|---:|---:|",
            *rows,
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, help="of all targets together")
    parser.add_argument("--executions", type=int, default=100_000, help="of each target, at most")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS, help="without figures if not all")
    parser.add_argument("--corpus", type=Path, help="folder that keeps inputs and begins with those in it")
    parser.add_argument("--dry-run", action="store_true", help="write no figures")
    for name in ("--child", "--work", "--seconds"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        parser.error("atheris is not installed: pip install 'visual-prompt-tuning[fuzz]'")
    if options.child:
        fuzz(options.child, options.corpus, Path(options.work), int(options.seconds), options.executions)
    end, found = time.monotonic() + 60 * options.minutes, {}
    with tempfile.TemporaryDirectory() as tmp:
        corpus = options.corpus or Path(tmp)
        for left, name in zip(range(len(options.targets), 0, -1), options.targets, strict=True):
            seconds = max(1, int((end - time.monotonic()) / left))
            found[name] = run(name, corpus / name, seconds, options.executions)
            print(name, json.dumps(found[name], indent=1))
        size = prune(corpus, CORPUS_BYTES)
        print(f"the corpus has {size:,} bytes")
        options.dry_run |= tuple(options.targets) != TARGETS  # a part would replace the figures and inputs of all
        if not options.dry_run:
            keep(corpus, KEPT)
    table = format_table(found, options.minutes, version("atheris"), size)
    print(table)
    if not options.dry_run:
        runs = f" --executions {options.executions}" * (options.executions != parser.get_default("executions"))
        write(found, f"python benchmarks/fuzz.py --minutes {options.minutes:g}{runs}", table)
    sys.exit(any(one["findings"] for one in found.values()))


def write(found: dict[str, Any], command: str, table: str) -> None:
    # These import vpt, which a child must not do before it is instrumented.
    from report import write_between_marks, write_section

    write_section("fuzz", "fuzz", found, command, table)
    write_between_marks(ROOT / "docs" / "reliability.md", "fuzz", table)


if __name__ == "__main__":
    main()
