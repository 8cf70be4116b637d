"""Plans: what they say, and what is refused."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from vpt.errors import DataError, SpecError, VptError
from vpt.experiments.experiment import Experiment
from vpt.experiments.planning.file import builtin_plans, find_plan_file, load_experiment
from vpt.experiments.planning.schema import plan_model
from vpt.experiments.planning.validation import ErrorCollector, read_toml, validate
from vpt.experiments.running.worker import run_worker
from vpt.experiments.selection import remaining_runs, runnable_runs
from vpt.experiments.store import Store
from vpt.protocols import Departure, apply_protocol

ExperimentOf = Callable[..., Experiment]
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
BENCHMARK_PLANS = [path for path in sorted(BENCHMARKS.glob("*.toml")) if "methods" in tomllib.loads(path.read_text())]


def test_runnable_runs_of_a_plan_are_searches_and_finals(experiment_of: ExperimentOf) -> None:
    experiment = experiment_of()
    runs = runnable_runs(experiment, {})
    assert [(run.task.name, run.method, run.stage, run.setting.config.training.seed) for run in runs[:4]] == [
        ("shade", "Full", "final", 0),  # one setting: nothing to choose
        ("shade", "Full", "final", 1),
        ("shade", "VPT", "search", 0),
        ("shade", "VPT", "search", 0),
    ]
    assert (len(runs), len(remaining_runs(experiment, {}))) == (8, 12)
    assert experiment.baseline == "Full"
    choose, final = (experiment.make_job(run, Path("out")) for run in (runs[2], runs[0]))
    assert (choose.train_on, choose.test, final.train_on, final.test) == ("train", False, "trainval", True)
    assert choose.split_seed == final.split_seed == 0


def test_plan_with_benchmark_file_reads_its_tasks(folder: Path) -> None:
    (folder / "lists").mkdir()
    (folder / "lists" / "tasks.toml").write_text('tasks = [{ name = "hue", data = "../hue" }, { name = "digits" }]')
    (folder / "other.toml").write_text('benchmark = "lists/tasks.toml"\nmethods = ["linear"]')
    experiment = load_experiment(folder / "other.toml")
    assert [(task.name, task.data) for task in experiment.tasks] == [("hue", str(folder / "hue")), ("digits", "digits")]
    assert (experiment.name, experiment.methods[0].name, experiment.baseline, experiment.protocol.seeds) == (
        "other",
        "linear",
        None,
        5,
    )
    assert experiment.tasks[1].images == {"train": 400, "val": 100, "test": 1297}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("seeds = 2", "sedes = 2"), "a plan has the key 'sedes', which has no meaning here; did you mean 'seeds'"),
        (("epochs = 1", "epoch = 1"), "training has the key 'epoch'.*did you mean 'epochs'"),
        (("group", "gruop"), "did you mean 'group'"),
        (("learning_rate", "learning_rat"), "did you mean 'learning_rate'"),
        (("length=1", "lenght=1"), "did you mean 'length'"),
        (('data = "hue"', 'data = "heu"'), "neither a folder"),
        (('spec = "full"', 'spec = "full", grid = "no"'), r"there is no grid 'no'; add a table \[grids\.no\]$"),
        (('name = "hue"', 'name = "shade"'), "two tasks are called 'shade'"),
        (('"VPT"', '"Full"'), "two methods are called 'Full'"),
        (("seeds = 2", 'seeds = 2\nbaseline = "Fool"'), "did you mean 'Full'"),
        (("seeds = 2", "seeds = 0"), "seeds is 0; it must be greater than or equal to 1"),
        (("seeds = 2", 'resize = "squish"'), "did you mean 'squash'"),
        (("seeds = 2", 'selection = "best_epoch"'), "selection is 'best_epoch'; .*last_epoch"),
        (("seeds = 2", 'ties = "larger_rate"'), "did you mean 'smaller_rate'"),
        (("seeds = 2", "crop_fraction = 1.5"), "crop_fraction is 1.5; it must be less than or equal to 1"),
        (("seeds = 2", 'normalization = "imagnet"'), "did you mean 'imagenet'"),
        (("seeds = 2", 'normalization = "0.5,0.5,0.5/1,1"'), "has 3 means and 2 standard deviations"),
        (("epochs = 1", 'epochs = "1"'), "training.epochs is '1'; it must be a valid integer"),
        (("epochs = 1", "epochs = 0"), "epochs is 0"),
        (("epochs = 1", "epochs = 2.5"), "training.epochs is 2.5; it must be a valid integer"),
        (("seeds = 2", "seeds = 2\nweights = 5"), "weights is 5; it must be a valid string"),
        (("seeds = 2", 'seeds = 2\nval_fraction = "0.2"'), "val_fraction is '0.2'; it must be a valid number"),
        (("seeds = 2", "seeds = 2\ngrids = 5"), "grids is 5; it must be a valid dictionary"),
        (('spec = "full"', "spec = 5"), r"methods\[1\].spec\[1\] is 5; it must be a valid string"),
        (('spec = "full"', 'ensemble_of = "full"'), "'Full' is an ensemble of 'full', which is no method; known: VPT"),
        (('spec = "full"', 'group = "full"'), r"methods\[1\] has the key 'group'"),
        (('spec = "full"', "epochs = 2"), "the method 'Full' needs one of spec, variants and ensemble_of"),
        (('spec = "full"', 'spec = "full", task = { heu = { epochs = 2 } }'), "has keys for 'heu'; did you mean 'hue'"),
        (
            ('spec = "full"', 'spec = "full", task = { hue = { epoch = 2 } }'),
            r"methods\[1\].task.hue has the key 'epoch'",
        ),
        (("seeds = 2", 'seeds = 2\nsplit_seed = "run"'), "'VPT' has several settings, and with split_seed"),
        (
            ('spec = "full"', 'spec = "full", head = "fpn"'),
            "'fpn' is no head of classification; known: linear, multi_bl",
        ),
        (
            ('{ name = "Full"', '{ name = "Both", ensemble_of = "Full", epochs = 9 }, { name = "Full"'),
            "the ensemble 'Both' gives epochs, which changes nothing: it scores the runs of 'Full'; give it there",
        ),
        (
            ("[training]", '[benchmarks.vtabb]\nresize = "crop"\n[training]'),
            "has keys for the benchmark 'vtabb', which is none; did you mean 'vtab'",
        ),
        (("seeds = 2", 'seeds = 2\ndata = "vtab/"'), "has no benchmark of vpt, and vtab/ is the folder of the tasks"),
        (("seeds = 2", "seeds ="), "is not TOML"),
        (("seeds = 2", "train_fraction = 0"), "train_fraction is 0; it must be greater than 0"),
        (("seeds = 2", "train_fraction = 2.0"), "train_fraction is 2.0; it must be less than or equal to 1"),
        (("seeds = 2", "train_fraction = nan"), "train_fraction is nan; it must be "),
        (("seeds = 2", 'split_seed = "runs"'), "split_seed is 'runs'; it must be a whole number from 0, or \"run\"$"),
        (('spec = "full"', 'spec = "full", split_seed = -1'), r"methods\[1\].split_seed is -1; it must be a whole num"),
        (('spec = "full"', 'spec = "full", train_fraction = 1.5'), r"methods\[1\].train_fraction is 1.5; it must be"),
        *(
            (
                ('spec = "full"', f'spec = "full", ridge = {value}'),
                r"ridge is .*; it must be a number above 0, or \"auto\"$",
            )
            for value in ('"autp"', "-1.0", "0", "nan")
        ),
        (('{ name = "Full", spec = "full" }', "5"), r"methods\[1\] is 5; it must be a table$"),
        (("epochs = 1", "lr = 0.1"), "training has the key 'lr', .*did you mean 'learning_rate'"),
    ],
)
def test_plan_with_invalid_value_is_refused(change: tuple[str, str], message: str, experiment_of: ExperimentOf) -> None:
    with pytest.raises(VptError, match=message):
        experiment_of(change)


def test_plan_of_task_without_val_images_is_refused(experiment_of: ExperimentOf, folder: Path) -> None:
    (folder / "hue" / "val").rename(folder / "val of hue")
    with pytest.raises(DataError, match=r"'hue' has no val images to choose settings on.*val_fraction"):
        experiment_of(("seeds = 2", "val_fraction = 0.0"))


@pytest.mark.parametrize("source", ["", 'settings_from = "shade", ', 'settings_from = "shade", train_on = "train", '])
def test_plan_that_would_score_the_images_that_choose_is_refused(
    source: str, experiment_of: ExperimentOf, folder: Path
) -> None:
    shutil.rmtree(folder / "hue" / "test")
    plan = ("seeds = 2", "seeds = 2\ntest_fraction = 0.0" + ("" if "train_on" in source else '\ntrain_on = "train"'))
    task = ('name = "hue", data', f'name = "hue", {source}data')
    if "shade" in source:
        shutil.rmtree(folder / "shade" / "val")
        shutil.copytree(folder / "hue" / "val", folder / "shade" / "val")
    with pytest.raises(DataError, match=r"'hue' has no test .* scored on, and its val images choose .*test_fraction"):
        experiment_of(plan, task)
    assert experiment_of(plan, task, ("[0.1, 0.01]", "0.1")).tasks[1].images["test"] == 0
    with pytest.raises(DataError, match="'hue' has no test images to be scored on; bring some"):
        experiment_of(plan, ('name = "hue", data', 'name = "hue", train_on = "trainval", data'))
    if "shade" in source:
        (folder / "shade" / "val" / "a" / "0.png").rename(folder / "shade" / "val" / "a" / "other.png")
        assert experiment_of(plan, task).tasks[1].settings_from == "shade"  # whose val has other images


def test_plan_whose_setting_for_one_task_is_chosen_needs_val_images_of_it(
    experiment_of: ExperimentOf, folder: Path
) -> None:
    shutil.rmtree(folder / "hue" / "val")
    rates = ("learning_rate = [0.1, 0.01]", "task = { %s = { learning_rate = [0.1, 0.01] } }")
    fraction = ("seeds = 2", "val_fraction = 0.0")
    with pytest.raises(DataError, match="'hue' has no val images to choose settings on"):
        experiment_of((rates[0], rates[1] % "hue"), fraction)
    assert experiment_of((rates[0], rates[1] % "shade"), fraction).tasks[1].images["val"] == 0


def test_plan_of_task_with_numbers_as_labels_is_refused(experiment_of: ExperimentOf, folder: Path) -> None:
    images = sorted((folder / "hue").glob("*/*/*.png"))
    lines = [f"{path.relative_to(folder / 'hue')},{path.parts[-3]},{k + 0.5}" for k, path in enumerate(images)]
    (folder / "hue" / "numbers.csv").write_text("\n".join(["path,split,label", *lines]))
    with pytest.raises(DataError, match="'hue' have labels of the kind regression, and a plan compares top-1"):
        experiment_of()


def test_builtin_plans_are_found_by_name() -> None:
    assert set(builtin_plans()) == {
        "smoke",
        "demo",
        "vtab",
        "fgvc",
        "paper-table1",
        "family",
    }  # the others: test_paper_plans
    assert load_experiment(find_plan_file("smoke")).name == "smoke"
    with pytest.raises(SpecError, match="did you mean 'smoke'"):
        find_plan_file("smok")


def test_plan_with_internal_error_raises_it_unchanged(
    experiment_of: ExperimentOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> None:
        raise TypeError("a mistake of ours")

    monkeypatch.setattr("vpt.experiments.planning.resolution.check_head_grid", broken)
    with pytest.raises(TypeError, match="a mistake of ours"):
        experiment_of()


def test_config_of_integer_in_a_plan_stays_an_integer(experiment_of: ExperimentOf) -> None:
    config = experiment_of(("epochs = 1", "epochs = 1\nwarmup_epochs = 1")).methods[0].settings[0].config
    assert type(config.to_dict()["warmup_epochs"]) is int


def test_plan_with_split_seed_run_splits_by_the_seed_of_each_run(experiment_of: ExperimentOf, folder: Path) -> None:
    experiment = experiment_of(("seeds = 2", 'seeds = 2\nfirst_seed = 5\nsplit_seed = "run"'), ("[0.1, 0.01]", "0.1"))
    jobs = [experiment.make_job(run, folder / "out") for run in runnable_runs(experiment, {})[:2]]
    assert [(job.config.training.seed, job.split_options["seed"]) for job in jobs] == [(5, 5), (6, 6)]


def test_plan_with_many_faults_names_all(folder: Path) -> None:
    path = folder / "wrong.toml"
    path.write_text("""
