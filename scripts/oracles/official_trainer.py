"""Oracle of KMnP/vpt, the official code of the paper: the losses of 50 steps of its trainer, VPT-deep with SGD.

python scripts/oracles/official_trainer.py --repo CLONE --commit SHA
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import torch
from authors import CLASSES, IMAGE_SIZE, generator
from official import official_authors, official_config
from official_vit import build
from torch import Tensor

EPOCHS, STEPS, BATCH = 10, 5, 8
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Batches(list[dict[str, Tensor]]):
    """A data loader with a fixed order: EPOCHS * STEPS batches of which every epoch takes the next STEPS."""

    def __init__(self, batches: list[dict[str, Tensor]], steps: int) -> None:
        super().__init__(batches)
        self.steps = steps
        self.dataset = SimpleNamespace(name="tiny", get_class_weights=lambda kind: [1.0] * CLASSES)

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Any:
        for _ in range(self.steps):
            yield self.pop(0)


def train(weight_decay: float) -> dict[str, Tensor]:
    """Run the official trainer, and record its start, its data, its losses and its end."""
    from src.engine.evaluator import Evaluator
    from src.engine.trainer import Trainer

    config = official_config("prompt", DEEP=True)
    config.SOLVER.update(BASE_LR=0.1, WEIGHT_DECAY=weight_decay, TOTAL_EPOCH=EPOCHS, WARMUP_EPOCH=3)
    config.MODEL.TYPE = "vit"
    model = build(config)
    with torch.no_grad():  # as the official head begins
        model.head.last_layer.bias.fill_(-math.log(99))
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    count = 24
    pixels = torch.randint(256, (count, 3, IMAGE_SIZE, IMAGE_SIZE), generator=generator(5), dtype=torch.uint8)
    labels = torch.randint(CLASSES, (count,), generator=generator(6))
    random = generator(7)
    order = torch.stack([torch.randperm(count, generator=random)[:BATCH] for _ in range(EPOCHS * STEPS)])
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    images = (pixels / 255 - mean) / std

    losses, rates = [], []

    class RecordingTrainer(Trainer):
        def forward_one_batch(self, inputs: Tensor, targets: Tensor, is_train: bool) -> Any:
            if is_train:
                rates.append(self.optimizer.param_groups[0]["lr"])
            loss, outputs = super().forward_one_batch(inputs, targets, is_train)
            if is_train:
                losses.append(float(loss.detach()))
            return loss, outputs

    evaluator = Evaluator()
    trainer = RecordingTrainer(config, model, evaluator, torch.device("cpu"))
    batches = [{"image": images[indices], "label": labels[indices]} for indices in order]
    validation = [{"image": images[:BATCH], "label": labels[:BATCH]}] * EPOCHS
    trainer.train_classifier(Batches(batches, STEPS), Batches(validation, 1), None)
    end = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    return {
        "pixels": pixels, "labels": labels, "order": order, "losses": torch.tensor(losses, dtype=torch.float64),
        "rates": torch.tensor(rates, dtype=torch.float64), "mean": torch.tensor(MEAN), "std": torch.tensor(STD),
        **{f"weights/{name}": tensor for name, tensor in start.items()},
        **{f"end/{name}": tensor for name, tensor in end.items()},
    }  # fmt: skip


def main() -> None:
    authors = official_authors()
    for name, weight_decay in (("official_trainer", 0.0), ("official_trainer_decay", 0.01)):
        tensors = train(weight_decay)
        print([round(x, 4) for x in tensors["losses"].tolist()])
        authors.save(name, tensors, weight_decay=weight_decay, epochs=EPOCHS, steps=STEPS, batch=BATCH)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
