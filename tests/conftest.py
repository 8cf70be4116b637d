"""Fixtures that more than one folder of tests needs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.strict_skips import pytest_make_collect_report, pytest_runtest_makereport  # noqa: F401

# Processes side by side have one thread each, and so do the commands that they start; set before torch is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")


# Modules that the fast tier, `pytest -m "not slow"`, leaves out: whole trainings, processes, browsers, and the tests
# that repeat one property for every method and backbone family.
SLOW = (
    "analysis/test_attention_maps",
    "backbones/test_weights",
    "cli/test_commands",
    "cli/test_refusals",
    "cli/test_tune",
    "compatibility",
    "datasets/test_preparation",
    "docs/test_pages",
    "docs/test_running",
    "experiments/test_ablation",
    "experiments/test_html_report",
    "experiments/test_demo",
    "experiments/test_earlier_formats",
    "experiments/test_head_grids",
    "experiments/test_paper_plans",
    "experiments/test_protocol",
    "experiments/test_ray_executor",
    "experiments/test_report",
    "experiments/test_runner",
    "experiments/test_segmentation_plans",
    "heads/test_multi_block",
    "helpers",
    "methods/test_contract",
    "methods/test_extension_keys",
    "methods/test_extension_points",
    "methods/test_gradients",
    "methods/test_reference",
    "methods/test_vpt",
    "methods/test_windows",
    "model/test_tuned_model",
    "search/test_search",
    "search/test_segmentation_search",
    "serving/test_server",
    "serving/test_multi_task",
    "tasks/test_segmentation",
    "test_benchmarks",
    "training/test_distributed",
    "training/test_loggers",
    "training/test_loop",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of slow modules."""
    root = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(root) and item.path.relative_to(root).as_posix().startswith(SLOW):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and weights: $VPT_SHARED, or `shared` beside the repository."""
    folder = Path(os.environ.get("VPT_SHARED") or Path(__file__).parents[2] / "shared")
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} does not exist; set VPT_SHARED to its place")
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("there is no Chromium with its driver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-background-networking", "disable-component-update"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()
