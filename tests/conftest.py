"""Fixtures that more than one folder of tests needs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.json_answers import to_valid_json
from helpers.strict_skips import pytest_make_collect_report, pytest_runtest_makereport  # noqa: F401

# Processes side by side have one thread each, and so do the commands that they start; set before torch is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

# The readline of pytest's own process sets these for the processes that it starts; lines would be broken to fit.
for _name in ("COLUMNS", "LINES"):
    os.environ.pop(_name, None)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")


# What the fast tier, `pytest -m "not slow"`, leaves out, as the starts of test ids below this folder: whole trainings,
# processes, browsers, large models, and the tests that repeat one property for every method and backbone family.
SLOW = (
    "analysis/test_attention_maps",
    "analysis/test_embeddings.py::test_embed_command",
    "analysis/test_embeddings.py::test_embed_of",
    "analysis/test_embeddings.py::test_embed_with",
    "analysis/test_embedding_page.py::test_dot",
    "analysis/test_embedding_page.py::test_page_as_drawn",
    "analysis/test_features.py::test_embed_to_",
    "analysis/test_occlusion.py::test_explain",
    "analysis/test_occlusion.py::test_occlude_equals",
    "api/test_api.py::test_evaluate_keeps",
    "api/test_api.py::test_import",
    "api/test_api_predict.py::test_evaluate_folder",
    "api/test_api_predict.py::test_predict_every",
    "api/test_api_predict.py::test_predict_unusable",
    "api/test_api_tune.py::test_tune_hugging_face",
    "api/test_api_tune.py::test_tune_interrupted",
    "api/test_api_tune.py::test_tune_torch_dataset",
    "api/test_api_tune.py::test_tune_with_kaiming",
    "attention/test_transforms.py::test_exported",
    "backbones/test_transform.py::test_preprocessing_of_timm",
    "backbones/test_weights",
    "cli/test_commands",
    "cli/test_eval",
    "cli/test_full_disks",
    "cli/test_golden.py::test_output",
    "cli/test_hostile_names.py::test_tune",
    "cli/test_list.py::test_list_backbones_counts",
    "cli/test_locks",
    "cli/test_merge",
    "cli/test_options.py::test_shell_completion",
    "cli/test_options.py::test_tables_in_a_narrow",
    "cli/test_options.py::test_tune_linear",
    "cli/test_options.py::test_tune_of_a_folder",
    "cli/test_options.py::test_tune_with_",
    "cli/test_predict",
    "cli/test_refusals",
    "cli/test_signals",
    "cli/test_streams",
    "cli/test_tune",
    "clients",
    "compatibility",
    "data/test_image_folder.py::test_load_dataset_of_built_in",
    "data/test_memory_groups.py::test_tune",
    "data/test_preprocessing.py::test_job_with_normalization",
    "data/test_shards.py::test_read_shards_equals_the_reader",
    "data/test_synthetic.py::test_generate",
    "data/test_value_range.py::test_job",
    "data/test_value_range.py::test_segmentation",
    "datasets/test_preparation",
    "docs/test_pages",
    "docs/test_running",
    "experiments/test_ablation",
    "export/test_shared_graph",
    "experiments/test_cost_estimate",
    "experiments/test_cell_verdicts.py::test_extend_of_an_edge",
    "experiments/test_demo",
    "experiments/test_earlier_formats",
    "experiments/test_head_grids",
    "experiments/test_html_report",
    "experiments/test_live_page.py::test_bench_run_of_worker",
    "experiments/test_verification.py::test_verify_of_faithful",
    "experiments/test_verification.py::test_verify_command",
    "experiments/test_live_page.py::test_live_page_in_a_browser",
    "experiments/test_method_rows",
    "experiments/test_paper_plans",
    "experiments/test_plan",
    "experiments/test_protocol",
    "experiments/test_published",
    "experiments/test_ray_executor",
    "experiments/test_report",
    "experiments/test_runner",
    "experiments/test_segmentation_plans",
    "experiments/test_side_by_side",
    "heads/test_dense.py::test_counts",
    "heads/test_dense.py::test_dense_head_on_each",
    "heads/test_multi_block.py::test_save_of_multi_block",
    "heads/test_multi_block.py::test_multi_block_on_stages",
    "helpers",
    "hostile",
    "methods/test_baselines.py::test_adapters",
    "methods/test_baselines.py::test_full",
    "methods/test_baselines.py::test_load",
    "methods/test_baselines.py::test_lora_on_each",
    "methods/test_baselines.py::test_sidetune",
    "methods/test_contract",
    "methods/test_extension_keys",
    "methods/test_extension_points",
    "methods/test_gradients",
    "methods/test_later_prompts",
    "methods/test_reference",
    "methods/test_vpt",
    "methods/test_windows",
    "model/test_counts",
    "model/test_exporting",
    "model/test_hub.py::test_commands",
    "model/test_hub.py::test_errors",
    "model/test_hub.py::test_push",
    "model/test_hub.py::test_token",
    "model/test_ensemble",
    "model/test_header.py::test_every",
    "model/test_label_kinds_in_files.py::test_save",
    "model/test_shared_backbone.py::test_write",
    "model/test_timm_models",
    "model/test_tuned_file.py::test_load_with_",
    "model/test_tuned_model",
    "oracle/test_official",
    "plots/test_drawn_text",
    "plots/test_figures.py::test_figures_with_a_hostile",
    "runtime/test_runtime.py::test_predictions",
    "runtime/test_runtime.py::test_files",
    "runtime/test_runtime.py::test_predict",
    "runtime/test_runtime.py::test_runtime",
    "runtime/test_runtime.py::test_shared",
    "search/test_candidates.py::test_candidates_of_a_small",
    "search/test_groups",
    "search/test_groups.py::test_search",
    "search/test_metrics.py::test_compare",
    "search/test_search",
    "search/test_segmentation_search",
    "serving/test_bank",
    "serving/test_bodies",
    "serving/test_connections",
    "serving/test_memory.py::test_predict",
    "serving/test_monitoring",
    "serving/test_every_method",
    "serving/test_multi_task",
    "serving/test_page",
    "serving/test_predictions_of_kinds",
    "serving/test_server",
    "serving/test_soak",
    "serving/test_task_files",
    "tasks/classification/test_ray_prediction.py::test_table",
    "tasks/classification/labels/test_interrupted",
    "tasks/classification/labels/test_multi_label.py::test_evaluate",
    "tasks/classification/labels/test_multi_label.py::test_intervals",
    "tasks/classification/labels/test_multi_label.py::test_predict",
    "tasks/classification/labels/test_multi_label.py::test_tune",
    "tasks/classification/labels/test_regression.py::test_evaluate",
    "tasks/classification/labels/test_regression.py::test_predict",
    "tasks/classification/labels/test_regression.py::test_ridge",
    "tasks/classification/labels/test_regression.py::test_tune",
    "tasks/classification/test_losses.py::test_tune",
    "tasks/classification/test_rejection",
    "tasks/classification/test_streamed_logits",
    "tasks/test_segmentation_memory",
    "tasks/test_continuation",
    "tasks/test_ridge_head.py::test_solve_head_with_auto",
    "tasks/test_segmentation",
    "tasks/test_model_report",
    "tasks/test_training_options",
    "tasks/test_training_page.py::test_training_page_in",
    "benchmarks/test_benchmarks",
    "benchmarks/test_reports",
    "test_cross_validation",
    "test_layers",
    "testing/test_checks.py::test_check_method",
    "training/test_activation_checkpointing",
    "training/test_augmentation.py::test_train",
    "training/test_batch_size.py::test_find",
    "training/test_batch_size.py::test_run_job",
    "training/test_block_rates",
    "training/test_callbacks.py::test_tune_without",
    "training/test_changed_images",
    "training/test_distributed",
    "training/test_evaluation.py::test_intervals",
    "training/test_feature_cache.py::test_random",
    "training/test_feature_cache.py::test_train",
    "training/test_head_grid",
    "training/test_kept_weights",
    "training/test_layer_decay",
    "training/test_loggers",
    "training/test_loop",
    "training/test_random_crops",
    "training/test_streaming",
    "training/test_weight_average",
)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave slow modules unread in the fast tier: their imports take as long as its tests."""
    fast = config.option.markexpr == "not slow" and collection_path.suffix == ".py"
    name = collection_path.relative_to(Path(__file__).parent).with_suffix("").as_posix()
    return True if fast and name.startswith(SLOW) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that `SLOW` names."""
    for item in items:
        if item.nodeid.removeprefix("tests/").startswith(SLOW):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def valid_answers() -> Iterator[None]:
    """Let every JSON answer of a command in this process fail that has no schema, or a key that its schema lacks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vpt.cli.options.to_json", to_valid_json)
        yield


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
    for flag in (
        "headless",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        "disable-background-networking",
        "disable-component-update",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()
