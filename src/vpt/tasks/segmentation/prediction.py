"""Using a tuned segmentation file: masks and overlays of images, and figures on labelled ones."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vpt.core.io import write_atomic
from vpt.core.text import lines, number
from vpt.data.image_files import BadImage, listening, open_rgb
from vpt.data.mask_labels import palette
from vpt.data.segmentation_folder import Scenes
from vpt.errors import DataError
from vpt.model.tuned_model import TunedModel
from vpt.tasks.segmentation.scores import PixelScores
from vpt.tasks.segmentation.sliding_window import Inference, classes_of
from vpt.tasks.segmentation.training import measure

_ROW, _MARGIN = 18, 6  # pixels of a line of the legend


@dataclass(frozen=True)
class Segments:
    """What was written for one image. found: shares of its pixels by class, largest first, without absent ones."""

    image: str
    mask: str
    overlay: str
    found: tuple[tuple[str, float], ...]


def predict_masks(
    model: TunedModel,
    images: Sequence[Path],
    folder: Path,
    how: Inference | None = None,
    *,
    on_image: Callable[[int, int], None] | None = None,
) -> list[Segments]:
    """Write NAME.mask.png (class numbers, with a palette) and NAME.overlay.png (with a legend) for each image.

    Raises DataError for images that cannot be read or that share a name, before anything is written.
    """
    names = [image.stem for image in images]
    faults = [f"{path}: another image is also named {path.stem}" for path in images if names.count(path.stem) > 1]
    with listening():
        for path in images:
            try:
                open_rgb(path)
            except BadImage as error:
                faults.append(f"{path}: {error}")
        if faults:
            raise DataError(f"{number(len(faults), 'image')} cannot be used:{lines(faults)}")
        classes = model.classes or tuple(str(k) for k in range(model.num_classes))
        colours, answers = palette(len(classes)), []
        for done, path in enumerate(images, start=1):
            image = np.asarray(open_rgb(path)[0])
            pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())
            mask = classes_of(model, pixels, how or Inference()).numpy().astype(np.uint16)
            mask_path, overlay_path = (folder / f"{path.stem}.{kind}.png" for kind in ("mask", "overlay"))
            write_atomic(mask_path, _png(index_image(mask, colours)))
            write_atomic(overlay_path, _png(overlay(image, mask, classes, colours)))
            counts = np.bincount(mask.flatten(), minlength=len(classes)) / mask.size
            found = tuple((classes[k], float(counts[k])) for k in np.argsort(-counts, kind="stable") if counts[k] > 0)
            answers.append(Segments(str(path), str(mask_path), str(overlay_path), found))
            if on_image is not None:
                on_image(done, len(images))
    return answers


def evaluate_masks(
    model: TunedModel,
    scenes: Scenes,
    part: str = "test",
    how: Inference | None = None,
    *,
    on_image: Callable[[int, int], None] | None = None,
) -> PixelScores:
    """Measure `model` on one part of a folder. Raises DataError where it has other classes or no such part."""
    if part not in scenes.parts:
        raise DataError(f"{scenes.name} has no {part} images; it has {', '.join(scenes.parts)}")
    if model.num_classes != len(scenes.classes) or (model.classes or scenes.classes) != scenes.classes:
        raise DataError(
            f"{scenes.name} has the classes {', '.join(scenes.classes[:10])}, the model "
            f"{', '.join((model.classes or ())[:10])}; read the masks as the model was taught, see --labels"
        )
    return measure(model, scenes.parts[part], scenes.table, how or Inference(), on_image)[1]


def index_image(mask: NDArray[np.uint16], colours: NDArray[np.uint8]) -> Image.Image:
    """Classes (height, width) as an index image with its palette; of more than 256 classes, as 16-bit grey."""
    if len(colours) > 256:
        return Image.fromarray(mask)
    found = Image.fromarray(mask.astype(np.uint8))
    found.putpalette(colours.flatten().tolist())
    return found


def overlay(
    image: NDArray[np.uint8], mask: NDArray[np.uint16], classes: Sequence[str], colours: NDArray[np.uint8]
) -> Image.Image:
    """An image (height, width, 3) under half-clear colours; beside it what they stand for, the commonest first."""
    mixed = (0.45 * image + 0.55 * colours[mask]).round().astype(np.uint8)
    counts = np.bincount(mask.flatten(), minlength=len(classes))
    present = [k for k in np.argsort(-counts, kind="stable") if counts[k] > 0]
    rows = present[: max(1, (len(image) - 2 * _MARGIN) // _ROW)]
    width = _ROW + 3 * _MARGIN + max(round(ImageDraw.Draw(Image.new("L", (1, 1))).textlength(classes[k])) for k in rows)
    canvas = Image.new("RGB", (image.shape[1] + width, max(len(image), _ROW + 2 * _MARGIN)), "white")
    canvas.paste(Image.fromarray(mixed), (0, 0))
    draw = ImageDraw.Draw(canvas)
    for place, k in enumerate(rows):
        left, top = image.shape[1] + _MARGIN, _MARGIN + place * _ROW
        draw.rectangle((left, top, left + _ROW - 4, top + _ROW - 4), tuple(colours[k].tolist()), "black")
        draw.text((left + _ROW + 2, top + 1), classes[k], "black")
    return canvas


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
