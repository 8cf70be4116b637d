"""One small training run, alike in one process and in several; as a script, one process of a group."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from helpers.families import SIZE, backbone_of
from vpt import TunedModel, attach
from vpt.data.dataset import Split
from vpt.tasks.classification import ClassificationConfig, train
from vpt.training import Callback, Examples, TrainingConfig, distributed
from vpt.training.streaming import stream_splits

CONFIG = ClassificationConfig(
    TrainingConfig(learning_rate=1.0, batch_size=8, optimizer="sgd", weight_decay=1e-2), epochs=3, warmup_epochs=1
)


def model(method: str = "vpt(length=3, dropout=0)", seed: int = 0) -> TunedModel:
    torch.manual_seed(seed)
    return attach(backbone_of("vit"), method, 3).eval()


def examples(n: int = 24, seed: int = 0) -> Examples:
    """Three classes: mostly red, mostly green, mostly blue."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    pixels = rng.integers(0, 128, (n, 3, SIZE, SIZE), np.uint8)
    pixels[np.arange(n), labels] += 100
    return Examples(pixels, labels.astype(np.int64))


def streamed_examples(folder: Path, augment: str) -> Examples:
    """The same images as files that worker processes decode."""
    drawn = examples()
    assert isinstance(drawn.pixels, np.ndarray)
    folder.mkdir(parents=True, exist_ok=True)
    paths = tuple(folder / f"{index}.png" for index in range(len(drawn)))
    for path, pixels in zip(paths, drawn.pixels, strict=True):
        Image.fromarray(pixels.transpose(1, 2, 0)).save(path)
    splits, _ = stream_splits(
        {"train": Split(paths, drawn.labels)}, backbone_of("vit").preprocessing, augment, workers=1, folder=folder,
        skip_corrupt=False, callback=Callback(),
    )  # fmt: skip
    return splits["train"]


def main(out: Path, augment: str | None = None) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group()
    assert distributed.world_size() == 2
    trained = model()
    if augment is None:
        train(trained, examples(), CONFIG)
    else:
        train(trained, streamed_examples(out.with_suffix(""), augment), CONFIG.replace(augment=augment))
    save_file(trained.trainable_state_dict(), out)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
