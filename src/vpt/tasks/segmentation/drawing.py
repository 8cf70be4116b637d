"""Pictures of masks: indexed images, overlays with a legend, and prediction beside truth."""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vpt.core.text import printable
from vpt.data.masks.schemes import IGNORE_INDEX

_FONT_SIZE, _ROW, _MARGIN = 14, 20, 8  # pixels of the text, of a line of the legend, and around it
_RIGHT, _WRONG, _NO_CLASS = (225, 225, 225), (213, 94, 0), (255, 255, 255)


def indexed_mask(mask: NDArray[np.uint16], colors: NDArray[np.uint8]) -> Image.Image:
    """Return a mask as an indexed image with a palette, or as 16-bit gray for more than 256 classes.

    Args:
        mask: Class numbers (height, width).
        colors: Color of each class, (classes, 3).

    Returns:
        The image.
    """
    if len(colors) > 256:
        return Image.fromarray(mask)
    image = Image.fromarray(mask.astype(np.uint8))
    image.putpalette(colors.flatten().tolist())
    return image


def draw_overlay(
    image: NDArray[np.uint8], mask: NDArray[np.uint16], classes: Sequence[str], colors: NDArray[np.uint8]
) -> Image.Image:
    """Draw an image under half-transparent colors of its mask, with a legend beside it, most frequent class first.

    Args:
        image: The image, uint8 (height, width, 3).
        mask: Class numbers (height, width).
        classes: Names of the classes.
        colors: Color of each class, (classes, 3).

    Returns:
        The drawing. The legend has the share of each class, on white paper of its own.
    """
    counts = np.bincount(mask.flatten(), minlength=len(classes))
    present = [k for k in np.argsort(-counts, kind="stable") if counts[k] > 0]
    rows = present[: max(1, (len(image) - 2 * _MARGIN) // _ROW)]
    font, pen = ImageFont.load_default(_FONT_SIZE), ImageDraw.Draw(Image.new("L", (1, 1)))
    texts = {k: f"{printable(classes[k])} {100 * counts[k] / mask.size:.1f} %" for k in rows}
    width = _ROW + 3 * _MARGIN + max(round(pen.textlength(text, font)) for text in texts.values())
    canvas = Image.new("RGB", (image.shape[1] + width, max(len(image), _ROW + 2 * _MARGIN)), "white")
    canvas.paste(Image.fromarray(blend(image, mask, colors)), (0, 0))
    draw = ImageDraw.Draw(canvas)
    for row_index, (k, text) in enumerate(texts.items()):
        left, top = image.shape[1] + _MARGIN, _MARGIN + row_index * _ROW
        draw.rectangle((left, top, left + _ROW - 5, top + _ROW - 5), tuple(colors[k].tolist()), "black")
        draw.text((left + _ROW, top + _ROW // 2 - 2), text, "black", font, "lm")
    return canvas


def is_drawing(path: Path, stems: Collection[str]) -> bool:
    """Return whether a file has the name of a mask or an overlay that a prediction writes, NAME.mask.png.

    Args:
        path: The file.
        stems: NAME of each image.

    Returns:
        True or False.
    """
    stem, _, kind = path.stem.rpartition(".")
    return path.suffix == ".png" and kind in ("mask", "overlay") and stem in stems


def blend(image: NDArray[np.uint8], mask: NDArray[np.integer], colors: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image under half-transparent colors of its mask; pixels without a class stay as they are.

    Args:
        image: The image, uint8 (height, width, 3).
        mask: Class numbers (height, width), IGNORE_INDEX for no class.
        colors: Color of each class, (classes, 3).

    Returns:
        The image, uint8 (height, width, 3).
    """
    known = mask < len(colors)
    mixed = 0.45 * image + 0.55 * colors[np.where(known, mask, 0)]
    return np.where(known[..., None], mixed, image).round().astype(np.uint8)


def error_map(mask: NDArray[np.integer], truth: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the wrong pixels of a mask as an image: vermillion, right ones gray, those without a class white.

    Args:
        mask: Predicted class numbers (height, width).
        truth: True class numbers (height, width), IGNORE_INDEX for no class.

    Returns:
        The image, uint8 (height, width, 3).
    """
    states = np.where(truth == IGNORE_INDEX, 2, mask != truth)
    return np.array([_RIGHT, _WRONG, _NO_CLASS], np.uint8)[states]
