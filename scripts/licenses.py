"""Write the page of licenses of the packages that pyproject.toml names, from what is installed.

python scripts/licenses.py
"""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "licenses.md"
DEVELOPMENT = ("docs", "clients", "fuzz", "test", "dev")  # extras that nobody needs who uses vpt
INTRODUCTION = """# Licenses of dependencies

`vpt` itself is under the Apache License 2.0. None of these packages is part of its distribution; `pip` installs them.
`scripts/licenses.py` writes this page from the metadata of the packages.

| package | needed by | license |
|---|---|---|
"""


def packages() -> dict[str, str]:
    """Name of each package to `every installation`, or the extras that need it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = {name: ["every installation"] for name in map(package_name, project["dependencies"])}
    for extra, requirements in project["optional-dependencies"].items():
        if extra not in DEVELOPMENT:
            for name in map(package_name, requirements):
                found.setdefault(name, []).append(f"`{extra}`")
    return {name: ", ".join(needed_by) for name, needed_by in found.items()}


def package_name(requirement: str) -> str:
    match = re.match(r"[\w.-]+", requirement)
    assert match is not None
    return match[0]


def license_of(name: str) -> str:
    """The license expression, else the classifiers, else the first line of the license field."""
    try:
        values = metadata(name)
    except PackageNotFoundError as error:
        raise SystemExit(f"{name} is not installed; pip install '.[dev]' first") from error
    if values.get("License-Expression"):
        return str(values["License-Expression"])
    classifiers = [
        line.rpartition(" :: ")[2] for line in values.get_all("Classifier") or [] if line.startswith("License ::")
    ]
    return ", ".join(classifiers) or str(values.get("License") or "not stated").partition("\n")[0]


def main() -> None:
    rows = (f"| {name} | {needed_by} | {license_of(name)} |\n" for name, needed_by in packages().items())
    PAGE.write_text(INTRODUCTION + "".join(rows), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
