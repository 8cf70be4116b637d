"""Several folders in one report: only those whose figures mean the same."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from vpt.cli.bench import command
from vpt.errors import DataError
from vpt.experiments.results import load_results
from vpt.experiments.store import Store
from vpt.protocols import Departure


def copy_of(done: Store, folder: Path, **changes: Any) -> Store:
    """The same runs under other names, and with other fields of the experiment."""
    shutil.copytree(done.folder, folder)
    experiment = done.load_experiment()
    methods = tuple(replace(row, name=f"{row.name} 2") for row in experiment.methods)
    store = Store(folder)
    store.save_experiment(replace(experiment, **{"name": "other", "methods": methods, "baseline": None, **changes}))
    return store


def test_load_results_of_two_folders_has_the_methods_of_both(done: Store, tmp_path: Path) -> None:
    other = copy_of(done, tmp_path / "other")
    one, two = load_results(done), load_results(done, other)
    assert two.methods == ["Full", "VPT", "Full 2", "VPT 2"] and two.experiment.baseline == "Full"
    assert two.means("VPT 2") == two.means("VPT") == one.means("VPT")
    assert two.differences("VPT 2") == one.differences("VPT")
    assert len(two.records) == 2 * len(one.records)
    folders = [str(done.folder), str(other.folder), "--out", str(tmp_path / "report")]
    CliRunner().invoke(command, ["report", *folders], catch_exceptions=False)
    assert "| VPT 2 |" in (tmp_path / "report" / "report.md").read_text()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"protocol_name": "paper"}, "small and other cannot be compared: protocol is None in one and paper in the"),
        ({"departures": (Departure("training.epochs", 100, 2),)}, "departures is {} in one and {'training.epochs': 2}"),
        ({"backbone": "vit_tiny_patch16_224"}, "backbone is vit_nano_patch12_48 in one and vit_tiny_patch16_224"),
        ({"tasks": ()}, r"data is \{'shade': .* in one and \{\} in the other"),
    ],
)
def test_load_results_across_protocols_or_conditions_is_refused(
    done: Store, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        load_results(done, copy_of(done, tmp_path / "other", **changes))


def test_load_results_of_equal_methods_is_refused(done: Store) -> None:
    with pytest.raises(DataError, match="small and small both have the method 'Full'; rename one"):
        load_results(done, done)


@pytest.mark.parametrize(
    "change", [{"classes": 3}, {"augment": "flip"}, {"epochs": 9}, {"mask_options": {"reduce_zero_label": True}}]
)
def test_load_results_of_tasks_with_other_conditions_is_refused(
    done: Store, tmp_path: Path, change: dict[str, Any]
) -> None:
    shade, hue = done.load_experiment().tasks
    with pytest.raises(DataError, match="cannot be compared: tasks is"):
        load_results(done, copy_of(done, tmp_path / "other", tasks=(replace(shade, **change), hue)))
