"""An embedding as one HTML file: a dot that is pointed at or focused shows its image, its label and the prediction.

The dots of a picture are radio buttons. So they are one stop of the Tab key, the arrow keys go from image to image, and
the page needs no script.
"""

from pathlib import Path

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from vpt.analysis.embeddings import Embedding
from vpt.core.io import write_atomic
from vpt.core.text import printable
from vpt.plots import style
from vpt.plots.pages import data_uri, page_environment

_MARGIN = 4  # percent of the side of a picture


def write_page(embedding: Embedding, path: Path) -> None:
    """Write the page.

    Args:
        embedding: The embedding, with thumbnails.
        path: The HTML file.
    """
    assert embedding.thumbnails is not None
    present = np.unique(embedding.labels).tolist()
    rows = [
        (f"k{label}", embedding.classes[label], Markup(style.css_color(look["color"])), style.clip_path(look["marker"]))
        for label, look in zip(present, style.series_styles(len(present)), strict=True)
    ]
    labels = [embedding.classes[label] for label in embedding.labels]
    wrong = sum(label != predicted for label, predicted in zip(labels, embedding.predicted, strict=True))
    arrow_keys = sorted(range(len(labels)), key=lambda i: (embedding.labels[i], embedding.predicted[i]))
    environment = page_environment("vpt.analysis")
    environment.filters["visible"] = printable
    page = environment.get_template("embedding.html").render(
        embedding=embedding,
        rows=rows,
        labels=labels,
        wrong=f"{wrong} of {len(labels)} {'is' if wrong == 1 else 'are'}" if embedding.predicts_classes else "",
        panels={name: _percent(points) for name, points in embedding.panels.items()},
        order=arrow_keys,
        uris=list(map(data_uri, embedding.thumbnails)),
    )
    write_atomic(path, page.encode())


def _percent(points: NDArray[np.float64]) -> list[tuple[float, float]]:
    """Return points as percent of a square from its upper left corner, with one scale for both directions."""
    low, high = points.min(0), points.max(0)
    scale = (100 - 2 * _MARGIN) / (float((high - low).max()) or 1.0)
    shifted = 50 + scale * (points - (low + high) / 2)
    return list(zip(shifted[:, 0].round(2).tolist(), (100 - shifted[:, 1]).round(2).tolist(), strict=True))
