"""Draw the sample data of the tutorials: a folder of flowers to classify and a folder of roads to segment.

Usage: python make_data.py [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

PETALS = {"daisy": (12, (240, 240, 235)), "poppy": (5, (205, 45, 40)), "violet": (5, (110, 70, 190))}
SIDE = 96  # pixels


def draw_flower(name: str, rng: np.random.Generator) -> Image.Image:
    """Return a picture of one flower: petals around a yellow center, on green."""
    number, color = PETALS[name]
    image = Image.new("RGB", (SIDE, SIDE), tuple(int(c) for c in rng.normal((70, 120, 60), 18).clip(0, 255)))
    draw = ImageDraw.Draw(image)
    x, y = rng.uniform(0.35, 0.65, 2) * SIDE
    radius = rng.uniform(0.18, 0.32) * SIDE
    turn = rng.uniform(0, 2 * np.pi)
    width = radius * np.pi / number * (1.0 if number > 6 else 1.1)
    shade = tuple(int(c) for c in (np.array(color) + rng.normal(0, 20, 3)).clip(0, 255))
    for angle in turn + np.arange(number) * 2 * np.pi / number:
        at_x, at_y = x + radius * np.cos(angle), y + radius * np.sin(angle)
        draw.ellipse((at_x - width, at_y - width, at_x + width, at_y + width), fill=shade)
    heart = radius * 0.55
    draw.ellipse((x - heart, y - heart, x + heart, y + heart), fill=(235, 190, 50))
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(0.8)), dtype=np.float64)
    return Image.fromarray((pixels + rng.normal(0, 22, pixels.shape)).clip(0, 255).astype(np.uint8))


def draw_road(rng: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """Return a picture of sky, grass and road, and its mask with the ids 0, 1 and 2."""
    horizon = int(rng.uniform(0.3, 0.6) * SIDE)
    vanishing, left, right = rng.uniform(0.3, 0.7) * SIDE, rng.uniform(-0.2, 0.3) * SIDE, rng.uniform(0.7, 1.2) * SIDE
    mask = Image.new("L", (SIDE, SIDE), 1)
    draw = ImageDraw.Draw(mask)
    draw.rectangle((0, 0, SIDE, horizon - 1), fill=0)
    draw.polygon([(vanishing, horizon), (left, SIDE), (right, SIDE)], fill=2)
    colors = np.array([(150, 190, 235), (80, 140, 60), (95, 95, 100)]) + rng.normal(0, 12, (3, 3))
    pixels = colors[np.asarray(mask)] + rng.normal(0, 10, (SIDE, SIDE, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), mask


def make_flowers(folder: Path, images: int = 15, seed: int = 0) -> None:
    """Write `images` JPEG files of each class to `folder/CLASS/`."""
    rng = np.random.default_rng(seed)
    for name in PETALS:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(images):
            draw_flower(name, rng).save(folder / name / f"{number:03}.jpg", quality=92)


def make_roads(folder: Path, images: int = 24, seed: int = 0) -> None:
    """Write `images` pairs to `folder/images/` and `folder/masks/`, and the names of the classes."""
    rng = np.random.default_rng(seed)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(images):
        image, mask = draw_road(rng)
        image.save(folder / "images" / f"{number:03}.png")
        mask.save(folder / "masks" / f"{number:03}.png")
    (folder / "classes.txt").write_text("sky\ngrass\nroad\n", encoding="utf-8")


def main(root: Path, images: int = 15) -> None:
    """Write photos/, roads/, inbox/ and new.jpg below `root`."""
    make_flowers(root / "photos", images)
    make_roads(root / "roads", images)
    rng = np.random.default_rng(1)
    draw_flower("poppy", rng).save(root / "new.jpg", quality=92)
    (root / "inbox").mkdir(exist_ok=True)
    for name in ("daisy", "violet"):
        draw_flower(name, rng).save(root / "inbox" / f"{name}-from-the-garden.jpg", quality=92)
    draw_road(rng)[0].save(root / "street.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
