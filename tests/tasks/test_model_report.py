"""The report of one model: its contents, its escapes, and the page as Chromium draws it."""

from __future__ import annotations

import html
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.command_line import vpt
from helpers.drawn_page import page_faults
from helpers.segmentation import write_split
from vpt import inspect as read_header
from vpt.data.loading import load_dataset
from vpt.tasks.evaluation import Evaluation
from vpt.tasks.registry import TASKS
from vpt.tasks.report import Report, check_command, next_steps, write_report
from vpt.tasks.search_rows import search_table
from vpt.training import Scores
from vpt.training.calibration import confidence_bins
from vpt.training.verdicts import Verdict
from vpt.tuning import make_job

HOSTILE = "<script>alert(1)</script> & 'quotes'".replace("/", "\N{DIVISION SLASH}")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of noise, so that some answers are wrong."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4), ("test", 6)):
        for name in (HOSTILE, "a class with a name that is longer than most", "plain"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def pages(photos: Path, ade20k: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports of `vpt tune` and `vpt eval`, of both tasks."""
    folder = tmp_path_factory.mktemp("runs")
    tuned, masks = folder / "photos.safetensors", folder / "masks.safetensors"
    vpt("tune", photos, "--out", tuned, "--method", "linear", "--epochs", 3)
    vpt("eval", tuned, photos, "--out", folder / "eval.html")
    small = ("--image-size", 48, "--batch-size", 2, "--iterations", 2, "--eval-every", 1, "--head", "linear")
    vpt("tune", ade20k, "--out", masks, "--method", "linear", *small)
    write_split(folder / "two/images/train", folder / "two/masks/train", 4, first_id=0)
    write_split(folder / "two/images/val", folder / "two/masks/val", 2, first_id=0)
    two = folder / "two.safetensors"
    vpt("tune", folder / "two", "--out", two, "--method", "linear", *small)
    return {
        "tune": tuned.with_suffix(".run") / "report.html",
        "eval": folder / "eval.html",
        "segmentation": masks.with_suffix(".run") / "report.html",
        "two classes": two.with_suffix(".run") / "report.html",
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
def test_reports_as_drawn_are_readable(browser: Any, pages: dict[str, Path], scheme: str, width: int) -> None:
    faults = {name: page_faults(browser, page.as_uri(), scheme, width) for name, page in pages.items()}
    assert faults == {name: [] for name in pages}
    requests = [entry["message"] for entry in browser.get_log("performance") if "requestWillBeSent" in entry["message"]]
    assert all("https:" not in message and "http:" not in message for message in requests)


def test_report_of_tune_has_every_section(pages: dict[str, Path]) -> None:
    text = pages["tune"].read_text(encoding="utf-8")
    headings = re.findall("<h2>(.*?)</h2>", text)
    assert headings == [
        "What to do next", "Training and confidence", "Classes", "Confusion", "Most frequent confusions",
        "Most confident mistakes", "Training images", "Made with",
    ]  # fmt: skip
    assert text.count("<svg") == 3 and "taken for" in text and "vpt predict" in text and "95 % interval" in text
    assert "<script" not in text and "&lt;script&gt;" in text and "http" not in text
    assert text.count("data:image/jpeg;base64,") >= 4


def test_report_of_eval_has_scores_and_mistakes_without_curves(pages: dict[str, Path]) -> None:
    text = pages["eval"].read_text(encoding="utf-8")
    assert "Most confident mistakes" in text and text.count("<svg") == 1 and "<script" not in text
    assert "vpt tune" not in text  # which would train on the images that measure the model


def test_report_of_segmentation_shows_truth_prediction_and_error(pages: dict[str, Path]) -> None:
    text = pages["two classes"].read_text(encoding="utf-8")
    assert re.findall("<figcaption>(image|truth|prediction|error)</figcaption>", text) == [
        "image", "truth", "prediction", "error", "image", "truth", "prediction", "error",
    ]  # fmt: skip
    assert "<h3>mIoU by evaluation interval" in text and "MIoU" not in text
    assert re.search(r"[\d.]+ % of the pixels, IoU [\d.]+ %", text) and 'style="background:#0072b2"' in text
    header = read_header(pages["two classes"].parent.with_suffix(".safetensors"))
    assert header.class_colors is not None and len(set(header.class_colors)) == 2
    assert all(f"background:#{color}" in text for color in header.class_colors)
    assert 'style="background:#787878"' in pages["segmentation"].read_text(encoding="utf-8")  # wall, as published


def test_report_of_a_search_and_of_a_number_leaves_out_what_is_unknown(tmp_path: Path) -> None:
    tried = [
        {
            "method": "linear",
            "head": "multi_block(blocks=last4)",
            "score": 0.5,
            "log_loss": 1.0,
            "status": "tried",
            "seconds": 3.0,
        },
        {"method": "vpt(length=2)", "status": "no_time", "reason": "needs 1 h"},
        {"method": "vpt(length=2)", "factor": 1 / 3, "status": "no_time", "reason": "needs 1 h"},
    ]
    search = {"metric": "top1", "candidates": tried, "summary": "the probe was <kept>", "optimistic": True}
    numbers = Evaluation("val", 3, {"r2": -0.5}, {}, np.zeros((0, 0), np.int64))
    verdicts = [Verdict("at chance", "top-1 50.0 %")]
    report = Report("ages", "a.safetensors", "", [], search=search, verdicts=verdicts)
    write_report(tmp_path / "report.html", report, numbers, TASKS["classification"])
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert re.findall("<h2>(.*?)</h2>", text) == ["What to do next", "The search", "Made with"]
    assert "the probe was &lt;kept&gt;" in text and "probe: last4, cls+mean" in text and "<td>50.0</td>" in text
    assert "vpt(length=2), rate x 0.333" in text and "no time: needs 1 h" in text
    assert (
        '<p class="verdict">at chance: top-1 50.0 %</p>' in text
        and "Optimistic" in text
        and "R² −0.5" in text.replace("-", "−")
    )


def test_report_of_a_search_has_the_rows_of_the_terminal(tmp_path: Path) -> None:
    tried = {"method": "vpt", "status": "tried", "score": 0.5, "log_loss": 1.0, "seconds": 3.0, "images": 9}
    rows = [{**tried, "method": "linear"}, {**tried, "factor": 3.0, "comparison": {"gain": 0.021}}]
    search = {"metric": "miou", "candidates": rows, "summary": "prompts were kept", "optimistic": False}
    scores = Evaluation("val", 9, {"miou": 0.5}, {}, np.zeros((0, 0), np.int64))
    write_report(tmp_path / "report.html", Report("t", "", "", [], search=search), scores, TASKS["segmentation"])
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<caption>images of val</caption>" in text and "out of fold" not in text
    cells = ["vpt, rate x 3", "50.0", "1.00", "3 s", "+2.1 against the head alone on these 9 images"]
    assert re.findall("<t[hd][^>]*>([^<]*)</t[hd]>", text)[-5:] == cells == list(search_table(search).rows[1])


RISING = [{"epoch": n, "val_metric": 0.1 * n} for n in range(1, 5)]
BINS = confidence_bins(torch.full((40,), 0.9), torch.arange(40) % 2 == 0)
SCORES = Scores(np.array([[2, 18], [2, 18]]), 1.0, BINS)
UNSURE = Evaluation("test", 40, {"top1": 0.5}, {"a": 0.1, "b": 0.9}, np.array([[2, 18], [2, 18]]), scores=SCORES)


def steps_of(out: Path, data: Any = "photos", verdicts: Sequence[Verdict] = (), **options: Any) -> list[str]:
    """Commands of the next steps of a job."""
    job = make_job(data, out, **{"learning_rate": 1.0, **options})
    report = Report("t", str(out), "", [], RISING, verdicts=verdicts, job=job)
    return [command for _, command in next_steps(report, UNSURE, TASKS[job.config.task])]


def test_next_steps_train_again_with_every_option_of_the_job(photos: Path, tmp_path: Path) -> None:
    out, rising = tmp_path / "a b.safetensors", [Verdict("not converged", "still rising")]
    again = f"vpt tune --config '{tmp_path}/a b.run/run.toml'"
    use = f"vpt predict '{out}' IMAGE"
    found = steps_of(out, verdicts=rising, epochs=7)
    assert found == [
        "", f"{again} --calibrate --out again.safetensors", f"{again} --epochs 14 --out again.safetensors", use,
    ]  # fmt: skip
    assert steps_of(out, verdicts=rising, epochs=7, calibrate=True) == ["", found[2], use]
    assert steps_of(out) == ["", found[1], use]  # what the curve alone looks like is left to the verdict
    assert steps_of(out, task="segmentation", verdicts=rising, iterations=30) == [
        "", f"{again} --iterations 60 --out again.safetensors", use,
    ]  # fmt: skip
    assert steps_of(out, load_dataset(str(photos)), verdicts=rising) == ["", use]  # in memory, which no command reads


def test_next_steps_of_a_run_are_commands_that_train(pages: dict[str, Path], tmp_path: Path) -> None:
    words = shlex.split(html.unescape(re.findall("vpt tune.*--calibrate[^<]*", pages["tune"].read_text())[0]))
    words[-1] = str(tmp_path / "again.safetensors")
    vpt(*words[1:])
    job = json.loads((tmp_path / "again.run" / "job.json").read_text())["job"]
    assert job["calibrate"] and job["method"] == "linear" and job["config"]["epochs"] == 3


def test_check_command_has_the_options_that_read_the_data(tmp_path: Path) -> None:
    for name in ("train.csv", "te st.csv"):
        (tmp_path / name).touch()
    data = f"{tmp_path}/train.csv,{tmp_path}/te st.csv"
    options = {"label_column": "sort of", "group_column": None, "labels": "auto", "reduce_zero_label": True, "top": 3}
    expected = f"vpt data check '{data}' --label-column 'sort of' --reduce-zero-label"
    assert check_command(data, options) == expected
    assert check_command("shapes", options) == ""
