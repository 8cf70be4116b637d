"""Rows of `methods` in a plan: their settings, and keys that replace those of the plan."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from vpt.errors import SpecError, VptError
from vpt.experiments.experiment import Experiment
from vpt.experiments.selection import remaining_runs, runnable_runs

ExperimentOf = Callable[..., Experiment]


def test_method_with_several_specs_has_a_setting_for_each(experiment_of: ExperimentOf) -> None:
    experiment = experiment_of(('"vpt(length=1)"', '["vpt(length=1)", "vpt(length=2)"]'))
    assert len(experiment.methods[1].settings) == 4
    assert len({setting.spec for setting in experiment.methods[1].settings}) == 2


def test_method_with_grid_and_own_keys_overrides_the_grid(experiment_of: ExperimentOf) -> None:
    grid = '[grids.own]\noptimizer = "sgd"\nlearning_rate = [5, 1]\nweight_decay = [0.1, 0]\nepochs = 3\n[training]'
    experiment = experiment_of(
        ("[training]", grid), ('spec = "full"', 'spec = "full", grid = "own", epochs = 4, weight_decay = 0.2')
    )
    configs = [setting.config for setting in experiment.methods[0].settings]
    assert [
        (r.training.learning_rate, r.training.weight_decay, r.num_epochs, r.training.batch_size) for r in configs
    ] == [
        (5, 0.2, 4, 8),
        (1, 0.2, 4, 8),
    ]
    assert {config.training.optimizer for config in configs} == {"sgd"}
    assert configs[0].warmup_epochs == 0.4


def test_method_with_task_settings_uses_them_on_that_task(experiment_of: ExperimentOf) -> None:
    change = ('spec = "full"', 'spec = "full", weight_decay = 0.5, task = { hue = { weight_decay = [0.1, 0.2] } }')
    experiment = experiment_of(change)
    row, (shade, hue) = experiment.methods[0], experiment.tasks
    assert [setting.config.training.weight_decay for setting in row.settings_for(shade)] == [0.5]
    assert [setting.config.training.weight_decay for setting in row.settings_for(hue)] == [0.1, 0.2]
    assert (len(experiment.search_runs(shade, row)), len(experiment.search_runs(hue, row))) == (0, 2)
    assert Experiment.from_dict(json.loads(json.dumps(experiment.to_dict()))) == experiment


def test_method_with_job_options_applies_them_to_its_runs_only(experiment_of: ExperimentOf, folder: Path) -> None:
    options = "image_size = 60, train_fraction = 0.5, split_seed = 3"
    experiment = experiment_of(('spec = "full"', f'spec = "full", {options}'))
    jobs = {run.method: experiment.make_job(run, folder / "out") for run in runnable_runs(experiment, {})}
    own, other = jobs["Full"], jobs["VPT"]
    assert (own.image_size, own.to_dict()["train_fraction"], own.split_seed) == (60, 0.5, 3)
    assert (other.image_size, other.to_dict()["train_fraction"], other.split_seed) == (None, 1.0, 0)
    row = experiment.methods[0]
    assert row.fingerprint not in (None, experiment.fingerprint) and experiment.methods[1].fingerprint is None
    assert row.parameters == experiment.parameters + 9 * 128 and experiment.methods[1].parameters is None
    ours = {run.id for run in experiment.final_runs(experiment.tasks[0], row, row.settings[0])}
    whole = experiment_of(('"small"', '"small"\nimage_size = 60\ntrain_fraction = 0.5\nsplit_seed = 3'))
    assert ours == {run.id for run in whole.final_runs(whole.tasks[0], whole.methods[0], row.settings[0])}


def test_method_with_its_own_head_changes_only_its_runs(experiment_of: ExperimentOf, folder: Path) -> None:
    plain, head = experiment_of(), "multi_block(blocks=last2)"
    experiment = experiment_of(('spec = "full"', f'spec = "full", head = "{head}"'))
    jobs = {run.method: experiment.make_job(run, folder / "out") for run in runnable_runs(experiment, {})}
    assert (jobs["Full"].head, jobs["VPT"].head) == (head, None)
    run_ids = [{(run.method, run.id) for run in runnable_runs(one, {})} for one in (plain, experiment)]
    assert {method for method, _ in run_ids[0] & run_ids[1]} == {"VPT"}
    assert {method for method, _ in run_ids[1] - run_ids[0]} == {"Full"}
    assert Experiment.from_dict(json.loads(json.dumps(experiment.to_dict()))) == experiment


def test_unsupported_method_with_report_is_listed_and_not_raised(experiment_of: ExperimentOf) -> None:
    wrong = ('spec = "full"', 'spec = "partial(k=99)"')
    with pytest.raises(VptError, match="k is 99"):
        experiment_of(wrong)
    experiment = experiment_of(wrong, ("seeds = 2", 'seeds = 2\nunsupported = "report"'))
    assert "k is 99" in experiment.methods[0].refusal and not experiment.methods[1].refusal
    assert {run.method for run in runnable_runs(experiment, {})} == {"VPT"}
    assert len(remaining_runs(experiment, {})) == 8
    with pytest.raises(SpecError, match=r"no method can be run; the first one is refused: .*k is 99"):
        experiment_of(wrong, ('"vpt(length=1)"', '"partial(k=98)"'), ("seeds = 2", 'unsupported = "report"'))
