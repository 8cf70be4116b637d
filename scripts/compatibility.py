"""Run the fast tier in fresh environments: the oldest supported packages, the newest ones, and Python 3.13.

    python scripts/compatibility.py                  every set whose Python is on this machine
    python scripts/compatibility.py oldest --keep /scratch/envs

The oldest packages are the lower bounds of pyproject.toml. pip takes its settings, such as an index with CPU wheels of
torch, from its environment variables. `audit` names known vulnerabilities of the newest packages by pip-audit.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
SETS = {"oldest": "python3.11", "newest": "python3.12", "python3.13": "python3.13", "audit": "python3.12"}


def lower_bounds() -> list[str]:
    """The lower bounds of the core as constraints of pip: `torch>=2.6` becomes `torch==2.6.*`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = [re.fullmatch(r"([\w.-]+)>=([\d.]+)", requirement) for requirement in project["dependencies"]]
    return [f"{bound[1]}=={bound[2]}.*" for bound in bounds if bound is not None]


def find_python(name: str) -> str | None:
    """A Python of this version, or the running one for the newest set where there is no other."""
    found = shutil.which(SETS[name])
    return found or (sys.executable if name in ("newest", "audit") else None)


def run(name: str, interpreter: str, folder: Path) -> int:
    """Build the environment of a set and run its command; the exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([interpreter, "-m", "venv", "--clear", folder / name], check=True)
    python = folder / name / "bin" / "python"
    constraints = folder / f"{name}.txt"
    constraints.write_text("".join(f"{line}\n" for line in lower_bounds()) if name == "oldest" else "")
    extra = "test" if name != "audit" else "datasets,deep,hdf5,heif,mlflow,parquet,ray,serve,tensorboard,wandb"
    install = [python, "-m", "pip", "install", "--quiet", "--constraint", constraints, f"{ROOT}[{extra}]"]
    if subprocess.run(install, check=False).returncode:
        return 1
    if name == "audit":
        subprocess.run([python, "-m", "pip", "install", "--quiet", "pip-audit"], check=True)
        return subprocess.run([python, "-m", "pip_audit", "--skip-editable"], check=False).returncode
    return subprocess.run([python, "-m", "pytest", "-m", "not slow"], cwd=ROOT, check=False).returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET", help=", ".join(SETS))
    parser.add_argument("--keep", type=Path, help="folder for the environments; several GB each")
    options = parser.parse_args()
    unknown = set(options.sets) - SETS.keys()
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(SETS)}")
    results: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.sets or SETS:
            interpreter = find_python(name)
            if interpreter is None:
                results[name] = f"not run: there is no {SETS[name]}"
                continue
            code = run(name, interpreter, options.keep or Path(scratch))
            results[name] = "passed" if code == 0 else f"failed with {code}"
    for name, result in results.items():
        print(f"{name}: {result}")
    sys.exit(any(result.startswith("failed") for result in results.values()))


if __name__ == "__main__":
    main()
