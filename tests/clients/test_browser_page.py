"""The page of examples/browser predicts in a browser as the runtime in Python does."""

from __future__ import annotations

import base64
import functools
import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from vpt import Backbone, TunedModel, attach, load_backbone
from vpt.export import export_backbone, export_task
from vpt.runtime import SharedModel

EXAMPLE = Path(__file__).parents[2] / "examples" / "browser"
METHODS = {"moods": ("vpt(length=3)", ("calm", "wild")), "sizes": ("prefix(length=5)", ("small", "middle", "large"))}


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    extensions_map: ClassVar[dict[str, str]] = {
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
    }

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The folder of the page with a graph and two tasks, and its address."""
    folder = shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("site"), dirs_exist_ok=True)
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm registry is at hand: npm is not installed")
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "onnxruntime-web"]
    try:
        installed = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        pytest.skip("no npm registry is at hand: none answers within 300 s")
    if installed.returncode:
        pytest.skip(f"no npm registry is at hand: {installed.stderr[-300:]}")
    backbone = load_backbone("vit_nano_patch12_48")
    export_backbone(backbone, folder / "backbone.onnx")
    for name, (method, classes) in METHODS.items():
        for resize in ("squash", "crop"):
            model = attach(resizing(backbone, resize), method, len(classes), classes=classes)
            perturb(model)
            export_task(model, folder / f"{name}-{resize}.task.safetensors")
    other = load_backbone("vit_nano_patch12_48").copy()
    perturb(other.module)
    export_task(attach(load_backbone(other.module), "linear", 2), folder / "foreign.task.safetensors")
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}/index.html"
        server.shutdown()


def resizing(backbone: Backbone, resize: Literal["squash", "crop"]) -> Backbone:
    return replace(backbone, preprocessing=replace(backbone.preprocessing, resize=resize))


@torch.no_grad()
def perturb(model: nn.Module) -> None:
    torch.manual_seed(0)
    for weight in model.trainable_parameters() if isinstance(model, TunedModel) else model.parameters():
        weight.add_(0.5 * torch.randn_like(weight))


def wait_for(browser: Any, text: str) -> str:
    from selenium.webdriver.support.ui import WebDriverWait

    def state(driver: Any) -> str:
        return driver.execute_script("return document.getElementById('state').textContent")  # type: ignore[no-any-return]

    WebDriverWait(browser, 60).until(lambda driver: text in state(driver), text)
    return state(browser)


def drop(browser: Any, image: Path) -> None:
    """Drop an image on the page, as a user does with the mouse."""
    script = """
        const bytes = Uint8Array.from(atob(arguments[0]), letter => letter.charCodeAt(0)), data = new DataTransfer();
        data.items.add(new File([bytes], arguments[1], {type: "image/png"}));
        document.getElementById("drop").dispatchEvent(new DragEvent("drop", {dataTransfer: data, cancelable: true}));
    """
    browser.execute_script(script, base64.b64encode(image.read_bytes()).decode(), image.name)


def draw(path: Path, size: tuple[int, int], mode: str) -> Path:
    pixels = np.random.default_rng(1).integers(0, 256, (6, 7, len(mode)), np.uint8)
    Image.fromarray(pixels, mode).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


@pytest.mark.parametrize(
    ("size", "mode", "resize"),
    [
        ((90, 61), "RGB", "squash"),
        ((31, 40), "RGBA", "squash"),
        ((64, 48), "RGB", "crop"),
        ((50, 85), "RGB", "crop"),
        ((700, 20), "RGB", "crop"),
    ],
)
def test_dropped_image_gets_the_logits_of_the_runtime_for_each_task(
    site: tuple[Path, str], browser: Any, tmp_path: Path, size: tuple[int, int], mode: str, resize: str
) -> None:
    folder, address = site
    files = [f"{name}-{resize}.task.safetensors" for name in METHODS]
    browser.get(f"{address}?" + "&".join(f"task={file}" for file in files))
    wait_for(browser, "Ready: vit_nano_patch12_48, 2 tasks")
    image = draw(tmp_path / "new.png", size, mode)
    drop(browser, image)
    wait_for(browser, "new.png: ")
    rows = browser.find_elements("css selector", "#predictions tbody tr")
    engine = SharedModel(folder / "backbone.onnx")
    tasks = [engine.load(folder / file) for file in files]
    for row, task, prediction in zip(rows, tasks, engine.predict([image, image], tasks), strict=True):
        (expected,) = engine.logits(prepared(image, task), [task])
        found = json.loads(row.get_attribute("data-logits"))
        # The browser blends transparent pixels, and rounds, to another gray level here and there.
        np.testing.assert_allclose(found, expected, rtol=0, atol=5e-3 * np.abs(expected).max())
        assert prediction.top[0][0] in row.text


def prepared(image: Path, task: Any) -> Any:
    from vpt.runtime.pixels import read_input

    return read_input(image, task.preprocessing)[None]


@pytest.mark.parametrize(
    ("query", "message"),
    [("", "name the files of tasks"), ("?task=absent.task.safetensors", "absent.task.safetensors: 404")],
)
def test_page_without_tasks_says_what_is_missing(
    site: tuple[Path, str], browser: Any, query: str, message: str
) -> None:
    browser.get(site[1] + query)
    assert message in wait_for(browser, "Nothing was loaded")


def test_file_that_is_no_image_is_named(site: tuple[Path, str], browser: Any, tmp_path: Path) -> None:
    browser.get(f"{site[1]}?task=moods-crop.task.safetensors")
    wait_for(browser, "Ready")
    (tmp_path / "notes.txt").write_text("no image")
    browser.find_element("id", "file").send_keys(str(tmp_path / "notes.txt"))
    wait_for(browser, "notes.txt cannot be predicted")


def test_task_of_other_weights_is_refused(site: tuple[Path, str], browser: Any, tmp_path: Path) -> None:
    browser.get(f"{site[1]}?task=foreign.task.safetensors")
    wait_for(browser, "Ready")
    browser.find_element("id", "file").send_keys(str(draw(tmp_path / "new.png", (50, 50), "RGB")))
    assert "foreign.task.safetensors belongs to a backbone with other weights" in wait_for(browser, "new.png cannot")
