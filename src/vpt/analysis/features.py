"""Features of images as data: the input of the head, a row for each image."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpt.core.io import write_atomic_with
from vpt.core.table_file import TABLE_SUFFIXES, check_table_path, write_table
from vpt.data.dataset import Split
from vpt.data.decoding.chunks import decode_chunk
from vpt.errors import DataError
from vpt.model.tuned_model import TunedModel
from vpt.training import DeviceDataset, Examples, predict_logits

FEATURE_SUFFIXES = (*TABLE_SUFFIXES, ".npz")
_CHUNK = 256  # images in memory at once


@dataclass(frozen=True)
class FeatureFile:
    """A table of features.

    Attributes:
        file: The table.
        images: Number of its rows.
        width: Length of a feature.
        dropped: Number of images that were left out.
    """

    file: str
    images: int
    width: int
    dropped: int = 0


def write_features(
    model: TunedModel,
    splits: Mapping[str, Split],
    classes: tuple[str, ...],
    out: Path,
    on_image: Callable[[int, int], None] | None = None,
    *,
    skip_corrupt: bool = False,
    on_note: Callable[[str], None] = lambda text: None,
) -> FeatureFile:
    """Write path, label, split and feature of each image to a table.

    A SpecError is raised for an unknown suffix, and a DataError for images that cannot be read.

    Args:
        model: The tuned model.
        splits: Images by name of the split.
        classes: Names of the classes.
        out: The table: .csv, .jsonl, .parquet, or .npz, which is kept in memory until it is written.
        on_image: Called as (done, total) after each batch. Default: none.
        skip_corrupt: True leaves unreadable images out. Default: False.
        on_note: Called with each note about images. Default: none.

    Returns:
        The table.

    Raises:
        DataError: There is no image, or none can be used.
    """
    model.require_classifier("vpt.embed_to_file")
    check_table_path(out, FEATURE_SUFFIXES)
    total = sum(map(len, splits.values()))
    if not total:
        raise DataError(f"there are no images in {', '.join(splits)}; choose another split")
    written = 0

    def counted() -> Iterator[list[dict[str, Any]]]:
        nonlocal written
        for rows in _batches(model, splits, classes, total, on_image, skip_corrupt=skip_corrupt, on_note=on_note):
            written += len(rows)
            yield rows
        if not written:
            raise DataError(f"none of {total} images can be used, so {out} would be empty; give other images")

    if out.suffix.casefold() == ".npz":
        found = [row for batch in counted() for row in batch]
        features = np.array([row["feature"] for row in found], np.float32)
        texts: dict[str, Any] = {name: np.array([row[name] for row in found]) for name in ("path", "label", "split")}
        write_atomic_with(out, lambda file: np.savez(file, feature=features, **texts))
    else:
        write_table(out, counted())
    return FeatureFile(str(out), written, model.width, total - written)


def _batches(
    model: TunedModel,
    splits: Mapping[str, Split],
    classes: tuple[str, ...],
    total: int,
    on_image: Callable[[int, int], None] | None,
    *,
    skip_corrupt: bool,
    on_note: Callable[[str], None],
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of each chunk that has any."""
    model.eval()
    done = 0
    for name, split in splits.items():
        for start in range(0, len(split), _CHUNK):
            part = split.select(np.arange(start, min(start + _CHUNK, len(split))))
            pixels, notes = decode_chunk(part, model.backbone.preprocessing, skip_corrupt=skip_corrupt)
            for note in notes:
                on_note(note)
            if pixels is not None:
                dataset = DeviceDataset.for_model(model, Examples(pixels.images, pixels.labels))
                features: NDArray[np.float32] = predict_logits(model.features, dataset).numpy()
                paths = _paths(part.select(pixels.indices))
                yield [
                    {"path": path, "label": _label_of(label, classes), "split": name, "feature": feature}
                    for path, label, feature in zip(paths, pixels.labels, features.tolist(), strict=True)
                ]
            done += len(part)
            if on_image is not None:
                on_image(done, total)


def _label_of(label: Any, classes: tuple[str, ...]) -> str | float:
    """Return the class, several labels joined by |, or the number."""
    if np.ndim(label):
        return "|".join(name for name, has in zip(classes, label, strict=True) if has)
    return classes[label] if np.issubdtype(np.asarray(label).dtype, np.integer) else float(label)


def _paths(split: Split) -> list[str]:
    """Return the path of each image that is a file, and the name of others."""
    return [
        str(image) if isinstance(image, Path) else name for image, name in zip(split.images, split.names, strict=True)
    ]
