"""The features of many images in two dimensions, before and after tuning."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vpt.attention.detection import structural_copy
from vpt.core.io import write_atomic
from vpt.core.text import pluralize
from vpt.data.dataset import Dataset
from vpt.data.images import decode_to_tempdir
from vpt.errors import DataError
from vpt.methods.linear import Linear
from vpt.model.tuned_model import TunedModel
from vpt.plots import figures
from vpt.training import DeviceDataset, Examples, predict_logits

MIN_IMAGES = 5  # images; below, there is nothing to see
NUM_NEIGHBORS = 5


@dataclass(frozen=True, eq=False)
class EmbeddedFeatures:
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
    before: EmbeddedFeatures
    after: EmbeddedFeatures


def embed(
    model: TunedModel,
    data: Dataset,
    split: str = "test",
    *,
    seed: int = 0,
    limit: int = 2000,
    on_image: Callable[[int, int], None] | None = None,
) -> Embedding:
    """Lay out what the head reads of the images of one split, before and after tuning.

    The classes are those of `data`, which the model need not know. seed: of t-SNE, and of the choice of images where
    there are more than `limit`. Raises DataError for fewer than 5 images.
    """
    model.require_classifier("embed")
    selected = data.splits[split]
    if min(len(selected), limit) < MIN_IMAGES:
        raise DataError(
            f"{data.name} has {pluralize(len(selected), 'image')} in {split}, at most {limit} are taken; a layout needs "
            f"{MIN_IMAGES}, so choose another split or a higher limit"
        )
    if len(selected) > limit:
        selected = selected.select(np.sort(np.random.default_rng(seed).permutation(len(selected))[:limit]))
    device = next(model.parameters()).device
    # By way of a model, so that it computes as the tuned one does: t-SNE magnifies a difference in the last bit.
    frozen = TunedModel(model.backbone, Linear(), model.num_classes, readout=model.readout).to(device)
    with decode_to_tempdir(selected, model.backbone.preprocessing, progress=on_image) as pixels:
        dataset = DeviceDataset(Examples(pixels.images, pixels.labels), model.backbone.preprocessing, device)
        features = [
            predict_logits(network, dataset).numpy() for network in (frozen.network, structural_copy(model.network))
        ]
    before, after = (
        EmbeddedFeatures(_tsne(model_features, seed), knn_top1(model_features, pixels.labels))
        for model_features in features
    )
    return Embedding(pixels.names, pixels.labels, data.classes, before, after)


def knn_top1(features: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """How many images have the class most frequent among their 5 nearest others; ties go to the lower class.

    features: (n, d). labels: (n,).
    """
    from sklearn.neighbors import NearestNeighbors  # a second, for this command only

    finder = NearestNeighbors(n_neighbors=min(NUM_NEIGHBORS, len(labels) - 1)).fit(features)
    neighbors = finder.kneighbors(return_distance=False)  # of the very images it knows, without themselves
    votes = np.eye(labels.max() + 1)[labels[neighbors]].sum(1)
    return float((votes.argmax(1) == labels).mean())


def write_table(embedding: Embedding, path: Path) -> None:
    """Write the points as CSV: image, class, and where it lies before and after."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["image", "class", "before_x", "before_y", "after_x", "after_y"])
    for name, label, *points in zip(
        embedding.names, embedding.labels, embedding.before.points, embedding.after.points, strict=True
    ):
        table.writerow([name, embedding.classes[label], *(f"{value:.6g}" for point in points for value in point)])
    write_atomic(path, text.getvalue().encode())


def draw(embedding: Embedding, path: Path) -> None:
    """Write both models as a picture, .png or .svg."""
    models = {"before, frozen backbone": embedding.before, "after, tuned": embedding.after}
    panels = {
        f"{name}: {NUM_NEIGHBORS}-NN top-1 {100 * features.top1:.1f} %": features.points
        for name, features in models.items()
    }
    figures.scatter(path, panels, embedding.labels, embedding.classes)


def _tsne(features: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
    """(n, d) -> (n, 2)."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    # As many neighbors as count (perplexity, 30 by custom) must be fewer than there are.
    tsne = TSNE(perplexity=min(30.0, (len(features) - 1) / 3), init="pca", random_state=seed)
    with threadpool_limits(1):  # sums over threads come in any order, and t-SNE magnifies the last bit
        return tsne.fit_transform(features).astype(np.float64)  # type: ignore[no-any-return]
