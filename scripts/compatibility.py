"""Run the fast tier in fresh environments: the oldest supported packages, the newest ones, and Python 3.13.

    python scripts/compatibility.py                  every set whose Python is on this machine
    python scripts/compatibility.py oldest --keep /scratch/envs

The oldest packages are the lower bounds of pyproject.toml. pip takes its settings, such as an index with CPU wheels of
torch, from its environment variables. `audit` names known vulnerabilities of the newest packages by pip-audit. The
counts go to benchmarks/results/compatibility.json and to docs/reference/stability.md.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "stability.md"
SETS = {"oldest": "python3.11", "newest": "python3.12", "python3.13": "python3.13", "audit": "python3.12"}
SHOWN = ("torch", "torchvision", "timm", "numpy", "scipy", "pillow")
OTHERS = ("pyarrow<22", "pyparsing<3.3")  # the last ones that go with the oldest numpy and matplotlib
USED = "datasets,deep,export,hdf5,heif,mlflow,parquet,ray,ray-serve,serve,tensorboard,wandb"


def lower_bounds() -> list[str]:
    """The lower bounds of the core as constraints of pip: `torch>=2.6` becomes `torch==2.6.*`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = [re.fullmatch(r"([\w.-]+)>=([\d.]+)", requirement) for requirement in project["dependencies"]]
    return [f"{bound[1]}=={bound[2]}.*" for bound in bounds if bound is not None]


def find_python(name: str) -> str | None:
    """A Python of this version, or the running one for the newest set where there is no other."""
    found = shutil.which(SETS[name])
    return found or (sys.executable if name in ("newest", "audit") else None)


def build(name: str, interpreter: str, folder: Path) -> Path:
    """Make the environment of a set; one that is there already gets this vpt alone. Return its Python."""
    folder.mkdir(parents=True, exist_ok=True)
    python, constraints, complete = (folder / name / each for each in ("bin/python", "constraints.txt", "complete"))
    if complete.exists():
        again = ("--no-deps", "--force-reinstall", ROOT)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *again], check=True)
        return python
    subprocess.run([interpreter, "-m", "venv", "--clear", folder / name], check=True)
    bounds = (*lower_bounds(), *OTHERS) if name == "oldest" else ()
    constraints.write_text("".join(f"{line}\n" for line in bounds))
    extra = "test" if name != "audit" else USED
    packages = [f"{ROOT}[{extra}]", *(["pip-audit"] if name == "audit" else [])]
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--constraint", constraints, *packages], check=True)
    complete.touch()
    return python


def run_tests(name: str, python: Path, scratch: Path) -> int:
    """Run the fast tier and write down its counts; the exit code."""
    report = scratch / f"{name}.xml"
    code = subprocess.run(
        [python, "-m", "pytest", "-m", "not slow", f"--junitxml={report}"], cwd=ROOT, check=False
    ).returncode
    if report.exists():  # by the Python of the set, which knows its versions
        subprocess.run([python, __file__, name, "--record", report], check=True)
    return code


def count_tests(report: Path) -> dict[str, int]:
    """Numbers of tests in a report of pytest; a test with an error in its setup or its end is a failed one."""
    cases = ElementTree.parse(report).getroot().iter("testcase")
    kinds = [{child.tag for child in case} for case in cases]
    failed = sum(bool(kind & {"failure", "error"}) for kind in kinds)
    skipped = sum("skipped" in kind for kind in kinds)
    return {"passed": len(kinds) - failed - skipped, "failed": failed, "skipped": skipped}


def write_counts(name: str, report: Path) -> None:
    """Add the counts of a set to the record and to the page, with the versions of this Python's packages."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from report import RESULTS_DIR, write_between_marks, write_section

    path = RESULTS_DIR / "compatibility.json"
    known: dict[str, Any] = json.loads(path.read_text())["sets"]["values"] if path.exists() else {}
    versions = {"python": python_version(), **{package: version(package) for package in SHOWN}}
    day = datetime.now(UTC).date().isoformat()
    known[name] = {"day": day, **count_tests(report), "versions": versions}
    values = {each: known[each] for each in SETS if each in known}
    columns = ["set", "Python", *SHOWN, "passed", "failed", "skipped", "day"]
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * 8}{'---:|' * 3}---|"]
    for each, row in values.items():
        cells = [each, *row["versions"].values(), row["passed"], row["failed"], row["skipped"], row["day"]]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    table = "\n".join(lines)
    write_section("compatibility", "sets", values, f"python scripts/compatibility.py {' '.join(values)}", table)
    write_between_marks(PAGE, "compatibility", table)


def audit(python: Path, scratch: Path) -> int:
    """Name the known vulnerabilities of the installed packages; a nonzero code for any, or if none could be looked up.

    pip-audit passes over packages that the advisory service does not answer for, and says that all is well.
    """
    report = scratch / "audit.json"
    subprocess.run([python, "-m", "pip_audit", "--format", "json", "--output", report], check=False)
    packages = json.loads(report.read_text())["dependencies"]
    looked_up = [package for package in packages if "vulns" in package]
    found = [f"{each['name']} {each['version']}: {vuln['id']}" for each in looked_up for vuln in each["vulns"]]
    print(*found, sep="\n")
    print(f"{len(looked_up)} of {len(packages)} packages looked up, {len(found)} vulnerabilities")
    return int(bool(found) or not looked_up)


def run(name: str, interpreter: str, folder: Path) -> int:
    """Build the environment of a set and run its command; the exit code."""
    try:
        python = build(name, interpreter, folder)
    except subprocess.CalledProcessError as error:
        return error.returncode
    if name == "audit":
        return audit(python, folder)
    return run_tests(name, python, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET", help=", ".join(SETS))
    parser.add_argument("--keep", type=Path, help="folder of environments, several GB each; those there are used again")
    parser.add_argument("--build", action="store_true", help="make the environments only; needs --keep")
    parser.add_argument("--record", type=Path, metavar="XML", help="add a report of pytest for SET; nothing is run")
    options = parser.parse_args()
    unknown = set(options.sets) - SETS.keys()
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(SETS)}")
    if options.build and options.keep is None:
        parser.error("--build needs --keep")
    if options.record is not None and len(options.sets) != 1:
        parser.error(f"--record is for one SET, and {len(options.sets)} are given")
    if options.record is not None:
        (name,) = options.sets
        write_counts(name, options.record)
        return
    results: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.keep or Path(scratch)).absolute()
        for name in options.sets or SETS:
            interpreter = find_python(name)
            if interpreter is None:
                results[name] = f"not run: there is no {SETS[name]}"
            elif options.build:
                build(name, interpreter, folder)
                results[name] = "built"
            else:
                code = run(name, interpreter, folder)
                results[name] = "passed" if code == 0 else f"failed with {code}"
    for name, result in results.items():
        print(f"{name}: {result}")
    sys.exit(any(result.startswith("failed") for result in results.values()))


if __name__ == "__main__":
    main()
