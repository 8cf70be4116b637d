"""Using a tuned file: classify images, or measure it on labelled ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vpt.data.dataset import Dataset, Split
from vpt.data.image_files import SUFFIXES
from vpt.data.image_folder import is_run_folder
from vpt.data.images import Pixels, decoded
from vpt.errors import DataError, SpecError
from vpt.model.ensemble import Ensemble
from vpt.model.tuned_model import TunedModel
from vpt.training import Examples, Feed, Scores, logits_of, score


@dataclass(frozen=True)
class Prediction:
    """The most likely classes of one image, best first: (name, probability)."""

    image: str
    top: tuple[tuple[str, float], ...]


def find_images(places: Sequence[Path]) -> list[Path]:
    """Images named one by one, and all images below the folders among `places`, sorted."""
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            inside = sorted(
                path
                for path in place.rglob("*")
                if path.suffix.casefold() in SUFFIXES and path.is_file() and not any(map(is_run_folder, path.parents))
            )
            if not inside:
                raise DataError(f"there is no image below {place}; known endings: {', '.join(sorted(SUFFIXES))}")
            found += inside
        elif place.exists():
            found.append(place)
        else:
            raise DataError(f"{place} does not exist; give an image or a folder of images")
    return found


def predict(
    model: TunedModel,
    images: Sequence[Path],
    *,
    top: int = 5,
    skip_corrupt: bool = False,
    on_image: Callable[[int, int], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> list[Prediction]:
    """Classify image files, in order. Classes are named as the model's, or by their number.

    skip_corrupt: leave unreadable images out. on_note: told of each of them, and of what else is odd.
    Raises DataError naming every image that cannot be read.
    """
    model.demand_classifier("vpt.tasks.classification.prediction.predict")
    split = Split(tuple(images), np.zeros(len(images), dtype=np.int64))
    preprocessing, device = model.backbone.preprocessing, next(model.parameters()).device
    with decoded(split, preprocessing, progress=on_image, skip_corrupt=skip_corrupt) as pixels:
        _tell(pixels, on_note)
        shares = logits_of(model, Feed(Examples(pixels.images, pixels.labels), preprocessing, device)).softmax(1)
    best = shares.topk(min(top, shares.shape[1]))
    names = model.classes or tuple(str(index) for index in range(shares.shape[1]))
    return [
        Prediction(str(images[k]), tuple((names[i], float(p)) for i, p in zip(row.tolist(), ps.tolist(), strict=True)))
        for k, row, ps in zip(pixels.places, best.indices, best.values, strict=True)
    ]


def evaluate(
    model: TunedModel,
    data: Dataset,
    part: str = "test",
    *,
    skip_corrupt: bool = False,
    on_image: Callable[[int, int], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Scores:
    """Measure `model` on one part of a dataset. Classes are matched by name, not by number.

    skip_corrupt: leave unreadable images out. on_note: told of each of them, and of what else is odd.
    Raises DataError when the part is empty or holds a class the model does not know.
    """
    with _feed(model, data, part, skip_corrupt, on_image, on_note) as feed:
        return score(logits_of(model, feed), feed.labels)


def evaluate_together(
    models: Sequence[TunedModel], data: Dataset, part: str = "test", *, skip_corrupt: bool = False
) -> Scores:
    """Measure models as one: the mean of their probabilities decides (paper, appendix, ensembling).

    Prompt sets of one kind answer in one forward pass; other models one after the other. skip_corrupt: leave unreadable
    images out. Raises as `evaluate` does, and SpecError where the models do not know the same classes.
    """
    if len({(model.num_classes, model.classes) for model in models}) > 1:
        raise SpecError("the models do not know the same classes, so their answers have no mean")
    with _feed(models[0], data, part, skip_corrupt) as feed:
        try:
            logits = logits_of(Ensemble(models), feed)
        except SpecError:  # no prompt sets of one kind
            logits = torch.stack([logits_of(model, feed).log_softmax(-1) for model in models]).logsumexp(0)
        return score(logits, feed.labels)


@contextmanager
def _feed(
    model: TunedModel,
    data: Dataset,
    part: str,
    skip_corrupt: bool,
    on_image: Callable[[int, int], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Iterator[Feed]:
    """One part of a dataset, with labels as the model numbers them."""
    model.demand_classifier("vpt.tasks.classification.prediction.evaluate")
    split = data.splits[part]
    if not len(split):
        filled = [name for name, other in data.splits.items() if len(other)]
        raise DataError(f"{data.name} has no {part} images; it has {', '.join(filled)}")
    if model.classes is not None:
        used = [data.classes[label] for label in np.unique(split.labels)]
        foreign = sorted(set(used) - set(model.classes))
        if foreign:
            raise DataError(
                f"{data.name} holds classes the model was not tuned for: {', '.join(foreign[:10])}; it knows "
                f"{', '.join(model.classes[:10])}{' ...' if len(model.classes) > 10 else ''}"
            )
        number = {name: index for index, name in enumerate(model.classes)}
        own = np.array([number.get(name, -1) for name in data.classes])
        split = Split(split.images, own[split.labels], split.names)
    preprocessing, device = model.backbone.preprocessing, next(model.parameters()).device
    with decoded(split, preprocessing, progress=on_image, skip_corrupt=skip_corrupt) as pixels:
        _tell(pixels, on_note)
        yield Feed(Examples(pixels.images, pixels.labels), preprocessing, device)


def _tell(pixels: Pixels, on_note: Callable[[str], None] | None) -> None:
    for note in (*pixels.notes, *(f"left out {name}" for name in pixels.dropped)):
        if on_note is not None:
            on_note(note)
