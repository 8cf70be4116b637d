"""Comparisons of segmentation methods: masks in, mean IoU in the tables."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from vpt.cli.bench import command
from vpt.errors import DataError, SpecError, VptError
from vpt.experiments.planning.file import load_experiment
from vpt.experiments.reports.report import write_report
from vpt.experiments.reports.run_table import to_csv
from vpt.experiments.results import load_results
from vpt.experiments.running.cost_estimate import estimate_cost
from vpt.experiments.running.worker import run_worker
from vpt.experiments.store import Store
from vpt.tasks.segmentation import SegmentationConfig, SegmentationOptions

PLAN = """
name = "squares"
seeds = 2
image_size = 48
baseline = "Head only"
tasks = [{ name = "squares", data = "squares" }]
methods = [
  { name = "Head only", spec = "linear" },
  { name = "VPT", spec = "vpt(length=2)", learning_rate = [0.1, 0.01] },
]
[training]
iterations = 4
interval = 2
batch_size = 2
[segmentation]
head = "linear"
"""


def write_task(root: Path, parts: dict[str, int]) -> None:
    """Light squares (class 1) on a dark ground (class 0), as CamVid lies."""
    rng = np.random.default_rng(0)
    for part, count in parts.items():
        for directory in (root / part, root / f"{part}annot"):
            directory.mkdir(parents=True)
        for i in range(count):
            pixels, mask = rng.integers(0, 60, (48, 48, 3), dtype=np.uint8), np.zeros((48, 48), np.uint8)
            top, left = rng.integers(0, 28, 2)
            pixels[top : top + 20, left : left + 20] += 150
            mask[top : top + 20, left : left + 20] = 1
            Image.fromarray(pixels).save(root / part / f"{i}.png")
            Image.fromarray(mask).save(root / f"{part}annot" / f"{i}.png")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("squares")
    write_task(root / "squares", {"train": 4, "val": 2, "test": 3})
    (root / "plan.toml").write_text(PLAN)
    return root


@pytest.fixture(scope="module")
def done(folder: Path) -> Store:
    experiment, store = load_experiment(folder / "plan.toml"), Store(folder / "out")
    store.save_experiment(experiment)
    run_worker(experiment, store)
    return store


def changed(folder: Path, tmp_path: Path, *changes: tuple[str, str]) -> Path:
    text = PLAN
    if not (tmp_path / "squares").exists():
        (tmp_path / "squares").symlink_to(folder / "squares")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "changed.toml").write_text(text)
    return tmp_path / "changed.toml"


def test_segmentation_plan_when_run_selects_on_val_and_scores_on_test(done: Store) -> None:
    experiment, records = done.load_experiment(), list(done.records().values())
    assert [record.status for record in records] == ["done"] * 6 and experiment.metric == "miou"
    for record in records:
        assert record.metric == "miou" and record.score == record.scores["miou"]
        assert set(record.scores) == {"split", "miou", "pixel_accuracy", "per_class"}
        if record.stage == "search":
            assert record.scores["split"] == "val" and record.score == record.history[-1]["val_metric"]
        else:  # val trains, too, and is watched no more
            assert record.scores["split"] == "test" and record.history[-1]["val_metric"] is None
    (cell,) = load_results(done).cells_of("VPT")
    tried = {record.config["training"]["learning_rate"]: record.score for record in cell.search_records}
    assert cell.setting is not None and cell.val_score == max(score for score in tried.values() if score is not None)
    assert (
        isinstance(cell.setting.config, SegmentationConfig)
        and experiment.from_dict(json.loads(json.dumps(experiment.to_dict()))) == experiment
    )


def test_make_job_of_search_and_final_run_uses_their_splits(folder: Path, tmp_path: Path) -> None:
    experiment = load_experiment(folder / "plan.toml")
    (task,), row = experiment.tasks, experiment.methods[1]
    choose, final = experiment.search_runs(task, row)[0], experiment.final_runs(task, row, row.settings[0])[0]
    jobs = [experiment.make_job(run, tmp_path / "x.safetensors") for run in (choose, final)]
    assert all(isinstance(job.options, SegmentationOptions) and job.head == "linear" for job in jobs)
    assert [(job.train_on, job.test) for job in jobs] == [("train", False), ("trainval", True)]
    assert task.images == {"train": 4, "val": 2, "test": 3} and task.classes == 11  # CamVid's


def test_report_of_segmentation_names_mean_iou(done: Store, tmp_path: Path) -> None:
    write_report(done.folder, tmp_path)
    for name in ("report.html", "report.md"):
        text = (tmp_path / name).read_text()
        assert "Mean IoU on test in %" in text and "top-1" not in text.casefold()
    rows = list(csv.DictReader(io.StringIO(to_csv(done.folder))))
    assert [row["metric"] for row in rows] == ["miou", "pixel_accuracy"] * 6 and all(row["value"] for row in rows)


def test_bench_run_of_finished_segmentation_plan_repeats_nothing(folder: Path, done: Store) -> None:
    experiment = load_experiment(folder / "plan.toml")
    assert estimate_cost(experiment).runs == 6 and all(
        seconds > 0 for seconds in estimate_cost(experiment).seconds.values()
    )
    before = {path: path.stat().st_mtime_ns for path in (done.folder / "runs").iterdir()}
    words = ["run", str(folder / "plan.toml"), "--out", str(done.folder)]
    answer = CliRunner().invoke(command, words)
    assert answer.exit_code == 0 and "6 runs" in answer.output
    answer = CliRunner().invoke(command, [*words, "--json", "--events", str(done.folder / "events.jsonl")])
    counts = {"runs": 6, "done": 6, "failed": 0, "errors": 0}
    found = json.loads(answer.stdout)
    verdicts = found.pop("verdicts", [])  # so short a training may well be no good one
    assert found == {"folder": str(done.folder), **counts}
    assert all(verdict["kind"] and verdict["evidence"] for verdict in verdicts)
    events = [json.loads(line)["event"] for line in (done.folder / "events.jsonl").read_text().splitlines()]
    assert (events[0], events[-1]) == ("start", "end") and "progress" in events
    assert {path: path.stat().st_mtime_ns for path in (done.folder / "runs").iterdir()} == before


def test_segmentation_plan_with_skip_corrupt_leaves_pairs_out(tmp_path: Path) -> None:
    write_task(tmp_path / "squares", {"train": 3, "val": 2, "test": 2})
    (tmp_path / "squares" / "trainannot" / "1.png").write_bytes(b"no picture")
    experiment = load_experiment(changed(tmp_path, tmp_path, ("seeds = 2", "seeds = 2\nskip_corrupt = true")))
    assert experiment.tasks[0].images["train"] == 2
    (task, row), *_ = experiment.cells()
    run = experiment.final_runs(task, row, row.settings[0])[0]
    assert experiment.make_job(run, tmp_path / "a.safetensors").options.skip_corrupt


def test_run_ids_of_segmentation_with_changed_options_change(folder: Path, tmp_path: Path) -> None:
    def ids(*changes: tuple[str, str]) -> set[str]:
        experiment = load_experiment(changed(folder, tmp_path, *changes))
        return {run.id for task, row in experiment.cells() for run in experiment.final_runs(task, row, row.settings[0])}

    plain = ids()
    for change in (('head = "linear"', 'head = "setr_pup(channels=8)"'),
                   ("[{ name", "[{ ignore_index = 3, name"),
                   ("iterations = 4", "iterations = 5")):  # fmt: skip
        assert not plain & ids(change), change
    assert ids() == plain
    shared = plain & ids(('spec = "linear"', 'spec = "linear", head = "setr_pup"'))
    assert len(shared) == len(plain) / 2  # the other row has the head of the plan


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (('head = "linear"', 'head = "linaer"'), SpecError, "linear"),
        (('head = "linear"', 'head = "multi_block"'), SpecError, "'multi_block' is no head of segmentation"),
        (('head = "linear"', 'hed = "linear"'), SpecError, "head"),
        (("iterations = 4", "epochs = 4"), SpecError, "'epochs', which has no meaning here; .*iterations"),
        (
            ("iterations = 4", 'iterations = 4\naugment = "fip"'),
            SpecError,
            "training.augment: 'fip' is no augmentation; did you mean 'flip'",
        ),
        (("iterations = 4", "iterations = 4\nprobe_epochs = 3"), SpecError, "'probe_epochs', which has no meaning"),
        (
            ("seeds = 2", 'seeds = 2\ninterpolation = "bicubic"'),
            SpecError,
            r"a plan with \[segmentation\] has the key 'interpolation'",
        ),
        (
            ("seeds = 2", "seeds = 2\ntrain_fraction = 0.5"),
            SpecError,
            r"a plan with \[segmentation\] has the key 'train_fraction'",
        ),
        (
            ('spec = "linear" }', 'spec = "linear", ridge = 1.0 }'),
            SpecError,
            "gives ridge, which segmentation does not have",
        ),
        (('spec = "linear" }', 'spec = "linear", lda = 0 }'), SpecError, "lda"),
        (
            ('spec = "linear" }', 'spec = "linear", head = "setr_pup", lda = 2 }'),
            SpecError,
            "lda solves for a linear head, and the head is setr_pup",
        ),
        (("[{ name", '[{ resize = "crop", name'), SpecError, "resize"),
        (("[{ name", '[{ labels = "ade", name'), SpecError, "ade20k"),
        (('[segmentation]\nhead = "linear"', ""), VptError, r"hold masks .* has a table \[segmentation\]"),
    ],
)
def test_segmentation_plan_with_invalid_options_is_refused(
    folder: Path, tmp_path: Path, change: tuple[str, str], error: type[VptError], message: str
) -> None:
    with pytest.raises(error, match=message):
        load_experiment(changed(folder, tmp_path, change))


def test_rows_of_a_segmentation_plan_with_lda_solve_for_their_heads(folder: Path, tmp_path: Path) -> None:
    solved = ('spec = "linear" }', 'spec = "linear", lda = "all", head = "linear(levels=2)" }')
    prompts = ("learning_rate = [0.1, 0.01]", "learning_rate = 0.1, lda = 3")
    experiment, store = load_experiment(changed(folder, tmp_path, solved, prompts)), Store(tmp_path / "out")
    store.save_experiment(experiment)
    run_worker(experiment, store)
    records = list(store.records().values())
    heads = [record for record in records if record.method == "Head only"]
    assert [bool(record.history) for record in records] == [record.method == "VPT" for record in records]
    assert {record.config["lda"] for record in records} == {"all", 3} and len(heads) == 2
    assert len({record.score for record in heads}) == 1 and heads[0].score > 0.5


def test_segmentation_plan_without_test_masks_uses_val_as_test(tmp_path: Path) -> None:
    write_task(tmp_path / "squares", {"train": 5, "val": 3})
    path = changed(tmp_path, tmp_path)
    with pytest.raises(DataError, match=r"no test images .* val_as_test = true"):
        load_experiment(path)
    (task,) = load_experiment(changed(tmp_path, tmp_path, ("[{ name", "[{ val_as_test = true, name"))).tasks
    assert task.images == {"train": 4, "val": 1, "test": 3}


def test_segmentation_plan_of_folder_without_masks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "squares" / "a").mkdir(parents=True)
    with pytest.raises(DataError, match="not a segmentation folder"):
        load_experiment(changed(tmp_path, tmp_path))


def test_segmentation_that_is_no_table_is_refused(folder: Path, tmp_path: Path) -> None:
    no_table = (("seeds = 2", "seeds = 2\nsegmentation = 5"), ('[segmentation]\nhead = "linear"\n', ""))
    with pytest.raises(SpecError, match="segmentation is 5; it must be a table"):
        load_experiment(changed(folder, tmp_path, *no_table))
