from __future__ import annotations

from vpt.core.legacy_keys import upgrade_result


def test_upgrade_result_of_today_keeps_the_names_of_metrics() -> None:
    result = {"status": "done", "metrics": {"val_top1": 0.75}}
    assert upgrade_result(result) == result
