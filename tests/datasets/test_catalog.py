"""The catalog: names of tasks and benchmarks, and the folders of prepared tasks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from helpers.miniatures import miniature
from helpers.publishers import BUILD
from vpt.datasets.catalog import TASKS, resolve_tasks, task_folder, task_for_folder
from vpt.datasets.preparation import check_folder, prepare_task
from vpt.errors import SpecError


def test_task_folder_under_community_name_is_found(tmp_path: Path) -> None:
    """Their folders have other names, and no prepared.json."""
    task = miniature("snorb_azi", tmp_path / "source")
    prepare_task(task, tmp_path / "out", tmp_path / "source")
    (tmp_path / "out" / "snorb_azi").rename(tmp_path / "out" / "smallnorb_azi")
    (tmp_path / "out" / "smallnorb_azi" / "prepared.json").unlink()
    folder = task_folder(tmp_path / "out", TASKS["snorb_azi"])
    assert folder.name == "smallnorb_azi"
    assert task_for_folder(folder) is TASKS["snorb_azi"]
    check_folder(folder, task)


def test_resolve_tasks_of_group_names_expands_them() -> None:
    assert len(resolve_tasks(["vtab", "fgvc", "cub"])) == 24
    with pytest.raises(SpecError, match="did you mean 'cifar100'"):
        resolve_tasks(["cifar10"])


def test_catalog_tasks_each_have_a_miniature() -> None:
    assert list(BUILD) == list(TASKS)
    assert Counter((task.benchmark, task.group) for task in TASKS.values()) == {
        ("vtab", "Natural"): 7, ("vtab", "Specialized"): 4, ("vtab", "Structured"): 8, ("fgvc", "FGVC"): 5,
    }  # fmt: skip


def test_catalog_sizes_equal_those_of_the_paper() -> None:
    test = {name: task.sizes["test"] for name, task in TASKS.items() if task.benchmark == "vtab"}
    assert test == {
        "cifar100": 10_000, "caltech101": None, "dtd": 1_880, "flowers102": 6_149, "pets": 3_669, "svhn": 26_032,
        "sun397": 21_750, "camelyon": 32_768, "eurosat": 5_400, "resisc45": 6_300, "retinopathy": 42_670,
        "clevr_count": 15_000, "clevr_dist": 15_000, "dmlab": 22_735, "kitti": 711, "dsprites_loc": 73_728,
        "dsprites_ori": 73_728, "snorb_azi": 12_150, "snorb_ele": 12_150,
    }  # fmt: skip
    assert all(list(task.sizes.values())[:2] == [800, 200] for task in TASKS.values() if task.benchmark == "vtab")
    fgvc = {name: task.sizes_text for name, task in TASKS.items() if task.benchmark == "fgvc"}
    assert fgvc == {
        "cub": "5394/600/5794", "nabirds": "21536/2393/24633", "flowers": "1020/1020/6149",
        "dogs": "10800/1200/8580", "cars": "7329/815/8041",
    }  # fmt: skip
