"""The training options of every task, all at once: an interrupted run ends with the bits of an unbroken one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from helpers.jobs import classification_job, segmentation_job
from vpt.training import Callback
from vpt.training.job import Job
from vpt.tuning import run_job

OPTIONS: dict[str, Any] = {
    "method": "partial(k=1)", "ema": 0.9, "patience": 3, "keep": "best", "layer_decay": 0.75,
    "activation_checkpointing": True, "learning_rate": 0.1,
}  # fmt: skip


class Record(Callback):
    def __init__(self, *, stop: bool = False) -> None:
        self.stop, self.notes = stop, list[str]()

    def on_note(self, text: str) -> None:
        self.notes.append(text)

    def on_step(self, epoch: int, step: int, loss: float, lr: float) -> None:
        if self.stop and (epoch, step) == (2, 2):
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("make", "augment"),
    [
        (
            classification_job,
            "random_resized_crop + vertical_flip + trivial_augment + random_erasing + mixup + cutmix",
        ),
        (segmentation_job, "full + vertical_flip"),
    ],
)
def test_job_resumed_with_every_training_option_is_bit_identical(
    make: Callable[..., Job], augment: str, tmp_path: Path
) -> None:
    whole, record = make(tmp_path, "a.safetensors", augment=augment, **OPTIONS), Record()
    expected = run_job(whole, record, draw=False)
    with pytest.raises(KeyboardInterrupt):
        run_job(make(tmp_path, "b.safetensors", augment=augment, **OPTIONS), Record(stop=True), draw=False)
    found = run_job(make(tmp_path, "b.safetensors", augment=augment, **OPTIONS), draw=False)
    assert found.metrics == expected.metrics
    tensors = load_file(whole.out)
    for name, tensor in load_file(Path(found.file)).items():
        assert torch.equal(tensor, tensors[name]), name
    assert any("are kept, the best on val" in note for note in record.notes)
    optimistic = any("the score is of val, which also decides" in note for note in record.notes)
    assert optimistic == (expected.eval_split == "val") == (make is segmentation_job)
