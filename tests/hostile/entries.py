"""What is done with hostile inputs: they are given to entries of the library and the command line, one by one."""

from __future__ import annotations

import atexit
import io
import json
import os
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
import numpy as np
from click.testing import CliRunner
from PIL import Image

from vpt.cli import app
from vpt.errors import VptError

# Of each kind, every n-th input and at least so many (caches: of each of their files). All inputs: VPT_COMPLETE=1.
STEPS = {"tuned file": 3, "run": 5, "checkpoint": 3, "cache": 3, "archive": 2, "weights": 3, "plan": 2, "list": 4}
COUNTS = {
    "tuned file": 35, "run": 16, "checkpoint": 20, "cache": 5, "archive": 25, "weights": 30, "plan": 25, "list": 35,
    "request": 50,
}  # fmt: skip
# Kind of input -> counts of inputs, of calls of an entry with one, and of raw errors.
_TRIED: defaultdict[str, Counter[str]] = defaultdict(Counter)
COUNTS_VARIABLE = "VPT_HOSTILE_COUNTS"  # names the file that the counts are written to when the tests have ended


def inputs_of(kind: str, inputs: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return the inputs of a kind that are tried, of which there are enough."""
    tried = list(inputs)[:: 1 if "VPT_COMPLETE" in os.environ else STEPS[kind]]
    assert len(tried) >= COUNTS[kind]
    return tried


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def command(*args: object) -> Callable[[], object]:
    """Return a command of the command line, run in this process without its handling of errors."""

    def run() -> None:
        result = CliRunner().invoke(app, [str(arg) for arg in args], standalone_mode=False)
        if result.exception is not None:
            raise result.exception

    return run


def take_turns(entries: dict[str, Callable[[], object]], turn: int, always: int = 1) -> dict[str, Callable[[], object]]:
    """Return the first entries, and of the others the one whose turn it is: each gets many inputs, in little time."""
    if "VPT_COMPLETE" in os.environ:
        return entries
    first, others = list(entries)[:always], list(entries)[always:]
    return {name: entries[name] for name in (*first, others[turn % len(others)])}


def count_tried(**counts: int) -> None:
    """Add counts of the kind that the running test is about."""
    found = re.search(r"::test_hostile_(\w+?)_(?:are|is)_", os.environ.get("PYTEST_CURRENT_TEST", ""))
    if found:
        _TRIED[found[1].replace("_", " ")].update(counts)


@atexit.register
def _write_counts() -> None:
    if COUNTS_VARIABLE in os.environ:
        Path(os.environ[COUNTS_VARIABLE]).write_text(json.dumps(_TRIED))


def raw_errors(
    name: str, entries: dict[str, Callable[[], object]], path: Path | None = None, *, is_damaged: bool = False
) -> list[str]:
    """Call every entry; return what is no error of vpt, or is too long, or lacks the name of an unreadable file.

    With `is_damaged`, a call that returns is one of them: it read what it must refuse.
    """
    found = []
    for entry, call in entries.items():
        try:
            call()
            if is_damaged:
                found.append(f"{name}, {entry}: a damaged file is read")
            path = None  # it can be read, so that errors of the others are about something else
        except (VptError, click.ClickException) as error:
            text = error.format_message() if isinstance(error, click.ClickException) else str(error)
            if len(text) >= 1000:
                found.append(f"{name}, {entry}: {len(text)} characters")
            if path is not None and path.name not in text:
                found.append(f"{name}, {entry}: no path in {text[:200]}")
            if any(ord(character) < 32 and character != "\n" for character in text):
                found.append(f"{name}, {entry}: control characters in {text[:200]!r}")
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # of any kind, also of extensions in Rust: this is what is looked for
            found.append(f"{name}, {entry}: {type(error).__name__}: {str(error)[:200]}")
    count_tried(inputs=1, calls=len(entries), raw=len(found))
    return found


def clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
