"""The calls of `import vpt`: tune, predict, evaluate, explain and embed on files and on images in memory."""

from __future__ import annotations

import gc
import inspect
import operator
import re
import subprocess
import sys
import weakref
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import vpt
from helpers.brightness import CLASSES, encoded
from vpt.tasks.registry import TASKS
from vpt.training.job import Job


def test_explain_image_in_memory_draws_and_returns_maps(result: vpt.RunResult, data: Any, tmp_path: Path) -> None:
    found = vpt.explain(result.file, data[0][1], block=2, out=tmp_path / "maps.png")
    assert found.prediction[0] == "light" and found.block == 2
    assert found.tuned.attention.shape == (4, 4)
    assert (tmp_path / "maps.png").stat().st_size > 1000
    photo = tmp_path / "photo.png"
    photo.write_bytes(encoded(data[0][1]))
    with pytest.raises(vpt.SpecError, match="the image itself, which would be lost"):
        vpt.explain(result.file, photo, out=photo)
    assert photo.read_bytes() == encoded(data[0][1])


def test_embed_arrays_draws_and_returns_points(result: vpt.RunResult, data: Any, tmp_path: Path) -> None:
    found = vpt.embed(result.file, {"test": data}, limit=12, out=tmp_path / "points.svg")
    assert found.after.points.shape == (12, 2) and found.classes == CLASSES
    assert {path.name for path in tmp_path.iterdir()} == {"points.svg", "points.csv"}


def test_embed_over_a_table_or_a_model_that_is_read_is_refused(result: vpt.RunResult, tmp_path: Path) -> None:
    table = tmp_path / "photos.csv"
    table.write_text("path,label\n")
    for out in (tmp_path / "photos.html", tmp_path / ".." / tmp_path.name / "photos.png"):
        with pytest.raises(vpt.SpecError, match=r"photos\.csv would be written, and .*photos\.csv is read from"):
            vpt.embed(result.file, f"{tmp_path / 'more.csv'},{table}", out=out)
    with pytest.raises(vpt.SpecError, match=r"photos\.csv would be written"):
        vpt.embed_to_file(result.file, table, table)
    model = tmp_path / "model.csv"
    model.write_bytes(Path(result.file).read_bytes())
    with pytest.raises(vpt.SpecError, match=r"model\.csv would be written"):
        vpt.embed(model, table, out=tmp_path / "model.svg")
    assert table.read_text() == "path,label\n" and not list(tmp_path.glob("*.html"))


def test_evaluate_keeps_no_model_unless_pictures_are_asked_for(result: vpt.RunResult, data: Any) -> None:
    tuned = vpt.load(result.file)
    kept, alive = vpt.evaluate(tuned, data, classes=CLASSES, pictures=True), weakref.ref(tuned)
    found = vpt.evaluate(tuned, data, classes=CLASSES)
    assert found.metrics == kept.metrics and found.pictures() == []
    del tuned
    gc.collect()
    assert alive() is not None and isinstance(kept.pictures(), list)
    del kept
    gc.collect()
    assert alive() is None


def test_tune_options_are_those_of_jobs_and_tasks() -> None:
    explicit = set(inspect.signature(vpt.tune).parameters) - {"options"}
    expected = {field.name for field in fields(Job)} - {"config", "options", "test"}
    for task in TASKS.values():
        expected |= task.config_class.option_names() | {field.name for field in fields(task.config_class.options_class)}
    own = {
        "task",
        "val",
        "test",
        "classes",
        "device",
        "progress",
        "callback",
        "overwrite",
        "minutes",
        "metric",
        "max_size",
    }
    assert explicit.isdisjoint(vpt.TuneOptions.__annotations__)
    assert explicit | set(vpt.TuneOptions.__annotations__) == expected | own


def test_import_gives_names_and_submodules_without_torch() -> None:
    code = (
        "import sys, vpt\n"
        "assert set(vpt.__all__) < set(dir(vpt))\n"
        "assert not {'torch', 'numpy', 'PIL', 'rich'} & set(sys.modules), 'import vpt'\n"
        "assert issubclass(vpt.errors.DataError, vpt.VptError)\n"
        "assert not {'torch', 'numpy'} & set(sys.modules), 'vpt.errors'\n"
        "vpt.testing.check_method, vpt.training.Examples\n"
        "for name in dir(vpt): getattr(vpt, name)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_of_the_reference_are_reached_from_the_package() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    names = re.findall(r"^\.\. (?:auto|py:)\w+:: vpt\.([\w.]+)$", page, re.MULTILINE)
    assert len(names) > 50 and "conversion.read_peft" in names
    assert {name.partition(".")[0] for name in names} | {"datasets", "export", "runtime"} <= set(dir(vpt))
    for name in names:
        if name.count(".") < 2:  # deeper modules are imported by name
            operator.attrgetter(name)(vpt)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'vpt' has no attribute 'tunes'"):
        vpt.tunes  # type: ignore[attr-defined]  # noqa: B018
