"""Methods of the tests, known by their names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from helpers.extensions import FromTokens, GatedKeys, OfImage, OtherKeys, Penalized
from vpt import METHODS


@pytest.fixture
def extensions(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for kind in (Penalized, FromTokens, GatedKeys, OfImage, OtherKeys):
        monkeypatch.setitem(METHODS, kind.name, kind)
    yield
