"""Dark and light images in memory, as each kind of data that `vpt.tune` takes."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

FAST: dict[str, Any] = {"method": "linear", "epochs": 2, "batch_size": 8, "progress": False}


CLASSES = ("dark", "light")


class PairDataset(torch.utils.data.Dataset[Any]):
    """A torch dataset whose classes are in another order than the labels of `data`."""

    classes = ("light", "dark")

    def __init__(self, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
        self.pixels, self.labels = pixels, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.pixels[index]), 1 - int(self.labels[index])


class ColumnDataset:
    """The part of a Hugging Face dataset that is read."""

    column_names = ("image", "label")
    info = SimpleNamespace(dataset_name="brightness")

    def __init__(self, pixels: NDArray[np.uint8], labels: NDArray[np.int64], names: tuple[str, ...] | None) -> None:
        self.features = {"label": SimpleNamespace(names=names)} if names else {"label": SimpleNamespace()}
        self.pixels, self.labels = pixels, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: int | str) -> Any:
        if key == "label":
            return self.labels.tolist()
        if not isinstance(key, int):
            raise KeyError(key)
        if key >= len(self):
            raise IndexError(key)
        return {"image": Image.fromarray(self.pixels[key]), "label": int(self.labels[key])}


def draw(n: int, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return dark images (class 0) and light ones (class 1)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    pixels = rng.integers(0, 60, (n, 48, 48, 3)) + 120 * labels[:, None, None, None]
    return pixels.astype(np.uint8), labels.astype(np.int64)


def encoded(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_photos(root: Path, count: int) -> Path:
    """Write dark and light images into a folder for each class, and return their root."""
    for number, (pixels, label) in enumerate(zip(*draw(count), strict=True)):
        folder = root / CLASSES[label]
        folder.mkdir(exist_ok=True)
        (folder / f"{number:02}.png").write_bytes(encoded(pixels))
    return root


def draw_tags(n: int, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return images whose red, green and blue are light, each or not, as their labels say (n, 3)."""
    rng = np.random.default_rng(seed)
    tags = rng.random((n, 3)) < 0.4
    pixels = rng.integers(0, 60, (n, 48, 48, 3)) + 150 * tags[:, None, None]
    return pixels.astype(np.uint8), tags.astype(np.float32)


def draw_numbers(n: int, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return images with a number that their brightness tells, from 20 to 60."""
    rng = np.random.default_rng(seed)
    numbers = rng.uniform(20, 60, n)
    pixels = rng.integers(0, 40, (n, 48, 48, 3)) + 5 * (numbers[:, None, None, None] - 20)
    return pixels.astype(np.uint8), numbers.astype(np.float32)
