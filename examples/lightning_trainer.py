"""Train prompts with Lightning; stop, and continue from a checkpoint that holds only the trainable tensors."""

from collections.abc import Mapping
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import vpt
from vpt.data.synthetic.tasks import generate

backbone = vpt.load_backbone("vit_nano_patch12_48")  # its weights are part of the package
images, labels = generate("digits", 240, seed=0)  # uint8 (240, 48, 48, 3), int64 (240,)
inputs = backbone.preprocessing.normalize(torch.from_numpy(images).permute(0, 3, 1, 2))
targets = torch.from_numpy(labels)
test_images, test_labels = inputs[160:], targets[160:]
# No `shuffle=True`, so that every example sees the same batches in the same order.
train_loader = DataLoader(TensorDataset(inputs[:160], targets[:160]), batch_size=32)


class Classifier(lightning.LightningModule):
    """A tuned model, its loss and its optimizer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = vpt.attach(backbone, "vpt(length=4, dropout=0)", num_classes=10).train()

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        images, labels = batch
        loss = cross_entropy(self.model(images), labels)
        self.log("loss", loss, on_step=False, on_epoch=True)  # the mean over the epoch
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.model.trainable_parameters(), lr=1e-2, weight_decay=1e-4)

    # Lightning writes to a checkpoint what `state_dict` returns. The frozen backbone need not be there.
    def state_dict(self, **_: Any) -> dict[str, Any]:
        return self.model.trainable_state_dict()

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True, assign: bool = False) -> None:
        self.model.load_trainable_state_dict(state)


def trainer(epochs: int) -> lightning.Trainer:
    """Return a trainer that is silent and saves only what it is told to save."""
    return lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


first = trainer(epochs=2)
first.fit(Classifier(), train_loader)
first.save_checkpoint("lightning.ckpt")

module, second = Classifier(), trainer(epochs=4)
second.fit(module, train_loader, ckpt_path="lightning.ckpt", weights_only=True)
model, loss = module.model, second.callback_metrics["loss"].item()

path = vpt.save(model, "lightning.safetensors")
with torch.inference_mode():
    logits = vpt.load(path, backbone)(test_images)
accuracy = (logits.argmax(1) == test_labels).float().mean().item()
print(f"loss {loss:.5f}, top-1 {accuracy:.2f}, {path.stat().st_size / 1000:.1f} kB in {path}")
