"""What kills did to files: those that are torn, lost or left over, against an unbroken run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors import safe_open

_VOLATILE = {"seconds", "environment", "peak_memory_bytes", "started", "provenance", "cost", "files"}
_VOLATILE_IN_PAGES = re.compile(r"(?<=[ >])/[^\s<>]*/|(?<= parameters), in [^<]*")  # folders, and seconds of training


def files_of(folder: Path) -> dict[str, Path]:
    """Files by their names below a folder."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def content(path: Path, exact: bool) -> Any:
    """Return what is to be equal in a file; reading it raises an error where it is torn."""
    if path.suffix in (".json", ".jsonl"):
        values = [json.loads(line) for line in path.read_text().splitlines()] if path.suffix == ".jsonl" else [
            json.loads(path.read_text())
        ]  # fmt: skip
        return [_stable(value) for value in values] if exact else None
    if path.suffix == ".safetensors":
        with safe_open(path, framework="np") as file:
            tensors = {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118
        return tensors if exact else None
    if path.suffix in (".png", ".jpg"):
        with Image.open(path) as image:
            image.load()
        return None
    if path.suffix == ".html":
        page = path.read_text(encoding="utf-8")
        if not page.rstrip().endswith("</html>"):
            raise ValueError("the page has no end")
        return _VOLATILE_IN_PAGES.sub("", page) if exact else None
    text = path.read_bytes()
    return [line for line in text.split(b"\n") if not line.startswith(b"out = ")] if exact else None


def _stable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _stable(item) for key, item in value.items() if key not in _VOLATILE}
    if isinstance(value, list):
        return [_stable(item) for item in value]
    return Path(value).name if isinstance(value, str) and "/" in value else value  # each trial has its own folder


def judge(out: Path, whole: Path, code: int, *, exact: bool) -> dict[str, list[str]]:
    """Name what is torn, lost and left over, against an unbroken run."""
    found, wanted = files_of(out), files_of(whole)
    if not exact:  # a search may come to another model, which leaves other files
        wanted = {name: path for name, path in wanted.items() if name in ("a.safetensors", "a.run/result.json")}
    torn = []
    for name, path in found.items():
        try:
            same = name not in wanted or content(path, exact) == content(wanted[name], exact)
        except Exception as error:
            same = False
            name = f"{name}: {error}"
        if not same:
            torn.append(name)
    lost = [f"exit code {code}"] * (code != 0) + [name for name in wanted if name not in found]
    if not exact and not lost:
        history = json.loads((out / "a.run/result.json").read_text())["history"]
        metrics = out / "a.run/metrics.jsonl"
        lines = len(metrics.read_text().splitlines()) if metrics.exists() else 0
        lost += [f"{len(history)} epochs, {lines} lines"] if len(history) != lines else []
    spare = [name for name in found if name not in wanted] if exact else [
        name for name in found if "/search/" in name or Path(name).name.startswith((".", "pixels-"))
    ]  # fmt: skip
    return {"torn": torn, "lost": lost, "leftovers": spare}
