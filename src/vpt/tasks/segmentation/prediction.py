"""Scores of segmentation models, and the masks and overlays that they predict."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy  # loads its parts when they are used
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vpt.core.io import write_atomic
from vpt.core.prediction import Prediction
from vpt.core.text import comma_list, pluralize, refuse
from vpt.data.images.files import UnreadableImageError, capture_warnings, encode_png
from vpt.data.images.inputs import ImageInput, read_image
from vpt.data.masks.class_colors import arrange_colors, class_colors, count_borders, publisher
from vpt.data.masks.dataset import SegmentationDataset
from vpt.data.masks.files import load_mask, load_pair
from vpt.data.masks.schemes import IGNORE_INDEX
from vpt.errors import DataError
from vpt.model.tuned_model import TunedModel
from vpt.tasks.pictures import Picture
from vpt.tasks.segmentation.drawing import blend, draw_overlay, error_map, indexed_mask, is_drawing
from vpt.tasks.segmentation.pair_reader import PairReader
from vpt.tasks.segmentation.sliding_window import InferenceConfig, predict_classes, predict_rows, refuse_strip
from vpt.training import Progress
from vpt.training.calibration import NUM_BINS, confidence_bins
from vpt.training.evaluation import Scores, confusion_matrix, divide_or_nan, nan_mean


def predict_masks(
    model: TunedModel,
    images: Sequence[ImageInput],
    out_dir: str | Path | None,
    inference: InferenceConfig,
    on_image: Progress | None = None,
    *,
    skip_corrupt: bool = False,
    on_note: Callable[[str], None] = lambda text: None,
) -> list[Prediction]:
    """Segment images, and write NAME.mask.png (class numbers, with a palette) and NAME.overlay.png (with a legend).

    Args:
        model: The model.
        images: The images. All of them are checked before the first is segmented. If files are
            written, masks and overlays that an earlier call wrote beside them are left out.
        out_dir: Folder of the files, or None to write none.
        inference: Scales and flips that are averaged.
        on_image: Function that receives the number of finished images and of all images. Default: none.
        skip_corrupt: True leaves unreadable images out. Default: False.
        on_note: Function that receives a note on each image that is left out. Default: none.

    Returns:
        A prediction with a mask for each image. Masks that are written are not kept in memory.

    Raises:
        DataError: Images cannot be read, are long strips, or share a name.
    """
    labels = [str(image) if isinstance(image, str | Path) else f"image {i}" for i, image in enumerate(images)]
    given = {Path(label).stem for label in labels}
    earlier = [label for label in labels if out_dir is not None and is_drawing(Path(label), given)]
    if earlier:
        on_note(f"left out masks and overlays of earlier predictions: {comma_list(earlier)}")
        kept = [index for index, label in enumerate(labels) if not is_drawing(Path(label), given)]
        labels, images = [labels[i] for i in kept], [images[i] for i in kept]
    stems = [Path(label).stem for label in labels]
    counts = Counter(stems if out_dir is not None else ())
    repeated = [pair for pair in zip(labels, stems, strict=True) if counts[pair[1]] > 1]
    errors = [f"{label}: another image is also named {stem}" for label, stem in repeated]
    value_range = model.backbone.preprocessing.value_range
    unreadable: dict[int, str] = {}
    with capture_warnings():
        for index, source in enumerate(images):
            try:
                refuse_strip(read_image(source, value_range)[0].size)
            except (UnreadableImageError, DataError) as error:
                unreadable[index] = f"{labels[index]}: {error}"
        if skip_corrupt and len(unreadable) < len(images):
            for fault in unreadable.values():
                on_note(f"left out {fault}")
            kept = [index for index in range(len(images)) if index not in unreadable]
            labels, stems, images = [labels[i] for i in kept], [stems[i] for i in kept], [images[i] for i in kept]
        else:
            errors += unreadable.values()
        skip = ", or leave them out with --skip-corrupt" if 0 < len(unreadable) < len(images) else ""
        refuse(errors, f"{pluralize(len(errors), 'image')} cannot be used", f"replace or rename them{skip}")
        classes = _class_names(model)
        colors, predictions = class_colors(classes, model.class_colors), []
        for done, (label, stem, source) in enumerate(zip(labels, stems, images, strict=True), start=1):
            image = np.asarray(read_image(source, value_range)[0])
            pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())
            mask, top = predict_mask(model, pixels, inference)
            files: dict[str, str] = {}
            if out_dir is not None:
                drawn = {"mask": indexed_mask(mask, colors), "overlay": draw_overlay(image, mask, classes, colors)}
                for kind, picture in drawn.items():
                    path = Path(out_dir) / f"{stem}.{kind}.png"
                    write_atomic(path, encode_png(picture))
                    files[kind] = str(path)
            held = None if files else mask  # a thousand photos of 12 megapixels have masks of 24 GB
            predictions.append(Prediction(label, top, held, files.get("mask"), files.get("overlay")))
            if on_image is not None:
                on_image(done, len(images))
    return predictions


def predict_mask(
    model: TunedModel, pixels: Tensor, inference: InferenceConfig
) -> tuple[NDArray[np.uint16], tuple[tuple[str, float], ...]]:
    """Segment an image.

    Args:
        model: The model.
        pixels: The image, uint8 (3, height, width).
        inference: Scales and flips that are averaged.

    Returns:
        Class of each pixel (height, width), and (class, fraction of the pixels) of the classes in it, largest first.
    """
    mask, classes = predict_classes(model, pixels, inference).numpy().astype(np.uint16), _class_names(model)
    fractions = np.bincount(mask.flatten(), minlength=len(classes)) / mask.size
    order = np.argsort(-fractions, kind="stable")
    return mask, tuple((classes[k], float(fractions[k])) for k in order if fractions[k] > 0)


def _class_names(model: TunedModel) -> tuple[str, ...]:
    return model.classes or tuple(map(str, range(model.num_classes)))


def evenly(count: int, limit: int) -> list[int]:
    """Return at most `limit` numbers below `count`, evenly spread."""
    spread: list[int] = np.unique(np.linspace(0, count - 1, min(limit, count)).round().astype(int)).tolist()
    return spread


class PixelScores(Scores):
    """Scores of a confusion matrix of pixels. A class that neither occurs nor is predicted has the IoU NaN."""

    @property
    def per_class(self) -> NDArray[np.float64]:
        """Intersection over union of each class."""
        hits = self.confusion.diagonal()
        return divide_or_nan(hits, self.confusion.sum(0) + self.confusion.sum(1) - hits)

    @staticmethod
    def main_metric(hits: NDArray[Any], true: NDArray[Any], predicted: NDArray[Any]) -> float:  # noqa: D102
        return nan_mean(divide_or_nan(hits, true + predicted - hits))

    @property
    def metrics(self) -> dict[str, float]:
        """Mean IoU over the classes that have one, and the fraction of correct pixels."""
        return {"miou": self.mean_per_class, "pixel_accuracy": self.accuracy}


def score_split(
    model: TunedModel,
    dataset: SegmentationDataset,
    split: str,
    inference: InferenceConfig,
    on_image: Progress | None = None,
) -> PixelScores:
    """Score a model on the pairs of images and masks of a split, at their original size.

    Args:
        model: The model.
        dataset: The dataset.
        split: Name of the split.
        inference: Scales and flips that are averaged.
        on_image: Function that receives the number of scored pairs and of all pairs. Default: none.

    Returns:
        The scores; their loss is the mean loss of the averaged probabilities. The errors are those of `score_images`.
    """
    return sum_scores(score_images(model, dataset, split, inference, on_image), model.num_classes)


def sum_scores(images: Iterable[PixelScores], num_classes: int) -> PixelScores:
    """Return the scores of several images together.

    Args:
        images: Scores of each image.
        num_classes: Number of classes.

    Returns:
        The scores, with the mean of the losses and the counts of each image.
    """
    total, bins, losses = np.zeros((num_classes, num_classes), np.int64), np.zeros((NUM_BINS, 3)), 0.0
    counts: list[scipy.sparse.csr_array] = []
    for image in images:
        total, losses = total + image.confusion, losses + image.loss
        bins = bins if image.bins is None else bins + image.bins
        counts.append(scipy.sparse.csr_array(image.confusion.reshape(1, -1)))
    return PixelScores(total, losses / max(1, len(counts)), bins, scipy.sparse.vstack(counts) if counts else None)


def score_images(
    model: TunedModel,
    dataset: SegmentationDataset,
    split: str,
    inference: InferenceConfig,
    on_image: Progress | None = None,
    reader: PairReader | None = None,
) -> Iterator[PixelScores]:
    """Score a model on each pair of an image and a mask of a split.

    Args:
        model: The model.
        dataset: The dataset.
        split: Name of the split.
        inference: Scales and flips that are averaged.
        on_image: Function that receives the number of scored pairs and of all pairs. Default: none.
        reader: Reader of the images and masks. Default: one that keeps none.

    Yields:
        The scores of each image.

    Raises:
        DataError: The dataset has other classes than the model, or no such split.
    """
    if split not in dataset.splits:
        raise DataError(f"{dataset.name} has no {split} images; it has {', '.join(dataset.splits)}")
    if model.num_classes != len(dataset.classes) or (model.classes or dataset.classes) != dataset.classes:
        raise DataError(
            f"{dataset.name} has the classes {', '.join(dataset.classes[:10])}, the model "
            f"{', '.join((model.classes or ())[:10])}; read the masks as the model was taught, see --labels"
        )
    pairs, reader = dataset.splits[split], reader or PairReader(dataset)
    for index in range(len(pairs)):
        with capture_warnings():
            pixels, mask = reader.read(pairs, index)
            loss, targets = 0.0, torch.from_numpy(mask).long()
            confusion = torch.zeros(model.num_classes, model.num_classes, dtype=torch.int64)
            bins = np.zeros((NUM_BINS, 3))
            for rows, probabilities in predict_rows(model, torch.from_numpy(pixels), inference):
                predicted, target = probabilities.cpu(), targets[rows]
                confidences, labels = predicted.amax(0), predicted.argmax(0)
                confusion += confusion_matrix(labels, target, model.num_classes)
                known = target != IGNORE_INDEX
                bins += confidence_bins(confidences[known], labels[known] == target[known])
                log_probs = predicted.clamp(min=1e-12).log()[None]
                loss += F.cross_entropy(log_probs, target[None], ignore_index=IGNORE_INDEX, reduction="sum").item()
        if on_image is not None:
            on_image(index + 1, len(pairs))
        yield PixelScores(confusion.numpy(), loss / max(1, int((targets != IGNORE_INDEX).sum())), bins)


def show_masks(
    model: TunedModel, dataset: SegmentationDataset, split: str, inference: InferenceConfig, limit: int = 4
) -> list[Picture]:
    """Return images with their true and their predicted masks and the wrong pixels, evenly from a split.

    Args:
        model: The model.
        dataset: The dataset.
        split: Name of the split.
        inference: Scales and flips that are averaged.
        limit: Maximum number of images. Default: 4.

    Returns:
        The pictures, with the share and the IoU of each class of the image as notes.
    """
    pairs, colors, found = dataset.splits[split], class_colors(dataset.classes, model.class_colors), []
    for index in evenly(len(pairs), limit):
        with capture_warnings():
            pixels, truth = load_pair(pairs, index, dataset.lookup_table, dataset.mask_format, dataset.value_range)
        mask, _ = predict_mask(model, torch.from_numpy(pixels), inference)
        image = pixels.transpose(1, 2, 0)
        images = {
            "image": image,
            "truth": blend(image, truth, colors),
            "prediction": blend(image, mask, colors),
            "error": error_map(mask, truth),
        }
        labels = torch.from_numpy(mask.astype(np.int64)), torch.from_numpy(truth)
        scores = PixelScores(confusion_matrix(*labels, len(colors)).numpy(), 0.0)
        shares = scores.support / max(1, scores.num_images)
        notes = tuple(
            (name, f"{100 * share:.1f} % of the pixels, IoU {100 * iou:.1f} %", f"#{bytes(color).hex()}")
            for name, share, iou, color in zip(dataset.classes, shares, scores.per_class, colors, strict=True)
            if not np.isnan(iou)  # the class is in the image, or predicted
        )
        wrong = f"{100 * (1 - scores.accuracy):.1f} % of the pixels are wrong"
        found.append(Picture(f"{pairs.names[index]}: {wrong}", images, notes))
    return found


def choose_colors(dataset: SegmentationDataset, limit: int = 50) -> tuple[str, ...] | None:
    """Choose the colors of the classes by how they adjoin in training masks, see `arrange_colors`.

    Args:
        dataset: The dataset.
        limit: Maximum number of masks that are read, evenly from all. Default: 50.

    Returns:
        Color of each class, such as "0072b2"; None where the dataset has published ones.
    """
    if publisher(dataset.classes):
        return None
    train, borders = dataset.splits["train"], np.zeros((len(dataset.classes),) * 2, np.int64)
    for index in evenly(len(train), limit):
        with capture_warnings():
            mask = load_mask(train.masks[index], dataset.lookup_table, dataset.mask_format)
        borders += count_borders(mask, len(dataset.classes))
    return arrange_colors(dataset.classes, borders)
