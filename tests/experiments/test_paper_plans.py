"""The paper's plans: their data, their grids, and each benchmark's own preprocessing."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vpt.backbones import DEFAULT
from vpt.datasets.catalog import BENCHMARKS, TASKS
from vpt.errors import DataError
from vpt.experiments.experiment import Experiment
from vpt.experiments.planning import file as plan_file
from vpt.experiments.planning.file import find_plan_file, load_experiment
from vpt.experiments.running.cost_estimate import estimate_cost
from vpt.experiments.selection import remaining_runs, runnable_runs
from vpt.methods import VPT, parse_method
from vpt.protocols import load_protocol


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


def experiment_of(name: str, data: Path, **changes: Any) -> Experiment:
    """A shipped plan on the embedded backbone, of larger images: AlexNet reads no smaller ones."""
    return load_experiment(find_plan_file(name), data, backbone=DEFAULT, image_size=72, **changes)


@pytest.mark.parametrize(("name", "tasks"), [("vtab", 19), ("fgvc", 5), ("paper-table1", 24), ("family", 24)])
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
    rows = [row["name"] for row in load_protocol("paper")["methods"]]
    narrow = [f"adapter(reduction={reduction})" for reduction in (8, 32, 64)]  # as the embedded backbone is
    rows[rows.index("Adapter")] = {"name": "Adapter", "spec": narrow}
    experiment = experiment_of("paper-table1", data, methods=rows)
    assert {row.name: len(row.settings) for row in experiment.methods} == {
        "Full": 16, "Linear": 40, "Partial-1": 16, "MLP-3": 40, "Sidetune": 40, "Bias": 16, "Adapter": 48,
        "VPT-shallow": 336, "VPT-deep": 240,
    }  # fmt: skip
    assert len(remaining_runs(experiment, {})) == 2 * (792 + 9 * 5)
    assert (experiment.baseline, experiment.protocol_name) == ("Full", "paper")
    assert [one.key for one in experiment.departures] == ["backbone", "image_size", "methods.Adapter.spec"]
    settings = {row.name: row.settings for row in experiment.methods}
    configs = {name: [setting.config for setting in found] for name, found in settings.items()}
    batches = {name: {config.training.batch_size for config in found} for name, found in configs.items()}
    assert batches == {
        "Full": {128}, "Linear": {2048}, "Partial-1": {1280}, "MLP-3": {2048}, "Sidetune": {128}, "Bias": {128},
        "Adapter": {128}, "VPT-shallow": {64, 128}, "VPT-deep": {64, 128},
    }  # fmt: skip
    every = [config for found in configs.values() for config in found]
    assert {(config.epochs, config.warmup_epochs) for config in every} == {(100, 10)}
    assert {name for name, found in configs.items() if found[0].training.optimizer == "adamw"} == {
        "Full", "Partial-1", "Bias", "Adapter",
    }  # fmt: skip
    # Each benchmark has its own preprocessing, and its own images of the final runs.
    jobs = {run.task.name: experiment.make_job(run, Path("out")) for run in runnable_runs(experiment, {})}
    assert (jobs["cub"].options.resize, jobs["cub"].config.augment) == ("crop", "random_crop")
    assert (jobs["dtd"].options.resize, jobs["dtd"].config.augment) == ("squash", "none")
    assert {task.name: task.group for task in experiment.tasks} == {"cub": "FGVC", "dtd": "Natural"}
    assert {row.name for row in experiment.methods if row.is_head_grid} == {"Linear", "MLP-3"}
    assert {job.head for job in jobs.values()} == {"linear(init=kaiming)"}
    assert parse_method(settings["Sidetune"][0].spec) == parse_method("sidetune(pretrained=true)")
    assert {(job.options.interpolation, job.normalization) for job in jobs.values()} == {("bilinear", "imagenet")}
    assert {name: job.options.crop_fraction for name, job in jobs.items()} == {"cub": 224 / 256, "dtd": None}
    full = experiment.row("Full")
    finals = {task.name: experiment.final_runs(task, full, full.settings[0])[0] for task in experiment.tasks}
    assert {name: run.config["train_on"] for name, run in finals.items()} == {"cub": "train", "dtd": "trainval"}


@pytest.mark.parametrize(("name", "rates", "shallow"), [("VPT-shallow", 14, True), ("VPT-deep", 10, False)])
def test_paper_protocol_of_prompts_sets_batch_and_dropout_by_length(
    data: Path, name: str, rates: int, shallow: bool
) -> None:
    row = experiment_of("vtab", data, methods=[name]).row(name)
    found = Counter((parse_method(setting.spec), setting.config.training.batch_size) for setting in row.settings)
    depth, dropout = ("shallow", 0.0) if shallow else ("deep", 0.1)
    assert found == {
        (VPT(length=length, depth=depth, dropout=dropout), 128 if length < 100 else 64): rates * 4
        for length in (1, 5, 10, 50, 100, 200)
    }
    assert max(setting.config.training.learning_rate for setting in row.settings) == (1000 if shallow else 50)


def test_fgvc_plan_on_its_backbone_has_the_images_of_the_benchmark(tmp_path: Path) -> None:
    """Without data and weights: CUB's final runs train on 5,394 images, not on 5,994."""
    experiment = load_experiment(find_plan_file("fgvc"), for_estimate=True)
    assert (experiment.backbone, experiment.parameters) == ("vit_base_patch16_224.orig_in21k", 85_798_656)
    assert experiment.departures == () and {row.refusal for row in experiment.methods} == {""}
    assert {task.name: tuple(task.images.values()) for task in experiment.tasks} == {
        "cub": (5394, 600, 5794), "nabirds": (21536, 2393, 24633), "flowers": (1020, 1020, 6149),
        "dogs": (10800, 1200, 8580), "cars": (7329, 815, 8041),
    }  # fmt: skip
    full = experiment.row("Full")
    for task in experiment.tasks:
        job = experiment.make_job(experiment.final_runs(task, full, full.settings[0])[0], tmp_path / "out")
        assert (job.train_on, job.options.resize, job.config.augment) == ("train", "crop", "random_crop")
        assert task.notes == (f"not prepared; vpt data prepare {task.name} --from DOWNLOADS --out FOLDER",)


