"""The table of what a search tried."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from vpt.cli.search_table import print_search

ROW: dict[str, Any] = {"method": "vpt", "status": "tried", "score": 0.5, "log_loss": 1.0, "seconds": 3.0, "images": 9}


@pytest.mark.parametrize(
    ("metric", "title", "rival"), [("miou", "images of val", "the head alone"), ("top1", "out of fold", "the probe")]
)
def test_table_of_a_search_names_rates_and_what_candidates_are_compared_with(
    capsys: pytest.CaptureFixture[str], metric: str, title: str, rival: str
) -> None:
    rows = [
        {"method": "linear", "status": "no_time", "reason": "nothing is left"},
        {**ROW, "comparison": {"gain": 0.021}},
        {**ROW, "factor": 3.0, "comparison": {"gain": -0.021}},
    ]
    console = Console(file=io.StringIO(), width=200)
    print_search({"metric": metric, "candidates": rows, "summary": "prompts were kept"}, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert title in text and "no time: nothing is left" in text
    assert f"+2.1 against {rival} on these 9 images" in text
    assert "vpt, rate x 3 " in text and f"-2.1 against {rival}" in text
    assert "prompts were kept" in capsys.readouterr().out
