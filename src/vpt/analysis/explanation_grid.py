"""One picture of the explanations of several images."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vpt.analysis.attention_maps import Explanation
from vpt.analysis.occlusion import Occlusion
from vpt.plots.heatmaps import image_grid

_DIFFERENCE, _DROP = "attention, tuned minus frozen", "drop of the probability, points"


def draw_grid(explanations: Mapping[str, Explanation | Occlusion], path: Path) -> None:
    """Draw a row for each image: the image with its prediction, and its maps.

    Args:
        explanations: Path of an image -> its explanation, all of one kind.
        path: The figure, .png or .svg.
    """
    rows, first = [], next(iter(explanations.values()))
    for image, found in explanations.items():
        name, probability = found.prediction
        rows.append((f"{Path(image).name}\n{name}, {100 * probability:.1f} %", found.image, _maps(found)))
    if isinstance(first, Explanation):
        title = f"Attention of the {first.query} in block {first.block}"
    else:
        title = f"Occlusion: squares of {first.square} x {first.square} px are covered one by one"
    image_grid(path, rows, title, signed=(_DIFFERENCE, _DROP))


def _maps(found: Explanation | Occlusion) -> dict[str, NDArray[np.float64]]:
    if isinstance(found, Occlusion):
        return {_DROP: 100 * found.drops}
    before, after, share = found.frozen.attention, found.tuned.attention, found.tuned.prompts.sum()
    to_prompts = f"; {100 * share:.1f} % goes to prompts" if len(found.tuned.prompts) else ""
    return {"attention, frozen backbone": before, f"attention, tuned{to_prompts}": after, _DIFFERENCE: after - before}
