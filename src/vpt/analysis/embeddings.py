"""Two-dimensional embeddings (t-SNE) of image features before and after tuning."""

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

MIN_IMAGES = 5
NUM_NEIGHBORS = 5


@dataclass(frozen=True, eq=False)
class EmbeddedFeatures:
    """Embedded features of one model.

    Args:
        points: t-SNE coordinates (n, 2).
        top1: Top-1 accuracy of a 5-nearest-neighbor classifier on the features. Distances between t-SNE coordinates
            carry little meaning.
    """

    points: NDArray[np.float64]
    top1: float


@dataclass(frozen=True, eq=False)
class Embedding:
    """Embedded features of a dataset before and after tuning.

    Args:
        names: Name of each of the n images.
        labels: int64 (n,), indices into `classes`.
        classes: Class names.
        before: Features of the frozen backbone.
        after: Features of the tuned model.
    """

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
    """Embed the features that the head reads, before and after tuning.

    Args:
        model: The tuned model.
        data: The dataset. Its classes may differ from those of the model.
        split: "train", "val" or "test". Default: "test".
        seed: Seed of t-SNE and of the selection of images. Default: 0.
        limit: Maximum number of images; more are sampled. Default: 2000.
        on_image: Called as (done, total) after each decoded image.

    Returns:
        The embedding.

    Raises:
        DataError: There are fewer than 5 images.
    """
    model.require_classifier("embed")
    if data.label_kind != "single_label":
        raise DataError(
            f"the labels of {data.name} are {data.label_kind}; points are colored by one class for each image"
        )
    selected = data.splits[split]
    if min(len(selected), limit) < MIN_IMAGES:
        raise DataError(
            f"{data.name} has {pluralize(len(selected), 'image')} in {split} and the limit is {limit}; an embedding "
            f"needs {MIN_IMAGES}, so choose another split or a higher limit"
        )
    if len(selected) > limit:
        selected = selected.select(np.sort(np.random.default_rng(seed).permutation(len(selected))[:limit]))
    device = next(model.parameters()).device
    # A TunedModel computes exactly as the tuned one does: t-SNE amplifies differences in the last bit.
    frozen = TunedModel(model.backbone, Linear(), model.num_classes, readout=model.readout).to(device)
    with decode_to_tempdir(selected, model.backbone.preprocessing, progress=on_image) as pixels:
        dataset = DeviceDataset(Examples(pixels.images, pixels.labels), model.backbone.preprocessing, device)
        networks = (frozen.network, structural_copy(model.network))
        before, after = (_embed_features(predict_logits(net, dataset).numpy(), pixels.labels, seed) for net in networks)
    return Embedding(pixels.names, pixels.labels, data.classes, before, after)


def knn_top1(features: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the leave-one-out top-1 accuracy of a 5-nearest-neighbor classifier. Ties go to the lower class.

    Args:
        features: (n, d).
        labels: Integers (n,).

    Returns:
        The accuracy in 0..1.
    """
    from sklearn.neighbors import NearestNeighbors  # slow import

    finder = NearestNeighbors(n_neighbors=min(NUM_NEIGHBORS, len(labels) - 1)).fit(features)
    neighbors = finder.kneighbors(return_distance=False)  # of the fitted images, without themselves
    votes = np.eye(labels.max() + 1)[labels[neighbors]].sum(1)
    return float((votes.argmax(1) == labels).mean())


def write_table(embedding: Embedding, path: Path) -> None:
    """Write a CSV file: image, class, and coordinates before and after tuning.

    Args:
        embedding: The embedding.
        path: The CSV file.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["image", "class", "before_x", "before_y", "after_x", "after_y"])
    points = np.concatenate([embedding.before.points, embedding.after.points], axis=1)
    for name, label, row in zip(embedding.names, embedding.labels, points, strict=True):
        table.writerow([name, embedding.classes[label], *(f"{value:.6g}" for value in row)])
    write_atomic(path, text.getvalue().encode())


def draw(embedding: Embedding, path: Path) -> None:
    """Write a figure of both models.

    Args:
        embedding: The embedding.
        path: The figure, .png or .svg.
    """
    panels = {}
    for name, features in (("before, frozen backbone", embedding.before), ("after, tuned", embedding.after)):
        panels[f"{name}: {NUM_NEIGHBORS}-NN top-1 {100 * features.top1:.1f} %"] = features.points
    figures.scatter(path, panels, embedding.labels, embedding.classes)


def _embed_features(features: NDArray[np.float32], labels: NDArray[np.int64], seed: int) -> EmbeddedFeatures:
    """Return features (n, d) laid out by t-SNE."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    # The perplexity must be less than the number of images.
    tsne = TSNE(perplexity=min(30.0, (len(features) - 1) / 3), init="pca", random_state=seed)
    with threadpool_limits(1):  # sums over threads have no fixed order, and t-SNE amplifies the last bit
        points = tsne.fit_transform(features).astype(np.float64)
    return EmbeddedFeatures(points, knn_top1(features, labels))
