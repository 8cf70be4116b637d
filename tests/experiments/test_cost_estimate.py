"""What a plan says it will cost: the arithmetic, with every measurement set to a second (a hundredth for a head)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from vpt.backbones.backbone import Backbone
from vpt.cli.bench import command
from vpt.experiments.experiment import Experiment
from vpt.experiments.running import cost_estimate as module
from vpt.experiments.running.cost_estimate import Estimate, estimate_cost
from vpt.experiments.running.method_cost import MethodCost
from vpt.training import TaskConfig

LINEAR = ('{ name = "Full", spec = "full" }', '{ name = "Linear", spec = "linear" }')
LONG = ("epochs = 1", "epochs = 60")


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What was measured: text of the method, augmentation."""
    calls = []

    def cost(
        backbone: Backbone, spec: str, config: TaskConfig, classes: int, head: str | None, rate: float | None
    ) -> MethodCost:
        assert rate is None
        method = spec.partition("(")[0]
        calls.append((method, config.augment))
        once = method == "linear" and config.augment in ("none", "random_resized_crop")
        views_per_image = 17 if config.augment == "random_resized_crop" else 1
        return MethodCost(
            0.01 if once else 1.0,
            forward_seconds=1.0,
            cached_features=once,
            file_bytes=10,
            feature_bytes=1000,
            views_per_image=views_per_image,
        )

    monkeypatch.setattr(module, "measure_cost", cost)
    return calls


def test_estimate_cost_of_linear_counts_the_backbone_once_unless_augmented(
    experiment_of: Callable[..., Experiment], measured: list[tuple[str, str]]
) -> None:
    """Of each task 12 + 4 images train two seeds, and 8 are scored."""
    once = estimate_cost(experiment_of(LINEAR, LONG))
    assert once.seconds["Linear"] == pytest.approx(2 * (2 * 60 * 16 * 0.01 + 16 + 8))
    again = estimate_cost(experiment_of(LINEAR, LONG, ('group = "Light"', 'group = "Light", augment = "flip"')))
    assert again.seconds["Linear"] == pytest.approx(2 * 60 * 16 * 0.01 + 16 + 8 + 2 * (60 * 16 + 8))
    assert once.disk_bytes - again.disk_bytes == (2 * 16 + 8) * 1000, "features of one task are not kept"
    assert measured.count(("linear", "flip")) == 1 and measured.count(("linear", "none")) == 2
    crops = estimate_cost(
        experiment_of(LINEAR, LONG, ('group = "Light"', 'group = "Light", augment = "random_resized_crop"'))
    )
    assert crops.seconds["Linear"] - once.seconds["Linear"] == pytest.approx(16 * 16)  # crops of one task
    assert crops.disk_bytes - once.disk_bytes == 16 * 2 * 16 * 1000


def test_estimate_cost_of_each_setting_adds_its_runs(
    experiment_of: Callable[..., Experiment], measured: list[tuple[str, str]]
) -> None:
    one, three = (estimate_cost(experiment_of(("[0.1, 0.01]", rates))) for rates in ("0.1", "[0.1, 0.01, 0.001]"))
    assert (one.runs, three.runs) == (8, 14)
    assert one.seconds["VPT"] == 2 * 2 * (16 + 8)  # nothing to choose
    assert three.seconds["VPT"] == one.seconds["VPT"] + 2 * 3 * (12 + 2 * 4)
    assert len(measured) == 4, "rates cost the same: two methods, once for each plan"


@pytest.mark.parametrize(
    ("own", "final"), [("train_fraction = 0.5", 8), ("images_per_class = 1", 2), ("images_per_class = 7", 14)]
)
def test_estimate_cost_of_a_row_with_images_of_its_own_counts_them(
    experiment_of: Callable[..., Experiment], own: str, final: int
) -> None:
    """Of each task two seeds train on some of 12 + 4 images, and 8 are scored."""
    found = estimate_cost(experiment_of(('spec = "full"', f'spec = "full", {own}')))
    assert found.seconds["Full"] == 2 * 2 * (final + 8)


def test_hours_name_the_tasks_that_they_suffice_for() -> None:
    """A row that is refused has no tasks, and stands in no way."""
    cells = {"Linear": {"a": 600.0, "b": 300.0}, "Full": {"a": 5400.0, "b": 7200.0}, "Refused": {}}
    estimate = Estimate(runs=4, images=100, cell_seconds=cells, disk_bytes=0)
    assert estimate.seconds == {"Linear": 900.0, "Full": 12600.0, "Refused": 0.0} and estimate.total_seconds == 13500.0
    assert estimate.fitting_tasks(6000, ["Linear", "Full"]) == ["a"], "6,000 seconds are enough for all of a"
    assert estimate.fitting_tasks(5999, ["Linear", "Full"]) == []
    assert estimate.describe_hours(2) == [
        "in 2 h    all methods: 1 of 2 tasks: a",
        "          Linear alone: all tasks",
        "          Full alone: 1 of 2 tasks: a",
    ]
    refused = Estimate(runs=0, images=0, cell_seconds={"Refused": {}}, disk_bytes=0)
    assert refused.describe_hours(2) == ["in 2 h    all methods: none that the backbone takes"]
    assert estimate.describe_hours(1)[2] == "          Full alone: no task; the least takes about 1 h 30 min"


@pytest.mark.parametrize(
    ("epochs", "options", "expected"),
    [
        (1, [], []),
        (1, ["--hours", "2"], ["in 2 h    all methods: all tasks"]),
        (60_000, [], ["in 10 h   all methods: no task; the least takes about"]),
    ],
)
def test_bench_plan_names_what_a_night_suffices_for(
    experiment_of: Callable[..., Experiment], folder: Path, epochs: int, options: list[str], expected: list[str]
) -> None:
    experiment_of(("epochs = 1", f"epochs = {epochs}"))
    done = CliRunner().invoke(command, ["plan", str(folder / "changed.toml"), *options])
    assert done.exit_code == 0, done.output
    found = [line for line in done.output.splitlines() if line.startswith("in ")]
    assert len(found) == len(expected) and all(map(str.startswith, found, expected)), found


def test_estimate_cost_has_the_time_of_each_task(experiment_of: Callable[..., Experiment]) -> None:
    estimate = estimate_cost(experiment_of())
    values = estimate.to_dict()
    assert values["seconds"] == {
        row: pytest.approx(sum(cells.values())) for row, cells in values["cell_seconds"].items()
    }
    assert all(len(cells) == 2 and all(cells.values()) for cells in values["cell_seconds"].values())
