"""Lists and plans read nothing outside their folder, unless the user allows it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vpt.core.input_files import OUTSIDE_VARIABLE
from vpt.data.loading import load_dataset
from vpt.data.tables.images import read_table_images
from vpt.errors import VptError
from vpt.experiments.planning.file import load_experiment

PLAN = 'methods = ["linear"]\n[training]\nepochs = 1\n[[tasks]]\nname = "photos"\n'


def write_photos(root: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(10):
        path = root / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(path)


def write_listing(root: Path, kind: str, prefix: str) -> Callable[[], object]:
    """Write a list or a plan whose paths begin with a prefix, and return a call that reads it."""
    folder = root / "given"
    folder.mkdir()
    names = [f"{prefix}/photos/{'ab'[number % 2]}/{number}.png" for number in range(10)]
    if kind == "list":
        (folder / "train.txt").write_text("".join(f"{name} {number % 2}\n" for number, name in enumerate(names)))
        return lambda: load_dataset(folder, val_fraction=0, test_fraction=0)
    if kind in ("table", "images"):
        rows = [{"image": name, "label": "ab"[number % 2]} for number, name in enumerate(names)]
        (folder / "labels.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return (lambda: load_dataset(folder)) if kind == "table" else lambda: read_table_images(folder / "labels.jsonl")
    plan = folder / "plan.toml"
    if kind == "benchmark":
        (root / "photos" / "tasks.toml").write_text(f'tasks = [{{ name = "photos", data = "{root}/photos" }}]')
        plan.write_text(f'benchmark = "{prefix}/photos/tasks.toml"\n{PLAN.partition("[[tasks]]")[0]}')
    else:
        plan.write_text(f'{PLAN}data = "{prefix}/photos"\n')
    return lambda: load_experiment(plan)


@pytest.mark.parametrize("kind", ["list", "table", "images", "plan", "benchmark"])
@pytest.mark.parametrize("prefix", ["..", "absolute"])
def test_paths_outside_the_folder_are_read_if_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, prefix: str
) -> None:
    write_photos(tmp_path)
    read = write_listing(tmp_path, kind, str(tmp_path) if prefix == "absolute" else prefix)
    with pytest.raises(
        VptError, match=rf"lies outside the folder.*; link its folder into this one, or set {OUTSIDE_VARIABLE}"
    ):
        read()
    monkeypatch.setenv(OUTSIDE_VARIABLE, "1")
    read()


@pytest.mark.parametrize("kind", ["list", "table", "images", "plan"])
def test_paths_through_a_link_in_the_folder_are_read(tmp_path: Path, kind: str) -> None:
    write_photos(tmp_path)
    read = write_listing(tmp_path, kind, ".")
    (tmp_path / "given" / "photos").symlink_to(tmp_path / "photos")
    read()


def test_weights_outside_the_folder_of_a_plan_are_refused(tmp_path: Path) -> None:
    write_photos(tmp_path)
    (tmp_path / "w.npz").write_bytes(b"")
    (tmp_path / "plan").mkdir()
    (tmp_path / "plan" / "plan.toml").write_text(f'weights = "../w.npz"\n{PLAN}data = "digits"\n')
    with pytest.raises(VptError, match=r"'\.\./w\.npz' lies outside the folder of the plan"):
        load_experiment(tmp_path / "plan" / "plan.toml")


@pytest.mark.parametrize("kind", ["table", "images", "plan"])
def test_paths_behind_a_link_and_back_are_refused(tmp_path: Path, kind: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "linked").mkdir(parents=True)
    write_photos(elsewhere / "private")
    write_photos(tmp_path)
    read = write_listing(tmp_path, kind, "linked/../private")
    (tmp_path / "given" / "linked").symlink_to(elsewhere / "linked")
    with pytest.raises(VptError, match="lies outside the folder"):
        read()


def test_variable_other_than_1_allows_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_photos(tmp_path)
    monkeypatch.setenv(OUTSIDE_VARIABLE, "0")
    with pytest.raises(VptError, match="lies outside the folder"):
        write_listing(tmp_path, "plan", "..")()
