"""The text of a matplotlib figure as it is drawn: what is cut off, and what lies on other text."""

from __future__ import annotations

from typing import Any
from unittest import mock

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox


def drawn_texts(figure: Figure) -> list[tuple[str, Bbox]]:
    """Draw a figure, and return every text that is drawn, with its box in pixels: no tick outside the axes, say."""
    canvas, drawn, draw = FigureCanvasAgg(figure), {}, Text.draw

    def record(text: Text, renderer: Any, *args: Any, **options: Any) -> None:
        drawn[id(text)] = text
        draw(text, renderer, *args, **options)

    with mock.patch.object(Text, "draw", record):
        canvas.draw()
    texts = [text for text in drawn.values() if text.get_visible() and text.get_text().strip()]
    return [(text.get_text(), text.get_window_extent(canvas.get_renderer())) for text in texts]


def faults(figure: Figure) -> list[str]:
    """Name every text that is cut off by the edge, that lies on another, or that has an exponent."""
    texts, found = drawn_texts(figure), []
    assert texts, "the figure has no text"
    for text, box in texts:
        if box.x0 < -1 or box.y0 < -1 or box.x1 > figure.bbox.x1 + 1 or box.y1 > figure.bbox.y1 + 1:
            found.append(f"{text!r} is cut off: {box.extents.round()} in {figure.bbox.extents.round()}")
        if "^{" in text or "10^" in text or "e+" in text or "e-0" in text:
            found.append(f"{text!r} has an exponent")
    for i, (text, box) in enumerate(texts):
        for other, other_box in texts[i + 1 :]:
            width = min(box.x1, other_box.x1) - max(box.x0, other_box.x0)
            height = min(box.y1, other_box.y1) - max(box.y0, other_box.y0)
            if width > 1 and height > 1:
                found.append(f"{text!r} lies on {other!r}")
    return found
