"""Sample data for the pages, drawn once, and a file tuned on them."""

from __future__ import annotations

import importlib.util
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import ROOT
from running import Session

from helpers.free_port import free_port
from helpers.ray_settings import ray_settings
from vpt.cli import main
from vpt.methods import METHODS


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos/, roads/, inbox/, new.jpg and street.png, as `make_data.py` draws them, but smaller."""
    spec = importlib.util.spec_from_file_location("make_data", ROOT / "docs" / "examples" / "make_data.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    root = tmp_path_factory.mktemp("sample")
    module.main(root, images=15)
    return root


@pytest.fixture(scope="session")
def tuned(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos.safetensors and its run directory."""
    folder = tmp_path_factory.mktemp("tuned")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shutil.copytree(sample / "photos", "photos")
        main(["tune", "photos/", "--out", "photos.safetensors", "--epochs", "6", "--batch-size", "16"])
    return folder


@pytest.fixture
def workspace(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder of a page: a copy of the sample data, and the script that draws them, as in a checkout."""
    monkeypatch.setenv("COLUMNS", "120")
    folder = tmp_path / "page"
    shutil.copytree(sample, folder)
    shutil.copytree(ROOT / "docs" / "examples", folder / "docs" / "examples")
    monkeypatch.chdir(folder)
    with ray_settings() as settings:
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        yield folder


@pytest.fixture
def session() -> Iterator[Session]:
    """A session with a free port."""
    opened, methods = Session(free_port()), dict(METHODS)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # of background jobs; servers would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield opened
    opened.close()
    METHODS.clear()  # a page may add a method of its own
    METHODS.update(methods)
