"""Pages show characters that are not seen, or that turn the direction of a line, as escapes."""

from __future__ import annotations

import pytest
from markupsafe import Markup

from vpt.plots.inline_svg import sparkline
from vpt.plots.pages import page_environment


@pytest.mark.parametrize("package", ["vpt.tasks", "vpt.experiments", "vpt.analysis"])
def test_values_of_every_page_are_escaped(package: str) -> None:
    template = page_environment(package).from_string('<td title="{{ name }}">{{ name }}{{ chart }}{{ 3 }}</td>')
    page = template.render(name="a\u202e\u200f\x1b[2J<\nb", chart=Markup("<svg></svg>"))
    shown = "a\\u202e\\u200f\\x1b[2J&lt;\nb"
    assert page == f'<td title="{shown}">{shown}<svg></svg>3</td>'


def test_title_of_a_chart_is_escaped() -> None:
    assert 'aria-label="a\\u202e&lt;"' in sparkline("a\u202e<", [[1.0, 0.5]], 0.0, 1.0)