def test_estimate_of_a_plan_without_data_counts_runs_and_images() -> None:
    """By hand: 40 settings on train, and 5 seeds on train and val, of 100 epochs on each of the 19 tasks."""
    path = find_plan_file("vtab")
    experiment = load_experiment(path, for_estimate=True, methods=["Linear"])
    found = estimate_cost(experiment, images_per_second=300)
    assert found.runs == 19 * (40 + 5)
    assert found.images == 19 * 100 * (40 * 800 + 5 * 1000)
    tests = sum(task.images["test"] for task in experiment.tasks)
    forward = 19 * (800 + 1000 + 200) + tests  # the backbone sees each image once for all runs, and the head is free
    assert found.total_seconds == pytest.approx(forward / 300 / 3)


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


def test_load_experiment_of_a_benchmark_and_a_file_has_the_tasks_of_both(data: Path) -> None:
    (data.parent / "tasks.toml").write_text('tasks = [{ name = "mine", data = "data/dtd" }]')
    path = data.parent / "mine.toml"
    path.write_text('benchmark = ["tasks.toml", "fgvc"]\ndata = "data"\nmethods = ["linear"]\n')
    assert {task.name: task.data for task in load_experiment(path).tasks} == {
        "cub": str(data / "cub"), "mine": str(data / "dtd"),
    }  # fmt: skip


def test_family_plan_gives_every_method_the_same_epochs_and_rates_to_choose_from(data: Path) -> None:
    """Twenty rows; VIPAMIN's share outside of attention needs more channels than the embedded backbone has."""
    narrow = {"VIPAMIN": "vpt(length=50, init=vipamin, expansion=0)"}
    rows = tomllib.loads(find_plan_file("family").read_text())["methods"]
    experiment = experiment_of(
        "family", data, methods=[{**row, "spec": narrow.get(row["name"], row["spec"])} for row in rows]
    )
    assert len(experiment.methods) == 20 and experiment.baseline == "Full" and experiment.protocol.seeds == 5
    assert {row.refusal for row in experiment.methods} == {""}
    settings = {row.name: len(row.settings) for row in experiment.methods}
    assert {name for name, count in settings.items() if count != 3} == {"Ridge, last 4 blocks"}
    every = [setting.config for row in experiment.methods for setting in row.settings]
    assert {(config.epochs, config.warmup_epochs, config.training.batch_size) for config in every} == {(100, 10, 64)}
    jobs = {run.task.name: experiment.make_job(run, Path("out")) for run in runnable_runs(experiment, {})}
    assert {name: (job.options.resize, job.options.crop_fraction) for name, job in jobs.items()} == {
        "cub": ("crop", 224 / 256), "dtd": ("squash", None),
    }  # fmt: skip
