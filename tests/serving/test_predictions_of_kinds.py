"""Predictions of several labels, numbers and rejected images: the same from Python, the command line and the server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import vpt
from helpers import command_line
from helpers.brightness import draw, encoded
from helpers.browsing import CONTRAST, open_page
from helpers.serving import get, predict, running_server, wait_until
from vpt.model.label_kinds import LabelKind, MultiLabel, Regression, SingleLabel
from vpt.serving.bank import Bank

pytest.importorskip("uvicorn", reason="uvicorn is not installed")

KINDS: dict[str, tuple[LabelKind, tuple[str, ...]]] = {
    "tags": (MultiLabel((0.05, 0.05, 1.0)), ("red", "green", "blue")),
    "untagged": (MultiLabel((1.0, 1.0)), ("red", "green")),
    "age": (Regression(1.7e9, 3e6), ("age",)),
    "sure": (SingleLabel(0.5), ("dark", "light")),
    "unsure": (SingleLabel(4.0), ("dark", "light")),
}
LEAST = {"unsure": 1.1}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root, backbone = tmp_path_factory.mktemp("kinds"), vpt.load_backbone()
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, (kind, classes) in KINDS.items():
        model = vpt.attach(backbone, "vpt(length=2)", len(classes), classes=classes)
        with torch.no_grad():
            for weight in model.trainable_parameters():
                weight.normal_(std=0.1, generator=generator)
        model.label_kind = kind
        found[name] = vpt.save(model, root / f"{name}.safetensors")
    return found


@pytest.fixture(scope="module")
def address(files: dict[str, Path]) -> Iterator[str]:
    with running_server(Bank(files.values(), min_confidence=LEAST)) as found:
        yield found


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "a.png"
    Image.fromarray(draw(1)[0][0]).save(path)
    return path


@pytest.mark.parametrize("task", KINDS)
def test_predictions_of_python_command_and_server_agree(
    task: str, files: dict[str, Path], address: str, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    least = LEAST.get(task)
    in_python = vpt.predict(files[task], image, min_confidence=least).to_dict()
    command_line.vpt("predict", files[task], image, "--json", *([] if least is None else ["--min-confidence", least]))
    assert json.loads(capsys.readouterr().out) == in_python
    del in_python["image"]
    close = json.loads(json.dumps(in_python), parse_float=lambda text: pytest.approx(float(text), rel=1e-4, abs=1e-4))
    assert predict(address, task, image.read_bytes()) == {"task": task, **close}


def test_predictions_have_the_fields_of_their_kind(address: str, image: Path) -> None:
    predictions = {task: predict(address, task, image.read_bytes(), "?top=2") for task in KINDS}
    assert {task: set(prediction) - {"task"} for task, prediction in predictions.items()} == {
        "tags": {"labels", "top"},
        "untagged": {"labels", "top"},
        "age": {"value"},
        "sure": {"top"},
        "unsure": {"label", "top"},
    }
    assert {pair["class"] for pair in predictions["tags"]["labels"]} == {"red", "green"}
    assert not predictions["untagged"]["labels"]
    assert len(predictions["tags"]["top"]) == 2 and predictions["unsure"]["label"] == "none of these"
    assert get(f"{address}/tasks/age")["label_kind"] == "regression"


def test_share_of_accepted_images_is_that_of_predictions(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, (pixels, label) in enumerate(zip(*draw(16), strict=True)):
        folder = tmp_path / ("test" if number < 12 else "train") / ("dark", "light")[label]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(encoded(pixels))
    predictions = vpt.predict(files["sure"], tmp_path / "test")
    least = sorted(one.probability for one in predictions)[4]
    again = vpt.predict(files["sure"], tmp_path / "test", min_confidence=least)
    found = vpt.evaluate(files["sure"], tmp_path, min_confidence=least).to_dict()
    assert found["rejection"]["accepted"] == sum(not one.rejected for one in again) / 12 == 8 / 12
    command_line.vpt("eval", files["sure"], tmp_path, "--min-confidence", least, "--json")
    assert json.loads(capsys.readouterr().out) == found


def test_page_shows_labels_numbers_and_rejected_images(browser: Any, address: str, image: Path) -> None:
    open_page(browser, address, "light", 800)
    wait_until(lambda: browser.execute_script("return document.querySelectorAll('#task option').length") == len(KINDS))
    shown = {}
    for task in KINDS:
        browser.execute_script(
            "const s = document.getElementById('task'); s.value = arguments[0]; s.dispatchEvent(new Event('change'));",
            task,
        )
        browser.find_element("id", "images").send_keys(str(image))
        wait_until(lambda: browser.execute_script("return document.querySelector('article')?.dataset.done") == "yes")
        text = browser.execute_script("return document.querySelector('article').innerText")
        rows = browser.execute_script("return document.querySelectorAll('article:first-child dt').length")
        shown[task] = (text, rows)
        browser.execute_script("document.querySelector('article').dataset.done = 'seen'")
    assert {task: rows for task, (_, rows) in shown.items()} == {
        "tags": 2, "untagged": 2, "age": 0, "sure": 2, "unsure": 2
    }  # fmt: skip
    assert "no label" in shown["untagged"][0] and "none of these" in shown["unsure"][0]
    value = predict(address, "age", image.read_bytes())["value"]
    assert f"a.png, age: {value:.0f}" in shown["age"][0]
    assert "no label" not in shown["tags"][0] and "none of these" not in shown["sure"][0]
    assert min(browser.execute_script(CONTRAST)) >= 4.5 and not browser.get_log("browser")
    browser.execute_script(
        "const s = document.getElementById('task'); s.value = 'age'; s.dispatchEvent(new Event('change'));"
    )
    about = "return document.getElementById('about').textContent"
    wait_until(lambda: browser.execute_script(about).startswith("regression: age; vpt("))
