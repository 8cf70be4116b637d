"""The paper's plans: their data, their grids, and each benchmark's own preprocessing."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from vpt.datasets.catalog import BENCHMARKS, TASKS
from vpt.errors import DataError
from vpt.experiments import plan_file
from vpt.experiments.experiment import Experiment
from vpt.experiments.plan_file import find_plan_file, load_experiment
from vpt.experiments.search import remaining_runs, runnable_runs


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two tiny tasks, one of each benchmark, prepared; the benchmarks have no others."""
    small = {}
    for name, test in (("dtd", 2), ("cub", 2)):
        folder = tmp_path / "data" / name
        for part, count in (("train", 4), ("val", 2), ("test", test)):
            rows = [f"images/{part}/{'ab'[i % 2]}/{i}.png {i % 2}" for i in range(count)]
            for i, row in enumerate(rows):
                path = folder / row.split()[0]
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (9, 9), (40 * i, len(part), len(name))).save(path)
            (folder / f"{part}.txt").write_text("\n".join(rows))
        published = {"train": 4, "validation": 2, "test": test}
        given = replace(TASKS["flowers"].split_spec, limits=None)
        small[name] = replace(TASKS[name], classes=2, published_sizes=published, split_spec=given)
    monkeypatch.setitem(BENCHMARKS, "vtab", (small["dtd"],))
    monkeypatch.setitem(BENCHMARKS, "fgvc", (small["cub"],))
    return tmp_path / "data"


def experiment_of(name: str, data: Path, *changes: tuple[str, str]) -> Experiment:
    """A shipped plan on the embedded backbone, with some of its text replaced."""
    text = re.sub(
        "(?m)^backbone = .*$", "image_size = 72", find_plan_file(name).read_text()
    )  # AlexNet reads no smaller ones
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = data.parent / f"{name}.toml"
    path.write_text(text)
    return load_experiment(path, data)


@pytest.mark.parametrize(("name", "tasks"), [("vtab", 19), ("fgvc", 5), ("paper-table1", 24)])
def test_load_experiment_without_data_names_the_commands_to_prepare_it(name: str, tasks: int, tmp_path: Path) -> None:
    named = json.dumps(tomllib.loads(find_plan_file(name).read_text())["benchmark"])
    path = tmp_path / "short.toml"  # the same benchmarks; trying all methods on ViT-B takes long
    path.write_text(f'benchmark = {named}\nmethods = ["linear"]\n')
    for data, where in ((tmp_path, f"not in {tmp_path}"), (None, "no folder was named: give --data FOLDER")):
        with pytest.raises(DataError) as caught:
            load_experiment(path, data)
        text = str(caught.value)
        assert f"{tasks} tasks are not there, {where}" in text
        assert text.count("vpt data prepare ") == tasks


def test_paper_table1_plan_has_the_grids_and_preprocessing_of_the_paper(data: Path) -> None:
    experiment = experiment_of(
        "paper-table1", data, ("reduction=256", "reduction=32")
    )  # the embedded backbone is narrow
    assert {row.name: len(row.settings) for row in experiment.methods} == {
        "Full": 16, "Linear": 40, "Partial-1": 16, "MLP-3": 40, "Sidetune": 40, "Bias": 16, "Adapter": 48,
        "VPT-shallow": 240, "VPT-deep": 240,
    }  # fmt: skip
    assert len(remaining_runs(experiment, {})) == 2 * (696 + 9 * 5)
    assert experiment.baseline == "Full"
    configs = {row.name: row.settings[0].config for row in experiment.methods}
    batches = {name: config.training.batch_size for name, config in configs.items()}
    assert [batches[name] for name in ("Full", "Linear", "Partial-1", "Bias", "Adapter")] == [128, 2048, 1280, 128, 128]
    assert {(config.epochs, config.warmup_epochs) for config in configs.values()} == {(100, 10)}
    assert {name for name, config in configs.items() if config.training.optimizer == "adamw"} == {
        "Full", "Partial-1", "Bias", "Adapter",
    }  # fmt: skip
    # Each benchmark has its own preprocessing.
    jobs = {run.task.name: experiment.make_job(run, Path("out")) for run in runnable_runs(experiment, {})}
    assert (jobs["cub"].options.resize, jobs["cub"].config.augment) == ("crop", "random_crop")
    assert (jobs["dtd"].options.resize, jobs["dtd"].config.augment) == ("squash", "none")
    assert {task.name: task.group for task in experiment.tasks} == {"cub": "FGVC", "dtd": "Natural"}
    assert {job.options.interpolation for job in jobs.values()} == {"bilinear"}


def test_run_ids_with_preprocessing_of_one_task_change_for_it_only(data: Path) -> None:
    plans = []
    for own in ("", 'augment = "flip"'):
        path = data.parent / "mine.toml"
        more = f'[[tasks]]\nname = "more"\ndata = "data/dtd"\n{own}\n'
        path.write_text(f'benchmark = "fgvc"\ndata = "data"\nmethods = ["linear"]\n{more}')
        plans.append(load_experiment(path))
    ids = [{run.id for run in runnable_runs(experiment, {})} for experiment in plans]
    of_cub = [{run.id for run in runnable_runs(experiment, {}) if run.task.name == "cub"} for experiment in plans]
    assert of_cub[0] == of_cub[1] == ids[0] & ids[1]
    assert Experiment.from_dict(plans[1].to_dict()) == plans[1]


def test_load_experiment_of_incomplete_task_is_refused(data: Path) -> None:
    (data / "dtd" / "val.txt").write_text("images/val/a/0.png 0\n")
    path = data.parent / "mine.toml"
    path.write_text('benchmark = "vtab"\ndata = "data"\nmethods = ["linear"]\n')
    with pytest.raises(DataError, match="dtd: val has 1 images instead of 2"):
        load_experiment(path)


def test_load_experiment_with_data_in_the_plan_uses_that_folder(data: Path) -> None:
    path = data.parent / "mine.toml"
    path.write_text('benchmark = "fgvc"\ndata = "data"\nmethods = ["linear"]\n')
    assert [task.data for task in load_experiment(path).tasks] == [str(data / "cub")]
    assert plan_file.builtin_plans()["fgvc"].is_file()
