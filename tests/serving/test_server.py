"""The server over a real socket: predictions, errors, company in a batch, and the page in a real browser."""

from __future__ import annotations

import base64
import io
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.browsing import CONTRAST, open_page
from helpers.serving import get, png, predict, refusal, refused_predict, running_server, wait_until
from vpt.data.images.files import UnreadableImageError, read_rgb
from vpt.serving import server as serving
from vpt.serving.bank import Bank


class CountingBank(Bank):
    """A bank that notes how many requests came in together."""

    def iter_predictions(self, requests: Any) -> Any:
        self.batches = [*getattr(self, "batches", []), len(requests)]
        return super().iter_predictions(requests)


@pytest.fixture(scope="module")
def bank(folder: Path) -> CountingBank:
    return CountingBank([folder])


@pytest.fixture(scope="module")
def address(bank: CountingBank) -> Iterator[str]:
    with running_server(bank, max_delay=0.2) as found:
        yield found


def test_tasks_endpoint_of_each_task_describes_it(address, bank):
    described = {task["name"]: task for task in get(f"{address}/tasks")}
    assert described.keys() == bank.tasks.keys()
    assert described["plants"]["num_classes"] == 3 and described["plants"]["kind"] == "classification"
    scenes = get(f"{address}/tasks/scenes")
    assert scenes["classes"] == ["sky", "road", "tree"] and scenes["kind"] == "segmentation"
    assert scenes["scores"] == {"test_top1": 0.5, "missing": None}  # JSON has no NaN


def test_predict_endpoint_with_concurrent_requests_batches_them(address, bank, pictures):
    bank.batches = []
    names = ["animals", "plants", "probe", "deeper", "biased", "animals"]
    with ThreadPoolExecutor(6) as pool:
        predictions = list(pool.map(lambda i: predict(address, names[i], png(pictures[i])), range(6)))
    assert sum(bank.batches) == 6 and max(bank.batches) > 1
    for name, picture, prediction in zip(names, pictures, predictions, strict=True):
        (alone,) = bank.predict([bank.make_request(name, picture)])
        assert [(t["class"], pytest.approx(t["probability"], abs=1e-4)) for t in prediction["top"]] == list(alone.top)


def test_predict_endpoint_with_top_limits_the_classes(address, pictures):
    assert len(predict(address, "plants", png(pictures[0]), "?top=1")["top"]) == 1
    assert refused_predict(address, "plants", png(pictures[0]), "?top=no") == (
        400,
        "top is 'no'; give an integer, at least 1",
    )


def test_predict_endpoint_of_segmentation_returns_mask_and_overlay(address, bank, pictures):
    prediction = predict(address, "scenes", png(pictures[1]))
    mask, overlay = (
        Image.open(io.BytesIO(base64.b64decode(prediction[key].removeprefix("data:image/png;base64,"))))
        for key in ("mask", "overlay")
    )
    (alone,) = bank.predict([bank.make_request("scenes", pictures[1])])
    assert np.array_equal(np.asarray(mask), alone.mask) and mask.size == pictures[1].size
    assert overlay.width > mask.width
    assert [part["class"] for part in prediction["classes"]] == [name for name, _ in alone.top]


def test_predict_endpoint_with_invalid_request_returns_the_reason(address, pictures, monkeypatch):
    assert refused_predict(address, "animal", b"")[0] == 404
    assert "did you mean 'animals'" in refused_predict(address, "animal", b"")[1]
    assert refused_predict(address, "animals", b"no image") == (400, "the image is " + refused_text(b"no image"))
    assert "empty" in refused_predict(address, "animals", b"")[1]
    strip = refused_predict(address, "scenes", png(Image.new("RGB", (400, 10))))
    assert strip[0] == 400 and "400 x 10 px" in strip[1]
    monkeypatch.setattr(serving, "MAX_IMAGE_BYTES", 1000)
    status, text = refused_predict(address, "animals", png(pictures[0]))
    assert status == 413 and "send a smaller file" in text
    monkeypatch.undo()
    assert predict(address, "animals", png(pictures[0]))["top"]  # it still responds


def refused_text(body: bytes) -> str:
    with pytest.raises(UnreadableImageError) as caught:
        read_rgb(body)
    return str(caught.value)


def test_server_with_foreign_host_or_origin_returns_403(bank):
    with running_server(bank, allowed_hosts={"127.0.0.1"}) as address:
        assert len(get(f"{address}/tasks", {"Origin": address})) == len(bank.tasks)
        status, text = refusal(f"{address}/tasks", {"Host": "evil.example:8000"})  # its name leads here now
        assert status == 403 and "evil.example" in text
        status, text = refusal(f"{address}/predict/animals", {"Origin": "http://evil.example"}, b"x")
        assert status == 403 and "evil.example" in text