seeds = 0
sedes = 3
weights = "nowhere.npz"
tasks = [{ name = "shade" }, { name = "digts" }, { nam = "hue" }]
methods = ["linear", "vtp", { spec = "vpt", learning_rate = [] }, "partial(k=99)"]
[training]
epoch = 2
""")
    with pytest.raises(SpecError) as raised:
        load_experiment(path)
    text = str(raised.value)
    for fault in (
        "wrong.toml has 10 errors:",
        "the key 'sedes', which has no meaning here; did you mean 'seeds'",
        "seeds is 0",
        "training has the key 'epoch'",
        "methods[2].spec[1]: 'vtp' in 'vtp' is unknown",
        "methods[3].learning_rate is an empty list",
        "task 'digts' are neither a folder",
        "tasks[3] has the key 'nam'",
        "tasks[3] has no name",
        "nowhere.npz are not there",
        "k is 99",
    ):
        assert fault in text, text
    assert not (folder / "out").exists()


def test_plan_with_one_fault_keeps_its_message(folder: Path) -> None:
    path = folder / "wrong.toml"
    path.write_text('tasks = [{ name = "shade" }]\nmethods = ["vpt(location=pad, depth=deep)"]\n')
    with pytest.raises(VptError) as raised:
        load_experiment(path)
    assert "errors" not in str(raised.value)


@pytest.mark.parametrize("grid", ["spec = []", 'spec = "full", weight_decay = []'])
def test_plan_with_empty_grid_is_refused(folder: Path, grid: str) -> None:
    path = folder / "empty.toml"
    path.write_text(f'tasks = [{{ name = "shade" }}]\nmethods = [{{ name = "x", {grid} }}]\n')
    with pytest.raises(SpecError, match=r"methods\[1\]\.(spec|weight_decay) is an empty list"):
        load_experiment(path)


@pytest.mark.parametrize("path", [*BENCHMARK_PLANS, *builtin_plans().values()], ids=lambda path: path.stem)
def test_plan_of_each_project_file_has_no_unknown_keys(path: Path) -> None:
    values, _ = apply_protocol(read_toml(path))
    collector = ErrorCollector(str(path))
    validate(plan_model(segmentation="segmentation" in values), values, str(path), collector)
    assert not collector.errors


def test_row_with_lda_in_a_plan_of_classification_is_refused(experiment_of: ExperimentOf) -> None:
    with pytest.raises(SpecError, match="gives lda, which classification does not have"):
        experiment_of(('{ name = "Full", spec = "full" }', '{ name = "Probe", spec = "linear", lda = "all" }'))


def test_row_with_ridge_solves_for_its_head_one_run_at_a_time(experiment_of: ExperimentOf, folder: Path) -> None:
    row = '{ name = "Probe", spec = "linear", head = "multi_block(blocks=all)", ridge = "auto" }'
    experiment = experiment_of(('{ name = "Full", spec = "full" }', row))
    store = Store(folder / "out")
    run_worker(experiment, store)
    records = [record for record in store.records().values() if record.method == "Probe"]
    assert [record.status for record in records] == ["done"] * 4 and not any(record.history for record in records)
    assert {record.config["ridge"] for record in records} == {"auto"}
    assert any("predicts training images that are left out best" in note for note in records[0].notes)


def test_task_row_with_images_per_class_and_epochs_applies_them_to_its_runs_only(
    experiment_of: ExperimentOf, folder: Path
) -> None:
    plain = experiment_of()
    experiment = experiment_of(('"shade", g', '"shade", images_per_class = 2, epochs = 4, g'))
    jobs = {
        run.task.name: experiment.make_job(run, folder / "out")
        for run in runnable_runs(experiment, {})
        if run.method == "Full"
    }
    shade, hue = jobs["shade"], jobs["hue"]
    assert (shade.to_dict()["images_per_class"], hue.to_dict()["images_per_class"]) == (2, None)
    assert (shade.config.num_epochs, hue.config.num_epochs) == (4, 1)
    before, after = ({(run.task.name, run.id) for run in runnable_runs(one, {})} for one in (plain, experiment))
    assert {task for task, _ in before & after} == {"hue"} and {task for task, _ in after - before} == {"shade"}
    assert Experiment.from_dict(json.loads(json.dumps(experiment.to_dict()))) == experiment


def test_plan_under_a_protocol_names_the_tasks_of_a_file_as_departures(folder: Path) -> None:
    (folder / "tasks.toml").write_text('tasks = [{ name = "cub", data = "hue" }]')
    plan = 'protocol = "paper"\nbackbone = "vit_nano_patch12_48"\nimage_size = 48\nmethods = ["Linear"]\n'
    found = []
    for tasks in ('benchmark = "tasks.toml"', 'tasks = [{ name = "cub", data = "hue" }]'):
        (folder / "mine.toml").write_text(plan + tasks)
        found.append(load_experiment(folder / "mine.toml").departures)
    assert sorted(found[0], key=str) == sorted(found[1], key=str)
    assert Departure("tasks.cub", None, {"name": "cub", "data": "hue"}) in found[0]
