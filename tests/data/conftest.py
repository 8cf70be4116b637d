"""Tiny images, each with bytes of its own."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import pytest
from PIL import Image


class Draw(Protocol):
    def __call__(self, *paths: str, color: tuple[int, int, int] | None = None) -> Path: ...


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Write a 10 x 12 image to each path below the returned root; a new color each, unless one is given."""
    fresh = count(1)

    def draw(*paths: str, color: tuple[int, int, int] | None = None) -> Path:
        for path in paths:
            number = next(fresh)
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (10, 12), color or (number % 256, number // 256, 7)).save(file)
        return tmp_path

    return draw


@pytest.fixture
def make_unreadable(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Take away the permission to read a file or a folder."""

    def close(path: Path) -> None:
        path.chmod(0)
        if os.geteuid() == 0:  # root may read what a mode forbids, so the calls that read refuse
            monkeypatch.setattr(Path, "open", _refuse_for(path, Path.open))
            for name in ("listdir", "scandir"):
                monkeypatch.setattr(os, name, _refuse_for(path, getattr(os, name)))

    return close


def _refuse_for(closed: Path, call: Callable[..., Any]) -> Callable[..., Any]:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        if args and isinstance(args[0], (str, Path)) and Path(args[0]) == closed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(closed))
        return call(*args, **kwargs)

    return refuse
