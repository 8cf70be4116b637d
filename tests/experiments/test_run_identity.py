"""What names the runs of a plan, and what changes their names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from vpt.experiments.experiment import Experiment
from vpt.experiments.planning.file import load_experiment
from vpt.experiments.selection import runnable_runs

ExperimentOf = Callable[..., Experiment]


def ids(experiment: Experiment) -> set[str]:
    """Of the runs that can be done at once, and of the final ones of the first settings."""
    finals = {run.id for task, row in experiment.cells() for run in experiment.final_runs(task, row, row.settings[0])}
    return {run.id for run in runnable_runs(experiment, {})} | finals


def test_run_ids_of_equal_plans_are_equal(
    experiment_of: ExperimentOf, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = experiment_of()
    assert ids(experiment) == ids(experiment_of()) == ids(Experiment.from_dict(experiment.to_dict()))
    monkeypatch.chdir(folder)
    assert ids(load_experiment(Path("plan.toml"))) == ids(experiment)
    for change in (("seeds = 2", "seeds = 2\nkeep_tuned = false"), ('"Light"', '"Other"'), ('"Full"', '"All of it"')):
        assert ids(experiment_of(change)) == ids(experiment)


@pytest.mark.parametrize(
    "change",
    [
        ("epochs = 1", "epochs = 2"),
        ("batch_size = 8", "batch_size = 4"),
        ("epochs = 1", 'epochs = 1\naugment = "flip"'),
        ("epochs = 1", "epochs = 1\nweight_decay = 0.5"),
        ('"small"', '"small"\ntrain_fraction = 0.5'),
        ('"small"', '"small"\nsplit_seed = 1'),
        ('"small"', '"small"\ninterpolation = "nearest"'),
        ('"small"', '"small"\nimage_size = 60'),
        ('"small"', '"small"\ncrop_fraction = 0.5'),
        ('"small"', '"small"\nnormalization = "imagenet"'),
        ('"small"', '"small"\nnormalization = "0.5,0.5,0.4/0.2,0.2,0.2"'),
    ],
)
def test_run_ids_with_changed_training_options_all_change(change: tuple[str, str], experiment_of: ExperimentOf) -> None:
    assert not ids(experiment_of(change)) & ids(experiment_of())


def test_run_ids_with_changed_method_weights_or_seed_change(experiment_of: ExperimentOf) -> None:
    experiment = experiment_of()
    assert len(ids(experiment)) == 12  # the seeds differ
    assert len(ids(experiment_of(("length=1", "length=2"))) - ids(experiment)) == 8
    assert not ids(replace(experiment, fingerprint="sha256:other")) & ids(experiment)
    assert ids(experiment) < ids(replace(experiment, protocol=replace(experiment.protocol, seeds=3)))


def test_run_ids_with_changed_crop_version_change_for_crops_only(
    experiment_of: ExperimentOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a new way of cutting does not touch is not done again."""
    cropped = ("epochs = 1", 'epochs = 1\naugment = "random_crop"')
    centered = ("seeds = 2", 'seeds = 2\nresize = "crop"')
    before = {change: ids(experiment_of(*change)) for change in ((), (cropped,), (centered,))}
    monkeypatch.setattr("vpt.experiments.experiment.CROP_VERSION", 4)
    assert ids(experiment_of()) == before[()]
    assert not ids(experiment_of(cropped)) & before[(cropped,)]
    assert not ids(experiment_of(centered)) & before[(centered,)]


def test_run_ids_with_changed_files_change_for_their_stage_only(experiment_of: ExperimentOf, folder: Path) -> None:
    before = experiment_of()
    image = folder / "shade" / "test" / "a" / "0.png"
    image.rename(image.with_name("new.png"))
    after = experiment_of()
    stages = [
        [run.id for run in runnable_runs(experiment, {}) if run.stage == "search"] for experiment in (before, after)
    ]
    assert stages[0] == stages[1]
    assert len(ids(before) - ids(after)) == 4  # the final runs of that task
    (folder / "shade" / "train" / "a" / "0.png").write_bytes(image.with_name("new.png").read_bytes() + b" ")
    assert len(ids(after) - ids(experiment_of())) == 6
