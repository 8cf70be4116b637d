"""The console: train and val of a metric stand together under its name, and one bar at a time has a time left."""

from __future__ import annotations

import pytest

from vpt.api.progress import ConsoleCallback
from vpt.tasks.classification import ClassificationConfig
from vpt.tasks.segmentation.config import SegmentationConfig
from vpt.training import EpochMetrics
from vpt.training.task_config import TaskConfig


@pytest.mark.parametrize(
    ("config", "metrics", "line"),
    [
        (ClassificationConfig(), {"train_top1": 0.8, "val_top1": 0.7}, "top-1 train 80.0 %, val 70.0 %"),
        (ClassificationConfig(), {"train_top1": 0.8}, "top-1 train 80.0 %"),
        (
            ClassificationConfig(metric="mae"),
            {"train_r2": 0.8, "val_mae": 3.25, "val_r2": 0.7},
            "R² train 0.8, val 0.7  MAE val 3.25",
        ),
        (
            SegmentationConfig(),
            {"train_pixel_accuracy": 0.8, "val_miou": 0.4, "val_pixel_accuracy": 0.7},
            "pixels train 80.0 %, val 70.0 %  mIoU val 40.0 %",
        ),
    ],
)
def test_console_of_an_epoch_names_each_metric_once(
    config: TaskConfig, metrics: dict[str, float], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with ConsoleCallback() as console:
        console.on_train_start(config, 1, [])
        console.on_epoch(EpochMetrics(config.num_epochs, 0.5, 0.8, None, None, 0.1, 1.0, metrics))
    count = config.num_epochs
    assert capsys.readouterr().err.splitlines()[-1] == f"epoch {count}/{count}  loss 0.500  {line}"


def test_console_of_a_training_that_ended_early_shows_one_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal
    with ConsoleCallback() as console:
        console.on_train_start(ClassificationConfig(), 4, [])
        console.on_step(1, 1, 0.5, 0.1)
        console.on_data_progress("scoring val", 1, 10)
        assert [task.description for task in console._bar.tasks if task.visible] == ["scoring val"]