def test_server_with_unknown_path_or_internal_error_returns_json(bank, pictures, monkeypatch):
    with running_server(bank) as address:
        assert refusal(f"{address}/nowhere")[0] == 404 and refusal(f"{address}/predict/animals")[0] == 405
        monkeypatch.setattr(bank, "iter_predictions", lambda requests: iter(()))
    with running_server(bank) as address:
        assert refused_predict(address, "animals", png(pictures[0]))[0] == 500


def test_server_beyond_max_requests_returns_503(bank, pictures, monkeypatch):
    begun, go = threading.Event(), threading.Event()

    def process(requests: Any) -> Any:
        begun.set()
        go.wait(60)
        return Bank.iter_predictions(bank, requests)

    monkeypatch.setattr(bank, "iter_predictions", process)
    with running_server(bank, max_requests=1) as address, ThreadPoolExecutor(1) as pool:
        first = pool.submit(predict, address, "animals", png(pictures[0]))
        assert begun.wait(60)
        status, text = refused_predict(address, "animals", png(pictures[0]))
        assert status == 503 and "try again" in text
        go.set()
        assert first.result()["task"] == "animals"
        assert predict(address, "animals", png(pictures[0]))["task"] == "animals"


def test_serve_command_until_interrupt_serves_requests(folder, pictures, tmp_path):
    command = [sys.executable, "-m", "vpt", "serve", str(folder), "--port", "0", "--preload"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"8 tasks at (http://127.0.0.1:\d+)/", line)
        assert found, line
        assert predict(found[1], "plants", png(pictures[0]))["task"] == "plants"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "stopped" in out


# Of each bar of the newest prediction: its drawn width, the width of 100 %, and the percentage beside it.
BARS = """
return [...document.querySelectorAll("article:first-child .bar")].map(bar => [bar.getBoundingClientRect().width,
  bar.parentElement.getBoundingClientRect().width, parseFloat(bar.parentElement.nextElementSibling.textContent)]);
"""


def set_filter(browser: Any, text: str) -> None:
    browser.execute_script(
        "const f = document.getElementById('filter'); f.value = arguments[0]; f.dispatchEvent(new Event('input'));",
        text,
    )


def test_page_filter_without_a_match_names_the_filter_and_sends_nothing(browser, address):
    open_page(browser, address, "light", 800)
    wait_until(lambda: browser.execute_script("return document.querySelectorAll('#task option').length") == 8)
    set_filter(browser, "xyzzy")
    assert browser.execute_script("return document.getElementById('about').innerText") == (
        'No task name contains "xyzzy". Change the filter.'
    )
    assert not browser.find_element("id", "images").is_enabled()
    browser.execute_script(
        """
        const data = new DataTransfer();
        data.items.add(new File(["x"], "dropped.png", {type: "image/png"}));
        document.getElementById("drop").dispatchEvent(new DragEvent("drop", {dataTransfer: data, cancelable: true}));
        """
    )
    assert not browser.find_elements("css selector", "article")
    set_filter(browser, "PLANT")
    assert browser.find_element("id", "images").is_enabled()
    wait_until(lambda: "3 classes" in browser.execute_script("return document.getElementById('about').innerText"))
    assert not browser.get_log("browser")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_page_in_a_browser_shows_predictions_and_errors(browser, address, pictures, tmp_path, scheme, width):
    for index, name in enumerate(("first", "second")):
        pictures[index].save(tmp_path / f"{name}.png")
    open_page(browser, address, scheme, width)
    wait_until(lambda: browser.execute_script("return document.querySelectorAll('#task option').length") == 8)
    for task, image, rows in (("plants", "first", 3), ("scenes", "second", None)):
        browser.execute_script(
            "const s = document.getElementById('task'); s.value = arguments[0]; s.dispatchEvent(new Event('change'));",
            task,
        )
        browser.find_element("id", "images").send_keys(str(tmp_path / f"{image}.png"))
        wait_until(lambda: browser.execute_script("return document.querySelector('article')?.dataset.done") == "yes")
        shown = browser.execute_script("return document.querySelector('article').innerText")
        assert f"{image}.png, {task}" in shown
        named = browser.execute_script("return document.querySelectorAll('article:first-child dt').length")
        assert named == rows if rows else named >= 1
        for drawn, track, percent in browser.execute_script(BARS):
            assert track > 20 and drawn == pytest.approx(track * percent / 100, abs=0.5)
        browser.execute_script("document.querySelector('article').dataset.done = 'seen'")
    source = browser.execute_script("return document.querySelector('article:first-child img').src")
    assert source.startswith("data:image/png")
    (tmp_path / "text.png").write_text("no image")
    browser.find_element("id", "images").send_keys(str(tmp_path / "text.png"))
    wait_until(lambda: browser.execute_script("return document.querySelector('article')?.dataset.done") == "no")
    assert "the image is not an image" in browser.execute_script("return document.querySelector('article').innerText")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert min(browser.execute_script(CONTRAST)) >= 4.5
    messages = [entry["message"] for entry in browser.get_log("browser")]
    assert all("400" in message for message in messages), messages  # the one refused image, and nothing else
