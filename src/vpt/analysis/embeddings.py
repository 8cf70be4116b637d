"""Two-dimensional embeddings (t-SNE) of image features before and after tuning."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vpt.attention.detection import structural_copy
from vpt.core.io import write_atomic
from vpt.core.text import pluralize
from vpt.data.dataset import Dataset
from vpt.data.decoding.arrays import decode_to_tempdir
from vpt.errors import DataError, SpecError
from vpt.methods.linear import Linear
from vpt.model.plain import match_dtype
from vpt.model.tuned_model import TunedModel
from vpt.plots import figures
from vpt.training import DeviceDataset, Examples, predict_logits

MIN_IMAGES = 5
NUM_NEIGHBORS = 5
_THUMBNAIL = 72  # pixels; some 3 kB in the page
_TABLE_HEADER = b"image,class,predicted,before_x,before_y,after_x,after_y"


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
        predicted: What the tuned model predicts for each image: a class, or a number as text.
        before: Features of the frozen backbone.
        after: Features of the tuned model.
        perplexity: Perplexity of t-SNE.
        seed: Seed of t-SNE and of the selection of images.
        thumbnails: uint8 (n, side, side, 3), or None where they are not asked for.
        predicts_classes: True if `predicted` has names of classes. Default: True.
    """

    names: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    predicted: tuple[str, ...]
    before: EmbeddedFeatures
    after: EmbeddedFeatures
    perplexity: float
    seed: int
    thumbnails: NDArray[np.uint8] | None = None
    predicts_classes: bool = True

    @property
    def title(self) -> str:
        """Title of its pictures: the method with its settings."""
        return f"t-SNE, perplexity {self.perplexity:.3g}, seed {self.seed}, {len(self.labels)} images"

    @property
    def panels(self) -> dict[str, NDArray[np.float64]]:
        """Points of each picture by its title."""
        sides = {"before, frozen backbone": self.before, "after, tuned": self.after}
        return {f"{name}: {NUM_NEIGHBORS}-NN top-1 {100 * x.top1:.1f} %": x.points for name, x in sides.items()}


def embed(
    model: TunedModel,
    data: Dataset,
    split: str = "test",
    *,
    seed: int = 0,
    limit: int = 2000,
    thumbnails: bool = False,
    skip_corrupt: bool = False,
    on_image: Callable[[int, int], None] | None = None,
    on_note: Callable[[str], None] = lambda text: None,
) -> Embedding:
    """Embed the features that the head reads, before and after tuning.

    Args:
        model: The tuned model.
        data: The dataset. Its classes may differ from those of the model.
        split: "train", "val" or "test". Default: "test".
        seed: Seed of t-SNE and of the selection of images. Default: 0.
        limit: Maximum number of images; more are sampled. Default: 2000.
        thumbnails: True keeps a small copy of each image. Default: False.
        skip_corrupt: True leaves unreadable images out. Default: False.
        on_image: Called as (done, total) after each decoded image.
        on_note: Called with each note about images. Default: none.

    Returns:
        The embedding.

    Raises:
        DataError: There are fewer than 5 images, or images cannot be used.
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
    options: dict[str, Any] = {"progress": on_image, "skip_corrupt": skip_corrupt}
    with decode_to_tempdir(selected, model.backbone.preprocessing, **options) as pixels:
        for note in pixels.all_notes:
            on_note(note)
        if len(pixels) < MIN_IMAGES:
            raise DataError(
                f"{data.name} has {pluralize(len(pixels), 'image')} in {split} that can be used, and an embedding "
                f"needs {MIN_IMAGES}; choose another split"
            )
        dataset = DeviceDataset(Examples(pixels.images, pixels.labels), model.backbone.preprocessing, device)
        # The copy is of the whole model: the network alone refers to prompts that stand beside it.
        copied: Any = structural_copy(model, None)
        networks = (frozen.network, copied.network)
        before, after = (predict_logits(network, dataset) for network in networks)
        small = np.stack([_shrink(image) for image in pixels.images]) if thumbnails else None
    with torch.no_grad():
        predicted = model.label_kind.activate(copied.head(match_dtype(after.to(device), copied.head)).float().cpu())
    names = model.classes or (data.classes if len(data.classes) == model.num_classes else None)
    predicts_classes = names is not None and model.label_kind.name != "regression"
    perplexity = min(30.0, (len(pixels.labels) - 1) / 3)  # less than the number of images, as t-SNE demands
    return Embedding(
        names=pixels.names,
        labels=pixels.labels,
        classes=data.classes,
        predicted=_name_predictions(model, predicted, names),
        before=_embed_features(before.numpy(), pixels.labels, perplexity, seed),
        after=_embed_features(after.numpy(), pixels.labels, perplexity, seed),
        perplexity=perplexity,
        seed=seed,
        thumbnails=small,
        predicts_classes=predicts_classes,
    )


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


def check_table(path: Path) -> None:
    """Refuse a file that `write_table` would replace, and that it has not written.

    Args:
        path: The CSV file.

    Raises:
        SpecError: There is such a file.
    """
    if path.is_file():
        with path.open("rb") as file:
            first = file.readline(len(_TABLE_HEADER) + 2).rstrip(b"\r\n")  # as spreadsheets save it
        if first != _TABLE_HEADER:
            raise SpecError(f"the points would be written to {path}, which holds something else; choose another name")


def write_table(embedding: Embedding, path: Path) -> None:
    """Write a CSV file: image, class, prediction of the model, and coordinates before and after tuning.

    Args:
        embedding: The embedding.
        path: The CSV file.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    text.write(f"{_TABLE_HEADER.decode()}\n")
    points = np.concatenate([embedding.before.points, embedding.after.points], axis=1)
    columns = (embedding.names, embedding.labels, embedding.predicted, points)
    for name, label, predicted, row in zip(*columns, strict=True):
        table.writerow([name, embedding.classes[label], predicted, *(f"{value:.6g}" for value in row)])
    write_atomic(path, text.getvalue().encode("utf-8", "surrogateescape"))


def draw(embedding: Embedding, path: Path) -> None:
    """Write a figure of both models.

    Args:
        embedding: The embedding.
        path: The figure, .png or .svg.
    """
    figures.scatter(path, embedding.panels, embedding.labels, embedding.classes, embedding.title)


def _shrink(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a small copy (side, side, 3) of an image (3, size, size)."""
    return np.asarray(Image.fromarray(image.transpose(1, 2, 0)).resize((_THUMBNAIL, _THUMBNAIL)))


def _name_predictions(model: TunedModel, predicted: Tensor, classes: Sequence[str] | None) -> tuple[str, ...]:
    """Return the most likely class of each image, or its number."""
    if model.label_kind.name == "regression":
        return tuple(f"{number:.4g}" for number in predicted.flatten().tolist())
    return tuple(classes[i] if classes else str(i) for i in predicted.argmax(1).tolist())


def _embed_features(
    features: NDArray[np.float32], labels: NDArray[np.int64], perplexity: float, seed: int
) -> EmbeddedFeatures:
    """Return features (n, d) laid out by t-SNE."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    tsne = TSNE(perplexity=perplexity, init="pca", random_state=seed)
    with threadpool_limits(1):  # sums over threads have no fixed order, and t-SNE amplifies the last bit
        points = tsne.fit_transform(features).astype(np.float64)
    return EmbeddedFeatures(points, knn_top1(features, labels))
