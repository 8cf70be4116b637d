"""The training options of every task, all at once: an interrupted run ends with the bits of an unbroken one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from vpt.data.in_memory import dataset_from_memory
from vpt.training import Callback
from vpt.training.job import Job
from vpt.tuning import make_job, run_job

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 48, 48, 3), np.uint8)
OPTIONS: dict[str, Any] = {
    "method": "partial(k=1)", "ema": 0.9, "patience": 3, "keep": "best", "layer_decay": 0.75,
    "activation_checkpointing": True, "learning_rate": 0.1,
}  # fmt: skip


def classification(folder: Path, name: str, **options: Any) -> Job:
    split = (PIXELS, [k % 2 for k in range(12)])
    data = dataset_from_memory({"train": split, "val": split, "test": split})
    augment = "random_resized_crop + vertical_flip + trivial_augment + random_erasing + mixup + cutmix"
    return make_job(data, folder / name, epochs=2, batch_size=4, augment=augment, **OPTIONS, **options)


def segmentation(folder: Path, name: str, **options: Any) -> Job:
    root = folder / "scenes"
    for kind, arrays in (("images", PIXELS), ("masks", PIXELS[..., 0] // 128)):
        (root / kind).mkdir(parents=True, exist_ok=True)
        for k, array in enumerate(arrays):
            Image.fromarray(array).save(root / kind / f"{k}.png")
    options |= {"head": "linear", "image_size": 48, "iterations": 4, "eval_every": 2, "augment": "full+vertical_flip"}
    return make_job(root, folder / name, batch_size=2, **OPTIONS, **options)


class Record(Callback):
    def __init__(self, *, stop: bool = False) -> None:
        self.stop, self.notes = stop, list[str]()

    def on_note(self, text: str) -> None:
        self.notes.append(text)

    def on_step(self, epoch: int, step: int, loss: float, lr: float) -> None:
        if self.stop and (epoch, step) == (2, 2):
            raise KeyboardInterrupt


@pytest.mark.parametrize("make", [classification, segmentation])
def test_job_resumed_with_every_training_option_is_bit_identical(make: Callable[..., Job], tmp_path: Path) -> None:
    whole, record = make(tmp_path, "a.safetensors"), Record()
    expected = run_job(whole, record, draw=False)
    with pytest.raises(KeyboardInterrupt):
        run_job(make(tmp_path, "b.safetensors"), Record(stop=True), draw=False)
    found = run_job(make(tmp_path, "b.safetensors"), draw=False)
    assert found.metrics == expected.metrics
    tensors = load_file(whole.out)
    for name, tensor in load_file(Path(found.file)).items():
        assert torch.equal(tensor, tensors[name]), name
    assert any("are kept, the best on val" in note for note in record.notes)
    optimistic = any("the score is of val, which also decides" in note for note in record.notes)
    assert optimistic == (expected.eval_split == "val") == (make is segmentation)
