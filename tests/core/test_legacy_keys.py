from __future__ import annotations

from vpt.core.legacy_keys import upgrade_result


def test_upgrade_result_of_today_keeps_the_names_of_metrics() -> None:
    result = {"status": "done", "metrics": {"val_top1": 0.75}}
    assert upgrade_result(result) == result


def test_upgrade_result_keeps_the_keys_of_a_search() -> None:
    search = {"interval": [0.1, 0.2], "metric": "top1"}
    assert upgrade_result({"status": "done", "metrics": {}, "search": search})["search"] == search
