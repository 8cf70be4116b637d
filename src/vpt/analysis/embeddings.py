"""The features of many images in two dimensions, before and after tuning."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vpt.attention.detection import trunk_of
from vpt.core.io import write_atomic
from vpt.core.text import number
from vpt.data.dataset import Dataset
from vpt.data.images import decoded
from vpt.errors import DataError
from vpt.methods.linear import Linear
from vpt.model.tuned_model import TunedModel
from vpt.plots import figures
from vpt.training import Examples, Feed, logits_of

FEWEST = 5  # images; below, there is nothing to see
NEIGHBOURS = 5


@dataclass(frozen=True, eq=False)
class Side:
    """Features of one model.

    points: (n, 2), by t-SNE. top1: how many images have the class of their 5 nearest others, found among the
    features themselves: distances in the plane mean little.
    """

    points: NDArray[np.float64]
    top1: float


@dataclass(frozen=True, eq=False)
class Embedding:
    """names: of the n images. labels: int64 (n,), each an index into `classes`. before: tuning; after: it."""

    names: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    before: Side
    after: Side


def embed(
    model: TunedModel,
    data: Dataset,
    part: str = "test",
    *,
    seed: int = 0,
    limit: int = 2000,
    on_image: Callable[[int, int], None] | None = None,
) -> Embedding:
    """Lay out what the head reads of the images of one part, before and after tuning.

    The classes are those of `data`, which the model need not know. seed: of t-SNE, and of the choice of images where
    there are more than `limit`. Raises DataError for fewer than 5 images.
    """
    model.demand_classifier("embed")
    split = data.splits[part]
    if min(len(split), limit) < FEWEST:
        raise DataError(
            f"{data.name} has {number(len(split), 'image')} in {part}, at most {limit} are taken; a layout needs "
            f"{FEWEST}, so choose another part or a higher limit"
        )
    if len(split) > limit:
        split = split.pick(np.sort(np.random.default_rng(seed).permutation(len(split))[:limit]))
    device = next(model.parameters()).device
    # By way of a model, so that it computes as the tuned one does: t-SNE magnifies a difference in the last bit.
    frozen = TunedModel(model.backbone, Linear(), model.num_classes).to(device)
    with decoded(split, model.backbone.preprocessing, progress=on_image) as pixels:
        feed = Feed(Examples(pixels.images, pixels.labels), model.backbone.preprocessing, device)
        features = [logits_of(network, feed).numpy() for network in (frozen.network, trunk_of(model.network))]
    before, after = (Side(_laid_out(each, seed), nearest_top1(each, pixels.labels)) for each in features)
    return Embedding(pixels.names, pixels.labels, data.classes, before, after)


def nearest_top1(features: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """How many images have the class most frequent among their 5 nearest others; ties go to the lower class.

    features: (n, d). labels: (n,).
    """
    from sklearn.neighbors import NearestNeighbors  # a second, for this command only

    finder = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(labels) - 1)).fit(features)
    near = finder.kneighbors(return_distance=False)  # of the very images it knows, without themselves
    votes = np.eye(labels.max() + 1)[labels[near]].sum(1)
    return float((votes.argmax(1) == labels).mean())


def write_table(found: Embedding, path: Path) -> None:
    """Write the points as CSV: image, class, and where it lies before and after."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["image", "class", "before_x", "before_y", "after_x", "after_y"])
    for name, label, *points in zip(found.names, found.labels, found.before.points, found.after.points, strict=True):
        table.writerow([name, found.classes[label], *(f"{value:.6g}" for point in points for value in point)])
    write_atomic(path, text.getvalue().encode())


def draw(found: Embedding, path: Path) -> None:
    """Write both sides as a picture, .png or .svg."""
    sides = {"before, frozen backbone": found.before, "after, tuned": found.after}
    panels = {f"{name}: {NEIGHBOURS}-NN top-1 {100 * side.top1:.1f} %": side.points for name, side in sides.items()}
    figures.points(path, panels, found.labels, found.classes)


def _laid_out(features: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
    """(n, d) -> (n, 2)."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    # As many neighbours as count (perplexity, 30 by custom) must be fewer than there are.
    tsne = TSNE(perplexity=min(30.0, (len(features) - 1) / 3), init="pca", random_state=seed)
    with threadpool_limits(1):  # sums over threads come in any order, and t-SNE magnifies the last bit
        return tsne.fit_transform(features).astype(np.float64)  # type: ignore[no-any-return]
