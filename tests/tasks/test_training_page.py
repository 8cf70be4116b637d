"""The live page of a job: its curves, its time left, its notes; at rest when the job ends; no hindrance to it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from helpers.drawn_page import page_faults
from vpt.tasks.training_page import TrainingPage, follow_on_page
from vpt.training import Callback, EpochMetrics
from vpt.training.job import Job
from vpt.tuning import make_job


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return make_job("digits", out=tmp_path / "digits.safetensors", method="linear", epochs=4)


def epoch(number: int) -> EpochMetrics:
    metrics = {"train_top1": 0.5, "val_top1": 0.25}
    return EpochMetrics(number, 2.0 / number, 0.5, 3.0 / number, 0.25, 0.1, 1.0, metrics)


def test_training_page_of_a_running_job_has_curves_and_one_time_left(job: Job) -> None:
    seconds, path = [0.0], job.run_dir / "page.html"
    page = TrainingPage(job, pytest.fail, lambda: seconds[0])
    page.on_note("a note of <b>")
    assert not path.exists()  # the run directory may be that of another run
    page.on_data_progress("train", 120, 300)
    assert "<p>train: 120 of 300 images</p>" in path.read_text()
    seconds[0] = 100.0
    page.on_train_start(job.config, 5, [epoch(1)])
    page.on_epoch(epoch(2))
    seconds[0] = 130.0
    page.on_step(3, 5, 1.0, 0.1)  # 10 of 15 steps in 30 s
    text = path.read_text()
    for needed in (
        '<meta http-equiv="refresh" content="10">',
        "<title>digits.safetensors: epoch 3 of 4</title>",
        "<p>epoch 3 of 4, about 15 s left</p>",
        '<progress value="15" max="20"',
        'aria-label="Loss by epoch"',
        'aria-label="Top-1 by epoch"',
        "<li>a note of &lt;b&gt;</li>",
    ):
        assert needed in text
    assert text.count(" left<") == 1 and "<script" not in text and "://" not in text
    page.on_train_end({"test_top1": 0.75})
    page.close()
    text = path.read_text()
    assert "http-equiv" not in text and "<p>done: test top-1 75.00 %</p>" in text and " left<" not in text


def test_training_page_within_its_interval_is_not_written_again(job: Job) -> None:
    seconds, path = [0.0], job.run_dir / "page.html"
    page = TrainingPage(job, pytest.fail, lambda: seconds[0])
    page.on_train_start(job.config, 5, [])
    path.unlink()
    seconds[0] = 9.0
    page.on_step(1, 1, 1.0, 0.1)
    assert not path.exists()
    seconds[0] = 10.0
    page.on_step(1, 2, 1.0, 0.1)
    assert path.exists()


def test_training_page_after_an_early_end_has_no_time_left(job: Job) -> None:
    seconds, path = [0.0], job.run_dir / "page.html"
    page = TrainingPage(job, pytest.fail, lambda: seconds[0])
    page.on_train_start(job.config, 5, [])
    seconds[0] = 30.0
    page.on_step(2, 5, 1.0, 0.1)
    assert "<p>epoch 2 of 4, about 30 s left</p>" in path.read_text()
    page.on_epoch(epoch(2))
    seconds[0] = 60.0
    page.on_data_progress("test", 3, 9)  # of four epochs, two were enough
    assert "<p>test: 3 of 9 images</p>" in path.read_text()


def test_page_of_a_finished_job_outlives_the_same_command(job: Job) -> None:
    path = job.run_dir / "page.html"
    path.parent.mkdir()
    path.write_text("curves")
    with follow_on_page(Callback(), job) as callback:
        callback.on_data_progress("train", 1, 300)  # images were touched, and are the same
        callback.on_note("the run is finished")
    assert path.read_text() == "curves"
    with pytest.raises(OSError, match="no image"), follow_on_page(Callback(), job) as callback:
        callback.on_data_progress("train", 1, 300)
        raise OSError("no image")
    assert "<pre>OSError\nno image</pre>" in path.read_text()


def test_page_of_a_job_that_fails_has_its_last_lines(job: Job) -> None:
    with pytest.raises(OSError, match="four"), follow_on_page(Callback(), job) as callback:
        callback.on_train_start(job.config, 5, [])
        raise OSError("one\ntwo\nthree <i>\nfour")
    text = (job.run_dir / "page.html").read_text()
    assert "<pre>OSError\ntwo\nthree &lt;i&gt;\nfour</pre>" in text and "http-equiv" not in text


def test_page_that_cannot_be_written_stops_no_job(job: Job) -> None:
    class Notes(Callback):
        texts: list[str] = []  # noqa: RUF012

        def on_note(self, text: str) -> None:
            self.texts.append(text)

    job.run_dir.write_text("no folder")
    with follow_on_page(Notes(), job) as callback:
        callback.on_train_start(job.config, 5, [])
        callback.on_epoch(epoch(1))
    assert len(Notes.texts) == 1 and "page.html could not be written" in Notes.texts[0]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
def test_training_page_in_a_browser_is_readable(
    browser: Any, job: Job, tmp_path: Path, scheme: str, width: int
) -> None:
    seconds, pages = [0.0], {}

    def keep(name: str) -> None:
        pages[name] = tmp_path / f"{name}.html"
        # Without the line that has it read again while it is looked at.
        pages[name].write_text(re.sub("<meta http-equiv.*", "", page.path.read_text()))

    page = TrainingPage(job, pytest.fail, lambda: seconds[0])
    page.on_note("an image in " + "a_folder_with_a_name_without_a_space/" * 4 + " <b> was left out")
    page.on_data_progress("train", 120, 300)
    keep("reading")
    page.on_train_start(job.config, 5, [])
    page.on_epoch(epoch(1))
    page.on_epoch(epoch(2))
    seconds[0] = 30.0
    page.on_step(3, 3, 1.0, 0.1)
    keep("training")
    page.on_train_end({"test_top1": 0.75})
    page.close()
    keep("done")
    page.fail(OSError("no room for " + "a_file_with_a_name_without_a_space" * 4))
    page.close()
    keep("stopped")
    assert '<progress value="13" max="20"' in pages["training"].read_text() and "svg" in pages["training"].read_text()
    assert {name: page_faults(browser, path.as_uri(), scheme, width) for name, path in pages.items()} == {
        name: [] for name in pages
    }
